"""How old a frame is, whatever its stamp says: free of ROS.

Two clocks judge a frame: the node's, in which cameras stamp (ROS time), and the steady one, which
tells how long ago it arrived. The age is the larger of the two, so that no clock makes a dead
camera fresh. A stamp counts only as far as it can be a latency: see `CameraClock`.

Under simulated time the time since the arrival is counted in that time, for it may go faster or
slower than the day. While it stands still, steady time counts on: the frames of a bag that is
paused grow old, those of a camera that goes on do not.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_vlm_ros.core import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_vlm_ros.core import Clock

LONGEST_LATENCY_NS = 60 * NS_PER_S
"""A stamp further behind than this at the frame's arrival is of another clock: no camera, network
or relay keeps an image for so long. Up to here nobody can tell a late image from a clock that is
behind, and the image is taken for late: that errs towards too old."""

ANY_AGE_NS = 1 << 62
"""The same of a picture that its publisher keeps for late subscribers: it may be of any age."""

STANDSTILL_NS = 2 * NS_PER_S
"""Simulated time that has not moved for so long stands still; it is looked at once a second."""

CLOCK_SAMPLES = 31
"""Frames whose median is the offset of a camera's clock."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment, on the clocks that frames are judged by.

    Attributes:
        ros_ns: ROS time, nanoseconds.
        steady_ns: Steady time, nanoseconds.
        is_simulated: ROS time comes from a simulator or a bag (`use_sim_time`).
        stood_ns: Steady time for which simulated time has stood still, nanoseconds; 0 = it goes.
    """

    ros_ns: int = 0
    steady_ns: int = 0
    is_simulated: bool = False
    stood_ns: int = 0

    @property
    def arrival_ns(self) -> int:
        """On the clock that windows of time are cut by: simulated time, else steady time."""
        return self.ros_ns if self.is_simulated else self.steady_ns

    def age_s(self, taken_ns: int, since_arrival_s: float = 0.0) -> float:
        """Return how old a frame is now, seconds; 0 for one that is yet to come.

        Args:
            taken_ns: When it was taken (ROS time), nanoseconds; 0 = not known.
            since_arrival_s: Steady time since it arrived; 0 = it did not come from a camera.
        """
        by_stamp_s = max(0, self.ros_ns - taken_ns) / NS_PER_S if taken_ns else 0.0
        if self.is_simulated:
            return by_stamp_s + min(self.stood_ns / NS_PER_S, max(0.0, since_arrival_s))
        return max(by_stamp_s, since_arrival_s)


class NodeTime:
    """Reads both clocks of a node, and sees simulated time stand still. One thread.

    Args:
        ros_now: Reads ROS time, nanoseconds.
        is_simulated: Tells whether that comes from /clock.
        steady: Steady time.

    Attributes:
        steady: Steady time, for who needs no other.
    """

    def __init__(
        self, ros_now: Callable[[], int], is_simulated: Callable[[], bool], steady: Clock
    ) -> None:
        self._ros_now = ros_now
        self._is_simulated = is_simulated
        self.steady = steady
        self._seen_ns = -1
        self._moved_ns = 0

    def now(self) -> Moment:
        """Read the clocks; at least once a second, or a standstill begins with its notice."""
        ros_ns, steady_ns = self._ros_now(), self.steady.now_ns()
        if not self._is_simulated():
            self._seen_ns = -1
            return Moment(ros_ns, steady_ns)
        if ros_ns != self._seen_ns:
            self._seen_ns, self._moved_ns = ros_ns, steady_ns
        stood_ns = steady_ns - self._moved_ns
        return Moment(
            ros_ns,
            steady_ns,
            is_simulated=True,
            stood_ns=stood_ns if stood_ns > STANDSTILL_NS else 0,
        )


class CameraClock:
    """What the stamps of a camera say of its clock.

    Args:
        longest_latency_ns: A larger delay is no latency: the clocks differ.
    """

    def __init__(self, longest_latency_ns: int = LONGEST_LATENCY_NS) -> None:
        self._longest_latency_ns = longest_latency_ns
        self._delays: deque[int] = deque(maxlen=CLOCK_SAMPLES)
        self._usual_ns = 0

    @property
    def offset_s(self) -> float:
        """How far the camera's clock is ahead of the node's, behind below 0; latency included.

        The median over the last frames, so that two publishers do not make a third clock.
        """
        return -self._usual_ns / NS_PER_S

    def latency_ns(self, delay_ns: int) -> int:
        """Take note of a frame; return how old it was when it came, as far as its stamp tells.

        That is the delay, where it can be one. Where the clocks differ it is what the frame came
        later than others of its camera; 0 where that says nothing either.

        Args:
            delay_ns: ROS time at its arrival less its stamp.
        """
        self._delays.append(delay_ns)
        self._usual_ns = sorted(self._delays)[len(self._delays) // 2]
        if 0 <= delay_ns <= self._longest_latency_ns:
            return delay_ns
        late_ns = delay_ns - self._usual_ns
        return late_ns if 0 < late_ns <= self._longest_latency_ns else 0

    def clear(self) -> None:
        """Forget what was measured: the node's clock has jumped."""
        self._delays.clear()
        self._usual_ns = 0
