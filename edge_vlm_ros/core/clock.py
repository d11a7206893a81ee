"""Steady time, passed in so that tests can hold it still."""

from __future__ import annotations

import time
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
