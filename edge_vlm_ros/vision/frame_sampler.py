"""Choose the frames that stand for a moment or for the last seconds.

Pure and deterministic: the same buffer and the same arguments give the same frames. What is asked
about now goes by the time of arrival, on whatever clock the buffer's owner counts it (simulated
time under `use_sim_time`); what is asked about a time in the past goes by stamps.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from edge_vlm_ros.core import NS_PER_S, BadRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_vlm_ros.core import StoredFrame
    from edge_vlm_ros.vision.frame_buffer import FrameBuffer, Kept

LONGEST_WINDOW_S = 24 * 3600.0
"""Longest `last_seconds` accepted; far above what any buffer keeps."""

OUT_OF_STEP_NS = NS_PER_S
"""Stamps within a window drift no further than this from the arrivals, or their clock jumped."""


@dataclass(frozen=True, slots=True)
class ChosenFrames:
    """The frames chosen for one camera.

    Attributes:
        frames: Oldest first, no frame twice; empty when the buffer is.
        window_truncated: The buffer starts later than the time that was asked for.
    """

    frames: tuple[StoredFrame, ...] = ()
    window_truncated: bool = False


def choose_frames(
    buffer: FrameBuffer,
    *,
    last_seconds: float = 0.0,
    max_frames: int = 1,
    as_of_ns: int = 0,
    now_ns: int = 0,
) -> ChosenFrames:
    """Choose a still, or frames spread evenly over a window of time.

    A still (`last_seconds` 0) is the newest frame, or with `as_of_ns` the one whose stamp is
    nearest to it. A clip ends with that same frame. It holds what arrived in the `last_seconds`
    before `now_ns` (else before the newest arrival), or what is stamped in those before
    `as_of_ns`. Where that is more than `max_frames`, those nearest to equally spaced times are
    taken, from the window's first frame to its last; of two equally near the earlier one. Where
    frames are missing in the middle (a camera that paused) two times may meet the same frame,
    which is then taken once: fewer frames, each in its place.

    The age of a frame is not checked here.

    Args:
        buffer: Of one camera.
        last_seconds: Length of the window; 0 = a still.
        max_frames: Most frames to choose; at least 1. A still is always one frame.
        as_of_ns: ROS time to look at, nanoseconds; 0 = now.
        now_ns: Time now on the clock of the buffer's arrivals, nanoseconds; 0 = that of the newest
            frame.

    Raises:
        BadRequestError: `last_seconds` or `max_frames` is out of range.
    """
    if not 0.0 <= last_seconds <= LONGEST_WINDOW_S:
        raise BadRequestError(
            f'last_seconds is from 0 to {LONGEST_WINDOW_S:.0f}, not {last_seconds}'
        )
    if max_frames < 1:
        raise BadRequestError(f'max_frames is at least 1, not {max_frames}')
    kept: Sequence[Kept] = buffer.kept()
    if not kept:
        return ChosenFrames()
    if as_of_ns:
        kept = sorted(kept, key=lambda each: each.frame.stamp_ns)
        times = [each.frame.stamp_ns for each in kept]
        last, stop_ns = nearest(times, as_of_ns), as_of_ns
    else:
        times = [each.arrived_ns for each in kept]
        last, stop_ns = len(kept) - 1, max(now_ns, times[-1])
    start_ns = stop_ns - round(last_seconds * NS_PER_S)
    first = min(bisect_left(times, start_ns), last) if last_seconds else last
    window = kept[first : last + 1]
    return ChosenFrames(
        frames=tuple(window[i].frame for i in spread(_spacing(window), max_frames)),
        window_truncated=times[0] - start_ns > mean_interval_ns(times),
    )


def _spacing(window: Sequence[Kept]) -> list[int]:
    """Return the times to spread frames by, from 0 on: by their stamps, if those can be trusted.

    A busy machine takes two frames in at once; their stamps are even. Stamps that do not keep step
    with the arrivals (two publishers, a clock that was set) say nothing.
    """
    arrived_ns, stamp_ns = window[0].arrived_ns, window[0].frame.stamp_ns
    arrivals = [each.arrived_ns - arrived_ns for each in window]
    stamps = [each.frame.stamp_ns - stamp_ns for each in window]
    is_rising = all(one < two for one, two in pairwise(stamps))
    is_in_step = all(
        abs(stamp - arrival) <= OUT_OF_STEP_NS
        for stamp, arrival in zip(stamps, arrivals, strict=True)
    )
    return stamps if is_rising and is_in_step else arrivals


def nearest(stamps: Sequence[int], time_ns: int) -> int:
    """Return the index of the stamp nearest to a time; of two equally near the earlier one.

    Args:
        stamps: Rising; at least one.
        time_ns: The time.
    """
    after = bisect_left(stamps, time_ns)
    if after == 0:
        return 0
    if after == len(stamps):
        return after - 1
    is_before_nearer = time_ns - stamps[after - 1] <= stamps[after] - time_ns
    return after - 1 if is_before_nearer else after


def spread(stamps: Sequence[int], max_frames: int) -> list[int]:
    """Return at most `max_frames` indices, rising, spread evenly in time; the last one always.

    Args:
        stamps: Rising; at least one.
        max_frames: At least 1.
    """
    if max_frames >= len(stamps):
        return list(range(len(stamps)))
    if max_frames == 1:
        return [len(stamps) - 1]
    span = stamps[-1] - stamps[0]
    targets = (stamps[0] + i * span // (max_frames - 1) for i in range(max_frames))
    return list(dict.fromkeys(nearest(stamps, target) for target in targets))


def mean_interval_ns(stamps: Sequence[int]) -> int:
    """Return the mean time between frames, rounded down; 0 with fewer than two.

    A buffer of 10 s that is asked for 10 s starts up to one frame late, and nothing is missing.
    """
    return (stamps[-1] - stamps[0]) // (len(stamps) - 1) if len(stamps) > 1 else 0
