"""What is replayed: frames of one or several cameras, in the order in which they came."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from edge_vlm_ros.core import StoredFrame

BAG_SUFFIXES = ('.mcap', '.db3')


class Arrival(NamedTuple):
    """One frame, and when it came.

    Attributes:
        time_ns: Since the recording's beginning, nanoseconds; never before that of the one before.
        frame: Its stamp is on the same clock.
    """

    time_ns: int
    frame: StoredFrame


class Recording(Protocol):
    """Frames that can be gone through once."""

    @property
    def name(self) -> str:
        """For people: the path."""
        ...

    @property
    def cameras(self) -> tuple[str, ...]:
        """By name; the first is the default."""
        ...

    def arrivals(self) -> Iterator[Arrival]:
        """Give out the frames in order.

        Raises:
            BadImageError: There is none, or one that cannot be read.
        """
        ...
