"""Model families: each knows its pixels, its words and its positions.

A family's row in `core.model_families` names its module. It has:

    OPTIONS                             the type of its options, see `core.options`
    read(config, options) -> FamilySettings
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import cast

from edge_vlm_ros.core import (
    ModelConfig,
    ModelFileError,
    Options,
    PackageError,
    broken_families,
    family_of_type,
    known_model_types,
    read_options,
)
from edge_vlm_ros.families.base import FamilySettings, ModelFamily

__all__ = ['FamilySettings', 'ModelFamily', 'family_options', 'read_family']


_LANGUAGE_MODELS = frozenset({'internlm2', 'llama', 'phi3', 'qwen2', 'qwen3'})
_ALONE = (
    '; this is the config.json of the language model inside: the one of the whole model is needed'
)
"""Some folders of tokenizers have that, as axllm's own for InternVL3.5."""


def family_options(config: ModelConfig) -> type[Options]:
    """Return the type of the options that a model's family takes.

    Raises:
        ModelFileError: config.json is missing or damaged, or no family knows the model.
    """
    return cast('type[Options]', _module_of(config).OPTIONS)


def read_family(
    config: ModelConfig, options: Mapping[str, object] | None = None
) -> FamilySettings:
    """Read and check what a model's files say about its family, before any engine is there.

    Args:
        config: The model's files; the tokenizer lies beside them.
        options: The family's own, by name; see `family_options`.

    Raises:
        ModelFileError: A file is missing or damaged, or no family knows the model.
        BadRequestError: The family has no such option.
    """
    module = _module_of(config)
    chosen = read_options(module.OPTIONS, options or {}, f'family {config.family}')
    return cast('FamilySettings', module.read(config, chosen))


def _module_of(config: ModelConfig) -> ModuleType:
    if not config.folder.is_dir():
        raise ModelFileError(f'there is no model folder {config.folder}')
    row = family_of_type(config.model_type)
    if row is None:
        error = config.model.error('model_type', f'one of {", ".join(known_model_types())}')
        broken = ''.join(f'; broken: family {found}' for found in broken_families())
        alone = _ALONE if config.model_type in _LANGUAGE_MODELS else ''
        raise ModelFileError(f'{error.message}{alone}{broken}')
    try:
        return import_module(row.module)
    except ImportError as error:
        raise PackageError(
            f'family {row.name}: {row.module} cannot be imported: {error}'
        ) from error
