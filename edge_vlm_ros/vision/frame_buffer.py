"""A ring buffer of camera frames, kept as they came.

Storing a 1080p frame costs a reference: nothing is converted or copied until a frame is chosen for
a question. Three bounds hold at once (frames, seconds, bytes); whichever is met first drops the
oldest frame.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_vlm_ros.core import NS_PER_S, BadRequestError

if TYPE_CHECKING:
    from edge_vlm_ros.core import StoredFrame


@dataclass(frozen=True, slots=True)
class BufferStats:
    """What has happened to one buffer since it was made.

    Attributes:
        received: Frames added.
        evicted: Frames that a bound pushed out to make room, as is normal.
        replaced: Frames whose stamp was that of the newest one and which took its place.
        time_jumps: How often the time of arrival went back and the buffer was cleared.
    """

    received: int = 0
    evicted: int = 0
    replaced: int = 0
    time_jumps: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """A frame in a buffer.

    Attributes:
        arrived_ns: When it arrived, on the clock that the buffer's owner counts windows in.
        frame: As it came.
    """

    arrived_ns: int
    frame: StoredFrame


class FrameBuffer:
    """The newest frames of one camera, in the order in which they arrived.

    Stamps order nothing here: cameras have clocks that are off, that jump, that are set by NTP
    while they run, and two publishers on one topic have two.

    * An arrival before the newest one's means that the clock of arrivals went back (a bag started
      over, a simulator was reset): everything kept belongs to another run and is dropped.
    * A frame with the newest one's stamp takes its place: the camera sent the same moment again.
    * The newest frame is always kept, even when it alone is above `max_bytes`: a still can then be
      answered, and memory is bounded by `max_bytes` or that one frame, whichever is more.

    Adding costs O(1) on average: each frame is dropped once. Memory is bounded by the frames' own
    bytes, not by what a caller still holds of them.

    Threads: one executor thread writes and reads. There is no lock.

    Args:
        max_frames: At least 1.
        max_seconds: Longest time from the oldest arrival to the newest; above 0.
        max_bytes: Of pixel or file data; at least 1.

    Raises:
        BadRequestError: A bound is not above 0.
    """

    def __init__(self, *, max_frames: int, max_seconds: float, max_bytes: int) -> None:
        if max_frames < 1:
            raise BadRequestError(f'max_frames is at least 1, not {max_frames}')
        if not 0 < max_seconds < float('inf'):
            raise BadRequestError(f'max_seconds is finite and above 0, not {max_seconds}')
        if max_bytes < 1:
            raise BadRequestError(f'max_bytes is at least 1, not {max_bytes}')
        self._max_frames = max_frames
        self._max_span_ns = round(max_seconds * NS_PER_S)
        self._max_bytes = max_bytes
        self._kept: deque[Kept] = deque()
        self._nbytes = 0
        self._received = 0
        self._evicted = 0
        self._replaced = 0
        self._time_jumps = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Bytes of pixel or file data kept."""
        return self._nbytes

    @property
    def stats(self) -> BufferStats:
        """Counters since the buffer was made; `clear` does not reset them."""
        return BufferStats(self._received, self._evicted, self._replaced, self._time_jumps)

    def add(self, frame: StoredFrame, arrived_ns: int) -> None:
        """Keep a frame as the newest one; drop what the bounds no longer allow.

        Args:
            frame: As it came.
            arrived_ns: When, on the clock that windows are counted in.
        """
        self._received += 1
        newest = self._kept[-1] if self._kept else None
        if newest is not None and arrived_ns < newest.arrived_ns:
            self._time_jumps += 1
            self.clear()
        elif newest is not None and frame.stamp_ns == newest.frame.stamp_ns:
            self._replaced += 1
            self._nbytes -= self._kept.pop().frame.nbytes
        self._kept.append(Kept(arrived_ns, frame))
        self._nbytes += frame.nbytes
        self._evict()

    def newest(self) -> StoredFrame | None:
        """Return the newest frame; None = empty."""
        return self._kept[-1].frame if self._kept else None

    def kept(self) -> tuple[Kept, ...]:
        """Return all frames and when they arrived, oldest first."""
        return tuple(self._kept)

    def frames(self) -> tuple[StoredFrame, ...]:
        """Return all frames, oldest first."""
        return tuple(kept.frame for kept in self._kept)

    def discard(self, frame: StoredFrame) -> bool:
        """Drop one frame, for it is of no use; return whether it was there."""
        for index, kept in enumerate(self._kept):
            if kept.frame is frame:
                del self._kept[index]
                self._nbytes -= frame.nbytes
                return True
        return False

    def clear(self) -> None:
        """Drop all frames."""
        self._kept.clear()
        self._nbytes = 0

    def _evict(self) -> None:
        earliest_ns = self._kept[-1].arrived_ns - self._max_span_ns
        while len(self._kept) > 1 and (
            len(self._kept) > self._max_frames
            or self._nbytes > self._max_bytes
            or self._kept[0].arrived_ns < earliest_ns
        ):
            self._nbytes -= self._kept.popleft().frame.nbytes
            self._evicted += 1
