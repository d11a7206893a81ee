"""Which engine drives which chip; its module and vendor's library load when it is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, cast

from edge_vlm_ros.core import BadRequestError, DeviceError, ErrorCode

if TYPE_CHECKING:
    from edge_vlm_ros.core import ModelFiles, ModelReport
    from edge_vlm_ros.engines.base import Engine, OnLoaded

# Chip -> module with a function `open_engine(files, device_ids, options, on_loaded)` and, for the
# accelerators, `inspect_model(files, device_ids)`.
_ENGINES = {
    'ax630c': 'edge_vlm_ros.engines.axera.engine',
    'ax650': 'edge_vlm_ros.engines.axera.engine',
    'cpu': 'edge_vlm_ros.engines.cpu.engine',
    'bm1684x': 'edge_vlm_ros.engines.sophgo.opening',
    'bm1688': 'edge_vlm_ros.engines.sophgo.opening',
    'scripted': 'edge_vlm_ros.engines.scripted.engine',
}


def _unheard(loaded: int, total: int) -> None:
    """Let progress pass."""


def engine_chips() -> tuple[str, ...]:
    """Name the chips that this build has an engine for."""
    return tuple(_ENGINES)


def require_engine(chip: str) -> None:
    """Check that this build has an engine for a chip, before any file is looked for.

    Raises:
        DeviceError: It has none.
    """
    if chip not in _ENGINES:
        listed = ', '.join(_ENGINES)
        raise DeviceError(f'this build has no engine for chip {chip!r}; it has: {listed}')


def open_engine(
    chip: str,
    files: ModelFiles,
    device_ids: Sequence[int] = (),
    options: Mapping[str, object] | None = None,
    on_loaded: OnLoaded = _unheard,
) -> Engine:
    """Load a model onto a chip: seconds to minutes. The engine belongs to the calling thread.

    Args:
        chip: One of `engine_chips`.
        files: What `models.find_model` found for this chip.
        device_ids: Devices of that kind; empty = the first one.
        options: The engine's own; for 'cpu' the fields of `CpuOptions`, for 'ax650' and 'ax630c'
            those of `AxeraOptions`, for the others none.
        on_loaded: Called after each part, where a model loads in parts.

    Raises:
        DeviceError: This build has no engine for the chip, or the device does not work.
        ModelFileError: A file is missing, damaged or does not fit the others.
        BadRequestError: An option the engine does not have.
    """
    require_engine(chip)
    module = import_module(_ENGINES[chip])
    engine = module.open_engine(files, tuple(device_ids), options or {}, on_loaded)
    return cast('Engine', engine)


def inspect_model(chip: str, files: ModelFiles, device_ids: Sequence[int] = ()) -> ModelReport:
    """Read a model's files as the engine would, without loading more than that needs.

    Args:
        chip: An accelerator.
        files: What `models.find_model` found.
        device_ids: As for `open_engine`.

    Raises:
        DeviceError: No engine for the chip, or the device or its library does not work.
        ModelFileError: A file is missing, damaged or does not fit the others.
        BadRequestError: The chip's models say nothing of themselves.
    """
    require_engine(chip)
    module = import_module(_ENGINES[chip])
    if not hasattr(module, 'inspect_model'):
        raise BadRequestError(
            f'models for chip {chip} cannot be inspected', ErrorCode.UNSUPPORTED_OPTION
        )
    return cast('ModelReport', module.inspect_model(files, tuple(device_ids)))
