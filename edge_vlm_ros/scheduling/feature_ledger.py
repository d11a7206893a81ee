"""Which frames' features are kept. The ledger holds names and sizes, `serving` the tensors."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge_vlm_ros.core import FrameKey


class FeatureLedger:
    """A least-recently-used list of frames, bounded by count and bytes.

    Pinned frames are in use: they are never named for eviction, even where that breaks a bound
    for as long as the pin lasts.

    Args:
        max_frames: Most frames kept; 0 or more.
        max_bytes: Most bytes of features kept; 0 or more.
    """

    def __init__(self, *, max_frames: int, max_bytes: int) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._sizes: OrderedDict[FrameKey, int] = OrderedDict()
        self._pinned: frozenset[FrameKey] = frozenset()
        self._nbytes = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def __contains__(self, frame: FrameKey) -> bool:
        return frame in self._sizes

    @property
    def nbytes(self) -> int:
        """Bytes of all features kept."""
        return self._nbytes

    def pin(self, frames: Iterable[FrameKey]) -> list[FrameKey]:
        """Make these the frames in use, and no others; return what must go now."""
        self._pinned = frozenset(frames)
        for frame in self._sizes.keys() & self._pinned:
            self._sizes.move_to_end(frame)
        return self._evict()

    def add(self, frame: FrameKey, nbytes: int) -> list[FrameKey]:
        """Note that a frame's features are kept; return what must go now."""
        self._nbytes += nbytes - self._sizes.pop(frame, 0)
        self._sizes[frame] = nbytes
        return self._evict()

    def _evict(self) -> list[FrameKey]:
        victims: list[FrameKey] = []
        for frame in [frame for frame in self._sizes if frame not in self._pinned]:
            if len(self._sizes) <= self._max_frames and self._nbytes <= self._max_bytes:
                break
            self._nbytes -= self._sizes.pop(frame)
            victims.append(frame)
        return victims
