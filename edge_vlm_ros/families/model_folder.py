"""What the files of a model folder say that several families read in the same way."""

from __future__ import annotations

from collections.abc import Iterable

from edge_vlm_ros.core import EngineLimits, ModelFileError
from edge_vlm_ros.families.config_file import ConfigFile
from edge_vlm_ros.text import Tokenizer
from edge_vlm_ros.vision import Normaliser


def normaliser_of(preprocessor: ConfigFile) -> Normaliser:
    """Read mean and deviation from preprocessor_config.json.

    Raises:
        ModelFileError: They are missing, or a deviation is 0.
    """
    mean, std = preprocessor.three('image_mean'), preprocessor.three('image_std')
    if not all(value > 0 for value in std):
        raise preprocessor.error('image_std', 'numbers above 0')
    return Normaliser(mean, std)


def stop_tokens_of(
    tokenizer: Tokenizer, sections: Iterable[ConfigFile], generation: ConfigFile
) -> frozenset[int]:
    """Return the end tokens the files name.

    config.json may carry over the defaults of another model's configuration class, so there only
    ids of special tokens count.

    Args:
        tokenizer: The model's.
        sections: Of config.json.
        generation: generation_config.json; may be empty.

    Raises:
        ModelFileError: Something else than ids stands there.
    """
    named = [token for section in sections for token in section.ids('eos_token_id')]
    special = filter(tokenizer.is_special, named)
    return frozenset(special).union(generation.ids('eos_token_id'))


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
