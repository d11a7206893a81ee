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
        dropped: Frames pushed out by a bound (not those cleared by a time jump).
        replaced: Frames whose stamp was that of the newest one and which took its place.
        time_jumps: How often stamps went back and the buffer was cleared.
    """

    received: int = 0
    dropped: int = 0
    replaced: int = 0
    time_jumps: int = 0


class FrameBuffer:
    """The newest frames of one camera, stamps strictly rising.

    * A frame older than the newest one means that time went back (a bag started over, a simulator
      was reset): everything kept belongs to another run and is dropped.
    * A frame with the newest one's stamp takes its place: a stamp names a frame (`FrameKey`).
    * The newest frame is always kept, even when it alone is above `max_bytes`: a still can then be
      answered, and memory is bounded by `max_bytes` or that one frame, whichever is more.

    Adding costs O(1) on average: each frame is dropped once. Memory is bounded by the frames' own
    bytes, not by what a caller still holds of them.

    Threads: one executor thread writes and reads. There is no lock.

    Args:
        max_frames: At least 1.
        max_seconds: Longest time from the oldest stamp to the newest; above 0.
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
        self._frames: deque[StoredFrame] = deque()
        self._nbytes = 0
        self._received = 0
        self._dropped = 0
        self._replaced = 0
        self._time_jumps = 0

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def nbytes(self) -> int:
        """Bytes of pixel or file data kept."""
        return self._nbytes

    @property
    def stats(self) -> BufferStats:
        """Counters since the buffer was made; `clear` does not reset them."""
        return BufferStats(self._received, self._dropped, self._replaced, self._time_jumps)

    def add(self, frame: StoredFrame) -> None:
        """Keep a frame as the newest one; drop what the bounds no longer allow."""
        self._received += 1
        newest = self.newest()
        if newest is not None and frame.stamp_ns < newest.stamp_ns:
            self._time_jumps += 1
            self.clear()
        elif newest is not None and frame.stamp_ns == newest.stamp_ns:
            self._replaced += 1
            self._nbytes -= self._frames.pop().nbytes
        self._frames.append(frame)
        self._nbytes += frame.nbytes
        self._drop_oldest()

    def newest(self) -> StoredFrame | None:
        """Return the newest frame; None = empty."""
        return self._frames[-1] if self._frames else None

    def oldest(self) -> StoredFrame | None:
        """Return the oldest frame; None = empty."""
        return self._frames[0] if self._frames else None

    def window(self, start_ns: int, stop_ns: int) -> tuple[StoredFrame, ...]:
        """Return the frames stamped from `start_ns` to `stop_ns`, both included, oldest first."""
        return tuple(frame for frame in self._frames if start_ns <= frame.stamp_ns <= stop_ns)

    def frames(self) -> tuple[StoredFrame, ...]:
        """Return all frames, oldest first."""
        return tuple(self._frames)

    def clear(self) -> None:
        """Drop all frames."""
        self._frames.clear()
        self._nbytes = 0

    def _drop_oldest(self) -> None:
        earliest_ns = self._frames[-1].stamp_ns - self._max_span_ns
        while len(self._frames) > 1 and (
            len(self._frames) > self._max_frames
            or self._nbytes > self._max_bytes
            or self._frames[0].stamp_ns < earliest_ns
        ):
            self._nbytes -= self._frames.popleft().nbytes
            self._dropped += 1
