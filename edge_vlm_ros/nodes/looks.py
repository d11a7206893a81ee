"""Looks at cameras' newest frames, each taken once and none too often."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from edge_vlm_ros.core import NS_PER_S, BadImageError
from edge_vlm_ros.vision import thumbnail

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_vlm_ros.core import Clock, StoredFrame
    from edge_vlm_ros.vision import Thumbnail

REST = 20
"""A camera is left alone for so many times what the last look at it cost: a look at a file can
take 10 ms, and all looks together are to take a twentieth of a core at most."""

LONGEST_REST_NS = 2 * NS_PER_S

MAX_KEPT = 64
"""Looks that are kept, 7 kB each; of the frames nothing is."""


class Looks:
    """Takes looks at frames. One thread.

    Args:
        clock: Steady time.
        work_ns: Tells the time that this thread has worked: a look is not dearer for having been
            interrupted.
    """

    def __init__(self, clock: Clock, work_ns: Callable[[], int] = time.thread_time_ns) -> None:
        self._clock = clock
        self._work_ns = work_ns
        self._kept: OrderedDict[tuple[str, int, int], Thumbnail | None] = OrderedDict()
        self._rested_ns: dict[str, int] = {}
        self.taken = 0
        """How many were taken."""

    def is_rested(self, camera: str) -> bool:
        """Return whether a look at a camera's frame, if nobody waits for it, is in order now."""
        return self._clock.now_ns() >= self._rested_ns.get(camera, 0)

    def at(self, frame: StoredFrame) -> Thumbnail | None:
        """Return a look at a frame; None = it cannot be decoded."""
        name = (frame.source.camera, frame.stamp_ns, frame.received_ns)
        if name in self._kept:
            return self._kept[name]
        start_ns = self._work_ns()
        try:
            look = thumbnail(frame.image)
        except BadImageError:  # Whoever shows it says so.
            look = None
        rest_ns = min(REST * (self._work_ns() - start_ns), LONGEST_REST_NS)
        self.taken += 1
        self._rested_ns[frame.source.camera] = self._clock.now_ns() + rest_ns
        self._kept[name] = look
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return look
