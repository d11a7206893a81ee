"""Model families: each knows its pixels, its words and its positions."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.families.base import ModelFamily
from edge_vlm_ros.families.config_file import ConfigFile
from edge_vlm_ros.families.options import FamilyOptions

__all__ = ['FamilyOptions', 'ModelFamily', 'load_family', 'supported_model_types']

# model_type in config.json: module of this room, class. Imported when first needed.
_FAMILIES = {
    'internvl': ('internvl', 'InternVlFamily'),
    'internvl_chat': ('internvl', 'InternVlFamily'),
    'mllama': ('mllama', 'MllamaFamily'),
    'qwen2_vl': ('qwen2_vl', 'Qwen2VlFamily'),
}


def supported_model_types() -> tuple[str, ...]:
    """Return the values of `model_type` that `load_family` knows."""
    return tuple(sorted(_FAMILIES))


def load_family(
    folder: Path,
    options: FamilyOptions = FamilyOptions(),  # noqa: B008 (frozen)
) -> ModelFamily:
    """Read what a model folder says about its family.

    Args:
        folder: With config.json, preprocessor and tokenizer files.
        options: What may be chosen.

    Raises:
        ModelFileError: A file is missing or damaged, or the model is of an unknown family.
    """
    if not folder.is_dir():
        raise ModelFileError(f'there is no model folder {folder}')
    config = ConfigFile.read(folder / 'config.json')
    found = config.text('model_type')
    if found not in _FAMILIES:
        raise config.error('model_type', f'one of {", ".join(supported_model_types())}')
    module, name = _FAMILIES[found]
    family: Any = getattr(import_module(f'{__name__}.{module}'), name)
    loaded: ModelFamily = family.load(folder, options)
    return loaded
