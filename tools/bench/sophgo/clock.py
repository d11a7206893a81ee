"""Taking a decode step apart: what lies between the calls of the runtime is the host's."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

LAYER: Final = 'block_cache_'
"""Beginning of the names of the decode nets."""


@dataclass
class Clock:
    """When calls of the runtime were made and when they returned.

    Attributes:
        calls: Net or method, start and end on the steady clock, seconds.
    """

    calls: list[tuple[str, float, float]] = field(default_factory=list)

    def time_step(self, step: Callable[[], object]) -> StepTime:
        """Run a decode step; return what it took outside the runtime's calls."""
        self.calls.clear()
        started_s = time.perf_counter()
        step()
        ended_s = time.perf_counter()
        result = StepTime()
        free_s, since_layer_s, previous = started_s, 0.0, False
        for what, start_s, end_s in self.calls:
            gap_s = start_s - free_s
            result.host_s += gap_s
            result.view_s += end_s - start_s if what == 'view' else 0.0
            since_layer_s += gap_s
            if what.startswith(LAYER):
                if previous:
                    result.layer_s.append((int(what.removeprefix(LAYER)), since_layer_s))
                since_layer_s, previous = 0.0, True
            free_s = end_s
        result.host_s += ended_s - free_s
        return result


@dataclass
class StepTime:
    """One decode step, seconds outside the runtime's calls.

    Attributes:
        host_s: In all.
        layer_s: Layer and what lies between the launch before its own and its own.
        view_s: Inside the stand-in for making views, which is in none of the others.
    """

    host_s: float = 0.0
    view_s: float = 0.0
    layer_s: list[tuple[int, float]] = field(default_factory=list)
