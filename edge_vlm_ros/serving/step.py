"""What a backend is doing at the moment: its sign of life."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Step:
    """One step of work that cannot be interrupted, or none.

    Attributes:
        stage: 'prepare', 'render', 'encode', 'prefill', 'decode', or what else a backend does;
            '' = nothing.
        request_id: The question's; '' = it is no question's.
        scale: How many times what was measured at start-up (`StageCosts`) it is expected to cost.
    """

    stage: str = ''
    request_id: str = ''
    scale: float = 1.0

    @property
    def is_rest(self) -> bool:
        """Whether there is nothing to do."""
        return not self.stage

    def __str__(self) -> str:
        """Name it for people."""
        if self.is_rest:
            return 'before any work'
        return f'in {self.stage}' + (f' of request {self.request_id}' if self.request_id else '')


REST = Step()

CHIP_THREAD = 'chip-worker'
"""The name of a thread that steps are done on: when it fails, no question is answered any more."""

OnStep: TypeAlias = Callable[[Step], None]
"""Called on a thread of the backend's when a step begins, within long ones again, and with `REST`
when there is nothing left to do."""
