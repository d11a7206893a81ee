"""How many frames are missing between those that came, seen from their stamps alone.

The one evidence that every middleware leaves: Fast DDS reports lost messages, Cyclone DDS never.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise

from edge_vlm_ros.core import NS_PER_S

STEPS = 60
FEWEST_STEPS = 12
LONGEST_STEP_NS = 10 * NS_PER_S
ROUNDING = 0.15
"""Steps of a steady camera are whole periods, to so much of one on average."""

LEAST_CHANGES = 0.2
"""Losses come irregularly: so many of the steps are followed by one of another length. A camera
that halves its rate in the dark changes once."""


class StampGaps:
    """The steps between the stamps of one camera."""

    def __init__(self) -> None:
        self._steps: deque[int] = deque(maxlen=STEPS)
        self._last_ns = 0

    def note(self, stamp_ns: int) -> None:
        """Take note of a frame."""
        step_ns = stamp_ns - self._last_ns
        if self._last_ns and 0 < step_ns < LONGEST_STEP_NS:
            self._steps.append(step_ns)
        self._last_ns = stamp_ns

    def clear(self) -> None:
        """Forget all."""
        self._steps.clear()
        self._last_ns = 0

    @property
    def missing_share(self) -> float:
        """The share of frames that are missing among the last ones; 0 where nothing shows it."""
        steps = list(self._steps)
        if len(steps) < FEWEST_STEPS:
            return 0.0
        shortest_ns = sorted(steps)[1]
        single = [step for step in steps if step < 1.5 * shortest_ns]
        period_ns = sum(single) / len(single)
        whole = [max(1, round(step / period_ns)) for step in steps]
        error = sum(
            abs(step / period_ns - number) for step, number in zip(steps, whole, strict=True)
        )
        changes = sum(one != two for one, two in pairwise(whole))
        if error > ROUNDING * len(steps) or changes < LEAST_CHANGES * len(steps):
            return 0.0
        return 1 - len(steps) / sum(whole)
