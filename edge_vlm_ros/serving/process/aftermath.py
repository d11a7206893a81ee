"""What it cost that a model process did not end in order, by the driver's own figures."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Final, cast

from edge_vlm_ros.core import (
    NO_NEEDS,
    EdgeVlmError,
    EndNeeds,
    MemoryFigure,
    ModelFiles,
    chip_named,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_vlm_ros.serving.model_info import ModelSpec
    from edge_vlm_ros.serving.process.child_run import End

_MIB: Final = 1 << 20


class Aftermath:
    """Watches a chip's memory from one model process to the next. The supervising thread's.

    Args:
        spec: Which model on which chip.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._before: MemoryFigure | None = None
        self._cost = NO_NEEDS

    def note_start(self) -> None:
        """Take note of what is free before a process starts."""
        self._before = self._read()

    def explained(self, end: End) -> End:
        """Say in an end's message what it cost, with the driver's numbers."""
        self._cost = end.cost
        if not end.cost.loss:
            return end
        message = f'{end.error.message}; {end.cost.loss}{self._numbers(end.cost)}'
        return replace(end, error=EdgeVlmError(message, end.error.code))

    def hopeless(self) -> str:
        """Say why another process cannot load the model either; '' = it may.

        What is held by nobody is missing for good; what another program holds may be free soon.
        """
        before, now = self._before, self._read() if self._cost.is_memory_lost else None
        if before is None or now is None or now.free_bytes >= now.needed_bytes:
            return ''
        if before.free_bytes < before.needed_bytes:
            return ''
        return (
            f'it is not started again: the model needs at least {_mib(now.needed_bytes)} of the '
            f"chip's memory and {_mib(now.free_bytes)} are free ({now.source}): start the board "
            'again'
        )

    def _numbers(self, cost: EndNeeds) -> str:
        now = self._read() if cost.is_memory_lost else None
        if now is None:
            return ''
        before = self._before
        earlier = f', {_mib(before.free_bytes)} were before it was started' if before else ''
        return f' ({_mib(now.free_bytes)} are free{earlier}: {now.source})'

    def _read(self) -> MemoryFigure | None:
        """Ask the driver; None where it or the model's files say nothing."""
        try:
            named = chip_named(self._spec.chip).memory
            if not named:
                return None
            from edge_vlm_ros.models import find_model

            files = find_model(self._spec.chip, self._spec.model, self._spec.model_dirs)
            module, _, name = named.partition(':')
            read = cast(
                'Callable[[ModelFiles], MemoryFigure | None]',
                getattr(import_module(module), name),
            )
            return read(files)
        except (EdgeVlmError, ImportError, OSError):
            return None  # The model process says what is wrong with them.


def _mib(nbytes: int) -> str:
    return f'{nbytes / _MIB:.0f} MiB'
