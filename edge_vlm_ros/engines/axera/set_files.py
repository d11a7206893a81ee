"""The files of a set, checked before any is loaded: all there, and of one model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_vlm_ros.core import ModelConfig, ModelFileError, ModelFiles
from edge_vlm_ros.engines.axera.graphs import StackShapes
from edge_vlm_ros.engines.axera.vision_shapes import VisionShapes

_PATCH_DEPTH = 3 * 2  # colours and frames of one patch

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class DeclaredSizes:
    """What config.json and the preprocessor's file say; None where they do not.

    Attributes:
        path: config.json.
        layers: Decoder layers.
        hidden: Width of the language model.
        tile_px: Side of the vision tower's square.
        patch_px: Side of a patch of that square.
        ratio: What the pixel shuffle leaves of a row of patches.
        mean: Of normalised pixels, by channel.
        std: Likewise.
        deepstack: Decoder layers that the vision tower gives features of their own.
    """

    path: Path
    layers: int | None
    hidden: int | None
    tile_px: int | None
    patch_px: int | None = None
    ratio: float = 0.5
    mean: tuple[float, float, float] = _IMAGENET_MEAN
    std: tuple[float, float, float] = _IMAGENET_STD
    deepstack: int = 0

    @classmethod
    def of(cls, config: ModelConfig) -> DeclaredSizes:
        """Read them; what the files lack is left open.

        Raises:
            ModelFileError: config.json is missing, or something is not what it should be.
        """
        mean, std = _IMAGENET_MEAN, _IMAGENET_STD
        if config.has_preprocessor:
            mean = config.preprocessor.three('image_mean', mean)
            std = config.preprocessor.three('image_std', std)
        return cls(
            path=config.model.path,
            layers=config.language.find_count('num_hidden_layers'),
            hidden=config.language.find_count('hidden_size'),
            tile_px=_tile_px(config),
            patch_px=config.vision.find_count('patch_size'),
            ratio=config.model.fraction('downsample_ratio', 0.5),
            mean=mean,
            std=std,
            deepstack=config.deepstack_layers,
        )


def _tile_px(config: ModelConfig) -> int | None:
    """Return the size that OpenGVLab's folders force, else the vision tower's own."""
    is_forced = bool(config.model.values.get('force_image_size'))
    if is_forced:
        return config.model.count('force_image_size')
    return config.vision.find_count('image_size')


def count_layers(files: ModelFiles, config: DeclaredSizes) -> int:
    """Count the layers of a set, none of them missing, and check that all its files are there.

    Raises:
        ModelFileError: A file is missing or empty; the message names it.
    """
    numbers = {int(part.partition('.')[2]) for part in files.weights if part.startswith('layers.')}
    wanted = config.layers or max(numbers, default=0) + 1
    parts = [*(f'layers.{i}' for i in range(wanted)), 'post', 'embed_tokens', 'vision_encoder']
    for part in parts:
        if part not in files.weights:
            layers = f' ({config.path} says {wanted} layers)' if config.layers else ''
            raise ModelFileError(f'{files.folder}: no {part} among the model files{layers}')
        if not files.weights[part].is_file():
            raise ModelFileError(f'{files.weights[part]}: no such file ({part} of the model)')
    if len(numbers) > wanted:
        raise ModelFileError(
            f'{files.folder}: {len(numbers)} layers, but {config.path} says {wanted}: '
            'the tokenizer folder is of another model'
        )
    return wanted


def check_config(
    config: DeclaredSizes, files: ModelFiles, shapes: StackShapes, vision: VisionShapes
) -> None:
    """Refuse a config.json of another model than the axmodels'.

    A vision tower may be compiled for another tile size than the model was trained with. Where
    the patches of its tiles make its rows, it is the same model, and the family takes its size.

    Raises:
        ModelFileError: The width differs, or the tile size without giving its rows.
    """
    if config.hidden not in {None, shapes.hidden}:
        raise ModelFileError(
            f'{files.weights["layers.0"]}: input: expected width {config.hidden} ({config.path}), '
            f'found {shapes.hidden}'
        )
    if vision.patches:
        _check_patches(config, files, vision)
    elif config.tile_px not in {None, vision.tile_px} and not _has_rows_of_its_tiles(
        config, vision
    ):
        raise ModelFileError(
            f'{files.weights["vision_encoder"]}: expected images of {config.tile_px} px '
            f'({config.path}), found {vision.tile_px}: another model, or one compiled for another '
            f'size; then set force_image_size to {vision.tile_px} there'
        )


def check_deepstack(
    config: DeclaredSizes, files: ModelFiles, shapes: StackShapes, vision: VisionShapes
) -> None:
    """Refuse a vision tower with features for other layers than there are to add them after.

    Raises:
        ModelFileError: config.json says another number, or the decoder has too few layers.
    """
    if len(vision.deepstack) != config.deepstack:
        raise ModelFileError(
            f'{files.weights["vision_encoder"]}: expected features for {config.deepstack} of the '
            f'first layers ({config.path}), found some for {len(vision.deepstack)}: these files '
            'are not of one model'
        )
    if len(vision.deepstack) >= shapes.layers:
        raise ModelFileError(
            f'{files.weights["vision_encoder"]}: features for {len(vision.deepstack)} layers '
            f'beside those of the prompt, the decoder has {shapes.layers} to add them between'
        )


def _check_patches(config: DeclaredSizes, files: ModelFiles, vision: VisionShapes) -> None:
    """Refuse a tower for patches where the model takes tiles, or patches of another size."""
    values = _PATCH_DEPTH * (config.patch_px or 0) ** 2
    if config.tile_px is not None or values not in {0, vision.patch_values}:
        wanted = f'{values} values' if config.tile_px is None else f'tiles of {config.tile_px} px'
        raise ModelFileError(
            f'{files.weights["vision_encoder"]}: expected {wanted} ({config.path}), found patches '
            f'of {vision.patch_values} values: these files are not of one model'
        )


def _has_rows_of_its_tiles(config: DeclaredSizes, vision: VisionShapes) -> bool:
    if config.patch_px is None or vision.tile_px % config.patch_px:
        return False
    return (vision.tile_px // config.patch_px * config.ratio) ** 2 == vision.rows
