"""A clock for tests."""

from __future__ import annotations

from dataclasses import dataclass

from edge_vlm_ros.core import NS_PER_S


@dataclass(slots=True)
class ManualClock:
    """A clock that moves only when it is moved."""

    time_ns: int = 0

    def now_ns(self) -> int:
        """Read the clock, in nanoseconds since an arbitrary origin."""
        return self.time_ns

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self.time_ns += round(seconds * NS_PER_S)
