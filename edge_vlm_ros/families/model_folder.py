"""What the files of a model say that several families read in the same way."""

from __future__ import annotations

from collections.abc import Iterable

from edge_vlm_ros.core import ConfigFile, EngineLimits, ModelConfig, ModelFileError
from edge_vlm_ros.text import Tokenizer
from edge_vlm_ros.vision import Normaliser


def normaliser_of(preprocessor: ConfigFile) -> Normaliser:
    """Read mean and deviation of pixels.

    Raises:
        ModelFileError: They are missing, or a deviation is 0.
    """
    mean, std = preprocessor.three('image_mean'), preprocessor.three('image_std')
    if not all(value > 0 for value in std):
        raise preprocessor.error('image_std', 'numbers above 0')
    return Normaliser(mean, std)


def stop_tokens_of(
    tokenizer: Tokenizer, config: ModelConfig, named: Iterable[str]
) -> frozenset[int]:
    """Return the ids that end an answer: the template's own, and those that the files name.

    config.json may carry over the defaults of another model's configuration class, so there only
    ids of special tokens count.

    Args:
        tokenizer: The model's.
        config: The model's files.
        named: Tokens that the template ends an answer with.

    Raises:
        ModelFileError: The tokenizer lacks one of them, or something else than ids stands in a
            file.
    """
    sections = (config.model, config.language)
    listed = [token for section in sections for token in section.ids('eos_token_id')]
    special = filter(tokenizer.is_special, listed)
    return frozenset(special).union(
        config.generation.ids('eos_token_id'), map(tokenizer.token_id, named)
    )


def check_tile_size(tile_px: int, limits: EngineLimits) -> None:
    """Refuse a vision tower for tiles of another size than the model's files say.

    Raises:
        ModelFileError: They are not the same model's.
    """
    if limits.tile_px not in {0, tile_px}:
        raise ModelFileError(
            f'config.json says tiles of {tile_px} px, the vision tower takes {limits.tile_px} px: '
            f'these files are not of one model'
        )
