"""Which engine drives which chip; its module and vendor's library load when it is opened.

A chip's row names the module of its engine. It has these, the last three if there is something to
say:

    open_engine(files, device_ids, options, on_loaded) -> Engine
    OPTIONS                                     the type of its options, see `core.options`
    inspect_model(files, device_ids) -> ModelReport
    known_tokens(files) -> int or None          ids that have an embedding; without a device
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, cast

from edge_vlm_ros.core import (
    BadRequestError,
    ErrorCode,
    Options,
    SetupError,
    chip_named,
)
from edge_vlm_ros.engines.base import ignore_progress

if TYPE_CHECKING:
    from edge_vlm_ros.core import ModelFiles, ModelReport
    from edge_vlm_ros.engines.base import Engine, OnLoaded


def engine_options(chip: str) -> type[Options]:
    """Return the type of the options that a chip's engine takes.

    Raises:
        BadRequestError: There is no such chip, or it has no engine.
        SetupError: The module of its engine cannot be imported.
    """
    return cast('type[Options]', getattr(_module_of(chip), 'OPTIONS', Options))


def open_engine(
    chip: str,
    files: ModelFiles,
    device_ids: Sequence[int] = (),
    options: Mapping[str, object] | None = None,
    on_loaded: OnLoaded = ignore_progress,
) -> Engine:
    """Load a model onto a chip: seconds to minutes. The engine belongs to the calling thread.

    Args:
        chip: Its name.
        files: What `models.find_model` found for this chip.
        device_ids: Devices of that kind; empty = the first one.
        options: The engine's own, by name; see `engine_options`.
        on_loaded: Called after each part, where a model loads in parts.

    Raises:
        BadRequestError: There is no such chip, it has no engine, or the engine no such option.
        DeviceError: The device does not work, or the engine's module cannot be imported.
        ModelFileError: A file is missing, damaged or does not fit the others.
    """
    module = _module_of(chip)
    engine = module.open_engine(files, tuple(device_ids), options or {}, on_loaded)
    return cast('Engine', engine)


def inspect_model(chip: str, files: ModelFiles, device_ids: Sequence[int] = ()) -> ModelReport:
    """Read a model's files as the engine would, without loading more than that needs.

    Args:
        chip: An accelerator.
        files: What `models.find_model` found.
        device_ids: As for `open_engine`.

    Raises:
        BadRequestError: No engine for the chip, or its models say nothing of themselves.
        DeviceError: The device or its library does not work.
        ModelFileError: A file is missing, damaged or does not fit the others.
    """
    module = _module_of(chip)
    if not hasattr(module, 'inspect_model'):
        raise BadRequestError(
            f'models for chip {chip} cannot be inspected', ErrorCode.UNSUPPORTED_OPTION
        )
    return cast('ModelReport', module.inspect_model(files, tuple(device_ids)))


def known_tokens(chip: str, files: ModelFiles) -> int | None:
    """Say how many token ids a model's files have an embedding for; needs no device.

    Args:
        chip: Its name.
        files: What `models.find_model` found.

    Returns:
        The number; None = the files do not say it, or not before they are loaded.

    Raises:
        BadRequestError: There is no such chip, or it has no engine.
        ModelFileError: A file that would say it is missing or damaged.
        SetupError: The module of the engine cannot be imported.
    """
    found = getattr(_module_of(chip), 'known_tokens', None)
    return None if found is None else cast('int | None', found(files))


def _module_of(chip: str) -> ModuleType:
    row = chip_named(chip)
    if not row.engine:
        raise BadRequestError(
            f'chip {chip} has no engine: {row.backend} answers on it', ErrorCode.UNSUPPORTED_OPTION
        )
    try:
        return import_module(row.engine)
    except ImportError as error:
        raise SetupError(
            f'chip {chip}: {row.engine} cannot be imported: {error} '
            "('edge-vlm doctor' says what is missing)"
        ) from error
