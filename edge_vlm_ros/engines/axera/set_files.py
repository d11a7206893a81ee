"""The files of a set, checked before any is loaded: all there, and small enough for the chip."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_vlm_ros.core import DeviceError, ModelFileError, ModelFiles
from edge_vlm_ros.engines.axera.chip_memory import CMM_INFO, free_chip_bytes
from edge_vlm_ros.engines.axera.graphs import StackShapes, VisionShapes

_MIB = 1 << 20

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What config.json and preprocessor_config.json say; None where they do not.

    Attributes:
        path: config.json.
        layers: Decoder layers.
        hidden: Width of the language model.
        tile_px: Side of the vision tower's square.
        patch_px: Side of a patch of that square.
        ratio: What the pixel shuffle leaves of a row of patches.
        mean: Of normalised pixels, by channel.
        std: Likewise.
    """

    path: Path
    layers: int | None
    hidden: int | None
    tile_px: int | None
    patch_px: int | None = None
    ratio: float = 0.5
    mean: tuple[float, ...] = _IMAGENET_MEAN
    std: tuple[float, ...] = _IMAGENET_STD


def read_config(folder: Path) -> ModelConfig:
    """Read what the model's own files say of it; what they lack is left open.

    Raises:
        ModelFileError: A file is no JSON object.
    """
    path = folder / 'config.json'
    config = _json(path)
    language = config.get('llm_config') or config.get('text_config') or config
    vision = config.get('vision_config') or {}
    pixels = _json(folder / 'preprocessor_config.json')
    return ModelConfig(
        path=path,
        layers=_count(language.get('num_hidden_layers')),
        hidden=_count(language.get('hidden_size')),
        tile_px=_count(config.get('force_image_size')) or _count(vision.get('image_size')),
        patch_px=_count(vision.get('patch_size')),
        ratio=_fraction(config.get('downsample_ratio'), 0.5),
        mean=_three(pixels.get('image_mean'), _IMAGENET_MEAN),
        std=_three(pixels.get('image_std'), _IMAGENET_STD),
    )


def count_layers(files: ModelFiles, config: ModelConfig) -> int:
    """Count the layers of a set, none of them missing, and check that all its files are there.

    Raises:
        ModelFileError: One is not; says which.
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
    config: ModelConfig, files: ModelFiles, shapes: StackShapes, vision: VisionShapes
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
    if config.tile_px not in {None, vision.tile_px} and not _has_rows_of_its_tiles(config, vision):
        raise ModelFileError(
            f'{files.weights["vision_encoder"]}: expected images of {config.tile_px} px '
            f'({config.path}), found {vision.tile_px}: another model, or one compiled for another '
            f'size; then set force_image_size to {vision.tile_px} there'
        )


def _has_rows_of_its_tiles(config: ModelConfig, vision: VisionShapes) -> bool:
    if config.patch_px is None or vision.tile_px % config.patch_px:
        return False
    return (vision.tile_px // config.patch_px * config.ratio) ** 2 == vision.rows


def chip_bytes(files: ModelFiles) -> int:
    """Sum up what loads onto the chip: all axmodels. IO buffers come on top."""
    return sum(path.stat().st_size for path in _axmodels(files))


def check_memory(files: ModelFiles, cmm_info: Path = CMM_INFO) -> None:
    """Refuse a set that does not fit the chip's free memory, before half of it is loaded.

    Where the driver does not tell (cards, other systems), nothing is checked.

    Raises:
        DeviceError: The set needs more than is free.
    """
    free = free_chip_bytes(cmm_info)
    needed = chip_bytes(files)
    if free is not None and needed > free:
        raise DeviceError(
            f'the model needs {needed / _MIB:.0f} MiB of chip memory (CMM) and more for its '
            f'caches, {free / _MIB:.0f} MiB are free ({cmm_info}): stop other programs that use '
            'the NPU, or choose a smaller model'
        )


def _axmodels(files: ModelFiles) -> Iterable[Path]:
    return (path for part, path in files.weights.items() if part != 'embed_tokens')


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelFileError(f'{path}: cannot be read as JSON: {error}') from error
    if not isinstance(found, dict):
        raise ModelFileError(f'{path}: expected an object, found {type(found).__name__}')
    return found


def _count(value: object) -> int | None:
    if isinstance(value, list):
        value = value[0] if value else None
    return value if isinstance(value, int) and value > 0 else None


def _fraction(value: object, default: float) -> float:
    return float(value) if isinstance(value, int | float) and 0 < value <= 1 else default


def _three(value: object, default: tuple[float, ...]) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) != 3:
        return default
    return tuple(map(float, value))
