"""The last pictures of a camera, by stamp: where the frames of an answer are looked up."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from edge_vlm_ros.core import NS_PER_S
from edge_vlm_ros.web import bounds
from edge_vlm_ros.web.robot import Picture

NEAR_NS = NS_PER_S // 4
"""A picture further from a frame than this is no picture of it."""


@dataclass(frozen=True, slots=True)
class Found:
    """The picture of a frame.

    Attributes:
        picture: It, or of its neighbours the nearest that was kept.
        offset_ns: How much later than the frame it was taken; 0 = it is the very frame.
    """

    picture: Picture
    offset_ns: int


class PictureStore:
    """Keeps pictures in the order of their stamps, bounded by bytes and by time.

    A camera whose stamps went back (a bag that starts over, a clock that was set) starts over here
    too. The newest is always kept.

    Args:
        max_bytes: Of all pictures.
        max_s: From the oldest stamp to the newest, seconds.
    """

    def __init__(self, max_bytes: int = bounds.STORE_BYTES, max_s: float = bounds.STORE_S) -> None:
        self._max_bytes = max_bytes
        self._max_ns = round(max_s * NS_PER_S)
        self._stamps: list[int] = []
        self._pictures: list[Picture] = []
        self._nbytes = 0

    def __len__(self) -> int:
        return len(self._stamps)

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return self._nbytes

    def add(self, picture: Picture) -> None:
        """Keep a picture; under the stamp of an older one, in its place if it shows no less."""
        stamp_ns = picture.stamp_ns
        if self._stamps and stamp_ns < self._stamps[-1] - self._max_ns:
            self.clear()
        place = bisect_left(self._stamps, stamp_ns)
        if place < len(self._stamps) and self._stamps[place] == stamp_ns:
            if picture.is_whole or not self._pictures[place].is_whole:
                self._nbytes += len(picture.jpeg) - len(self._pictures[place].jpeg)
                self._pictures[place] = picture
        else:
            self._stamps.insert(place, stamp_ns)
            self._pictures.insert(place, picture)
            self._nbytes += len(picture.jpeg)
        self._evict()

    def find(self, stamp_ns: int) -> Found | None:
        """Return the picture of a frame, or its nearest neighbour's; None = neither is kept."""
        place = bisect_left(self._stamps, stamp_ns)
        near = range(max(0, place - 1), min(len(self._stamps), place + 1))
        best = min(near, key=lambda i: abs(self._stamps[i] - stamp_ns), default=None)
        if best is None or abs(self._stamps[best] - stamp_ns) > NEAR_NS:
            return None
        return Found(self._pictures[best], self._stamps[best] - stamp_ns)

    def clear(self) -> None:
        """Keep nothing."""
        self._stamps.clear()
        self._pictures.clear()
        self._nbytes = 0

    def _evict(self) -> None:
        earliest_ns = self._stamps[-1] - self._max_ns
        count = 0
        while count < len(self._stamps) - 1 and (
            self._nbytes > self._max_bytes or self._stamps[count] < earliest_ns
        ):
            self._nbytes -= len(self._pictures[count].jpeg)
            count += 1
        del self._stamps[:count], self._pictures[:count]
