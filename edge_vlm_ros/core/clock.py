"""Steady time, passed in so that tests can hold it still."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

NS_PER_S = 1_000_000_000


class Clock(Protocol):
    """A clock that never goes back; deadlines and statistics are counted on it.

    On Linux `time.monotonic_ns` is one clock for every process of a machine, so a reading made in
    the ROS process may be compared with one made in the model process.
    """

    def now_ns(self) -> int:
        """Read the clock, in nanoseconds since an arbitrary origin."""
        ...


class SteadyClock:
    """The machine's monotonic clock."""

    def now_ns(self) -> int:
        """Read the clock, in nanoseconds since an arbitrary origin."""
        return time.monotonic_ns()


@dataclass(slots=True)
class ManualClock:
    """A clock that moves only when told to; for tests."""

    time_ns: int = 0

    def now_ns(self) -> int:
        """Read the clock, in nanoseconds since an arbitrary origin."""
        return self.time_ns

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self.time_ns += round(seconds * NS_PER_S)
