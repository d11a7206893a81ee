"""One camera of the vlm node: its subscription, its buffer, its health."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CompressedImage as CompressedImageMsg
from sensor_msgs.msg import Image as ImageMsg

from edge_vlm_ros.core import (
    NS_PER_S,
    BadFrame,
    BadImageError,
    FrameSource,
    StoredFrame,
    clipped_name,
)
from edge_vlm_ros.nodes import middleware, qos, qos_overrides
from edge_vlm_ros.nodes.conversions import image_from_ros
from edge_vlm_ros.nodes.health import CameraHealth, FrameCounts, Publisher
from edge_vlm_ros.nodes.node_time import ANY_AGE_NS, LONGEST_LATENCY_NS, CameraClock, NodeTime
from edge_vlm_ros.nodes.stamp_gaps import StampGaps
from edge_vlm_ros.vision import FrameBuffer, check_at_first_look

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.callback_groups import CallbackGroup
    from rclpy.clock import ROSClock
    from rclpy.node import Node
    from rclpy.subscription import Subscription

    from edge_vlm_ros.core import Clock
    from edge_vlm_ros.nodes.camera_parameters import CameraSettings
    from edge_vlm_ros.nodes.conversions import ImageMessage
    from edge_vlm_ros.nodes.node_time import Moment

LATE_NS = NS_PER_S
"""A stamp after the newest one by less than this may be that of a frame which was overtaken; by
more, it is of another clock."""

OVERTAKEN_NS = NS_PER_S // 10
"""A frame that was overtaken arrives so soon after the one that overtook it."""

SETTLE_NS = NS_PER_S
"""So long after simulated time went back, frames from before may still be on their way."""

LONGEST_PERIOD_NS = 10 * NS_PER_S
"""A longer gap is an outage, not the camera's rate."""

RATE_WINDOW = 4
"""Measurements kept for rates and shares; one comes each second."""

SAY_AFTER_NS = 5 * NS_PER_S
"""A camera that has never sent by then is worth a line in the log, once."""


def time_of(node: Node, steady: Clock) -> NodeTime:
    """Return the clocks of a node.

    Args:
        node: Whose clock is ROS time.
        steady: Steady time.
    """
    clock = cast('ROSClock', node.get_clock())  # Every node's is one.
    return NodeTime(
        ros_now=lambda: int(clock.now().nanoseconds),
        is_simulated=lambda: bool(clock.ros_time_is_active),
        steady=steady,
    )


@dataclass(frozen=True, slots=True)
class _Measured:
    """Counters at one moment, for what happens in a second."""

    time_ns: int
    received: int = 0
    lost: int = 0
    bad: int = 0
    udp_drops: int = 0


class CameraFeed:
    """Subscribes to one camera and stores what comes, unconverted.

    Everything here is called by the executor's thread alone.

    Args:
        node: Whose subscription it is.
        settings: Topic, transport, QoS, bounds.
        time: The node's clocks; ROS time stamps what comes unstamped.
        callback_group: Of the subscription.
        on_frame: Called when there is a new newest frame; must be quick.
    """

    def __init__(
        self,
        node: Node,
        settings: CameraSettings,
        time: NodeTime,
        callback_group: CallbackGroup,
        on_frame: Callable[[], None],
    ) -> None:
        self.settings = settings
        self._node = node
        self._time = time
        self._on_frame = on_frame
        self._buffer = FrameBuffer(
            max_frames=settings.buffer_frames,
            max_seconds=settings.buffer_seconds,
            max_bytes=settings.buffer_bytes,
        )
        self._newest: StoredFrame | None = None
        self._started_ns = self._last_ns = time.now().steady_ns
        self._is_kept = settings.durability == 'transient_local'
        self._clock = CameraClock(ANY_AGE_NS if self._is_kept else LONGEST_LATENCY_NS)
        self._gaps = StampGaps()
        self._received = self._lost = self._bad = self._late = self._skipped = 0
        self._bad_reason = self._last_bad_reason = ''
        self._largest_bytes = 0
        self._period_ns = 0
        self._middleware = get_rmw_implementation_identifier()
        self._measured = deque([self._measure_at(self._started_ns)], maxlen=RATE_WINDOW)
        self._incompatible = ''
        self._has_unstamped = False
        self._has_said_nothing_came = False
        self._keep_from_ns = 0
        self._keep_every_ns = round(NS_PER_S / settings.buffer_fps) if settings.buffer_fps else 0
        self._cleared_ns = -SETTLE_NS
        self._callback_group = callback_group
        self._subscription = self._subscribe()
        self.topic: str = self._subscription.topic_name
        self._source = FrameSource(settings.name, self.topic)

    @property
    def buffer(self) -> FrameBuffer:
        """The frames kept for clips."""
        return self._buffer

    @property
    def newest(self) -> StoredFrame | None:
        """The last frame that came and can be shown; None when none has."""
        return self._newest

    def clear(self) -> None:
        """Forget all frames, for the node's clock has jumped."""
        self._forget()
        if self._is_kept:  # Its publisher sends it again, but to a new subscription alone.
            self._node.destroy_subscription(self._subscription)
            self._subscription = self._subscribe()

    def close(self) -> None:
        """End the subscription; the frames go with this object."""
        self._node.destroy_subscription(self._subscription)
        self._forget()

    def _forget(self) -> None:
        self._buffer.clear()
        self._newest = None
        self._keep_from_ns = 0
        self._clock.clear()
        self._gaps.clear()
        self._cleared_ns = self._time.now().steady_ns

    def measure(self) -> None:
        """Take note of the counters; the diagnostics timer calls this once a second."""
        now_ns = self._time.now().steady_ns
        self._measured.append(self._measure_at(now_ns))
        is_silent = not self._received and now_ns - self._started_ns > SAY_AFTER_NS
        if is_silent and not self._has_said_nothing_came:
            self._has_said_nothing_came = True
            self._node.get_logger().warning(
                f'camera {self.settings.name}: {self.health().problem}'
            )

    def drop_bad(self, bad: BadFrame) -> None:
        """Forget a frame that turned out to be damaged when it was decoded."""
        kept = [f for f in self._buffer.frames() if f.received_ns == bad.received_ns]
        for frame in kept:
            self._buffer.discard(frame)
        is_newest = self._newest is not None and self._newest.received_ns == bad.received_ns
        if is_newest:
            self._newest = self._buffer.newest()
            self._bad_reason = bad.reason
        if kept or is_newest:  # Else it was reported before, or made room meanwhile.
            self._bad += 1
            self._last_bad_reason = bad.reason

    def health(self) -> CameraHealth:
        """Return how the camera does now."""
        now = self._time.now()
        then = self._measured[0]
        here = self._measure_at(now.steady_ns)
        received, lost = here.received - then.received, here.lost - then.lost
        return CameraHealth(
            name=self.settings.name,
            topic=self.topic,
            transport=self.settings.transport,
            reliability=self.settings.reliability,
            durability=self.settings.durability,
            min_fps=self.settings.min_fps,
            publishers=self._publishers(),
            incompatible=self._incompatible,
            fps=received * NS_PER_S / max(now.steady_ns - then.time_ns, 1),
            period_s=self._period_ns / NS_PER_S,
            age_s=self._age_s(now),
            silence_s=(now.steady_ns - self._last_ns) / NS_PER_S,
            watched_s=(now.steady_ns - self._started_ns) / NS_PER_S,
            counts=self._counts(),
            lost_share=lost / (lost + received) if lost else 0.0,
            gaps_share=self._gaps.missing_share,
            bad_share=(here.bad - then.bad) / received if received else 0.0,
            bad_reason=self._bad_reason,
            last_bad_reason=self._last_bad_reason,
            kept=len(self._buffer),
            kept_bytes=self._buffer.nbytes,
            clock_offset_s=self._clock.offset_s,
            is_simulated=now.is_simulated,
            stood_s=now.stood_ns / NS_PER_S,
            losses=middleware.Losses(
                middleware=self._middleware,
                is_raw=self.settings.transport == 'raw',
                largest_bytes=self._largest_bytes,
                profile=middleware.fast_dds_profile(),
                udp_drops=here.udp_drops - then.udp_drops,
            ),
        )

    # --- what comes ------------------------------------------------------------------------------

    def _store(self, message: ImageMessage) -> None:
        # Runs for every frame: it keeps the message's bytes by reference and decodes nothing.
        now = self._time.now()
        self._note_arrival(now)
        header = message.header
        stamp = header.stamp
        stamp_ns = stamp.sec * NS_PER_S + stamp.nanosec or self._arrival_stamp(now)
        frame_id = clipped_name(header.frame_id)  # Every chunk of an answer repeats it.
        if frame_id != self._source.frame_id:
            self._source = FrameSource(self.settings.name, self.topic, frame_id)
        image = image_from_ros(message, self.settings.range16)
        self._largest_bytes = max(self._largest_bytes, image.nbytes)
        try:
            check_at_first_look(image)
        except BadImageError as error:
            self._count_bad(error.message)
            return
        self._bad_reason = ''
        if self._is_late(stamp_ns, now):
            self._late += 1
            return
        self._gaps.note(stamp_ns)
        latency_ns = self._clock.latency_ns(now.ros_ns - stamp_ns)
        self._newest = frame = StoredFrame(
            self._source, stamp_ns, image, now.steady_ns, now.ros_ns - latency_ns
        )
        self._keep(frame, now.arrival_ns)
        self._on_frame()

    def _note_arrival(self, now: Moment) -> None:
        if self._received:
            gap_ns = min(now.steady_ns - self._last_ns, LONGEST_PERIOD_NS)
            self._period_ns += (gap_ns - self._period_ns) // min(self._received, 8)
        self._received += 1
        self._last_ns = now.steady_ns

    def _is_late(self, stamp_ns: int, now: Moment) -> bool:
        """Return whether a frame is of before: overtaken on its way, or by a jump of time."""
        is_settling = now.is_simulated and now.steady_ns - self._cleared_ns < SETTLE_NS
        if is_settling and stamp_ns > now.ros_ns + LATE_NS:
            return True  # a frame of the bag's last loop
        newest = self._newest
        if newest is None:
            return False
        is_overtaken = newest.stamp_ns - LATE_NS < stamp_ns < newest.stamp_ns
        return is_overtaken and now.steady_ns - newest.received_ns < OVERTAKEN_NS

    def _keep(self, frame: StoredFrame, arrived_ns: int) -> None:
        """Keep a frame for clips, if it is one of those to be kept."""
        if arrived_ns < self._keep_from_ns:
            self._skipped += 1
            return
        if self._keep_every_ns:
            # Counted from when it was due, not from when it came, or the rate would drift down.
            is_on_time = arrived_ns - self._keep_from_ns < self._keep_every_ns
            due_ns = self._keep_from_ns if is_on_time else arrived_ns
            self._keep_from_ns = due_ns + self._keep_every_ns
        self._buffer.add(frame, arrived_ns)

    def _arrival_stamp(self, now: Moment) -> int:
        if not self._has_unstamped:
            self._has_unstamped = True
            self._node.get_logger().warning(
                f'camera {self.settings.name}: images on {self.topic} have no stamp, '
                'so the time of their arrival is taken'
            )
        return now.ros_ns

    def _count_bad(self, reason: str) -> None:
        self._bad += 1
        self._bad_reason = self._last_bad_reason = reason

    def _age_s(self, now: Moment) -> float:
        newest = self._newest
        if newest is None:
            return 0.0
        return now.age_s(newest.taken_ns, (now.steady_ns - newest.received_ns) / NS_PER_S)

    # --- what is known beside --------------------------------------------------------------------

    def _subscribe(self) -> Subscription[ImageMessage]:
        def subscribe(on_lost: Callable[[int], None] | None) -> Subscription[ImageMessage]:
            return self._node.create_subscription(
                ImageMsg if self.settings.transport == 'raw' else CompressedImageMsg,
                self.settings.topic,
                self._store,
                qos.camera(
                    self.settings.reliability, self.settings.depth, self.settings.durability
                ),
                callback_group=self._callback_group,
                qos_overriding_options=qos_overrides.options(self.settings.qos_id),
                event_callbacks=qos.subscription_events(self._on_incompatible, on_lost),
            )

        try:
            return subscribe(self._on_lost)
        except qos.UnsupportedEventTypeError:
            return subscribe(None)

    def _publishers(self) -> tuple[Publisher, ...]:
        """Ask the graph who publishes on the topic, and how."""
        # The name before remapping: the graph is asked by the rules that made the subscription.
        found = self._node.get_publishers_info_by_topic(self.settings.topic)
        return tuple(
            Publisher(
                message_type=info.topic_type,
                is_reliable=info.qos_profile.reliability != ReliabilityPolicy.BEST_EFFORT,
                is_latched=info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL,
            )
            for info in found
        )

    def _counts(self) -> FrameCounts:
        stats = self._buffer.stats
        return FrameCounts(
            received=self._received,
            lost=self._lost,
            undecodable=self._bad,
            late=self._late,
            replaced=stats.replaced,
            skipped=self._skipped,
            evicted=stats.evicted,
        )

    def _measure_at(self, now_ns: int) -> _Measured:
        has_udp = 'cyclonedds' in self._middleware
        drops = middleware.count_udp_drops() if has_udp else 0
        return _Measured(now_ns, self._received, self._lost, self._bad, drops)

    def _on_lost(self, number: int) -> None:
        if self._received:  # What was sent before the first one was not meant for us.
            self._lost += max(0, number)

    def _on_incompatible(self, policy: str) -> None:
        self._incompatible = policy
        self._node.get_logger().warning(
            f'camera {self.settings.name}: a publisher on {self.topic} offers another {policy} '
            f'than {self.health().asked(policy)}: nothing will come from it'
        )
