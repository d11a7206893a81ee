"""One camera of the vlm node: its subscription, its buffer, its health."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from sensor_msgs.msg import CompressedImage as CompressedImageMsg
from sensor_msgs.msg import Image as ImageMsg

from edge_vlm_ros.core import NS_PER_S, Clock, FrameSource, StoredFrame
from edge_vlm_ros.nodes import qos
from edge_vlm_ros.nodes.conversions import age_s, image_from_ros
from edge_vlm_ros.nodes.health import CameraHealth
from edge_vlm_ros.vision import FrameBuffer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.callback_groups import CallbackGroup
    from rclpy.node import Node

    from edge_vlm_ros.nodes.camera_parameters import CameraSettings
    from edge_vlm_ros.nodes.conversions import ImageMessage

STEP_BACK_NS = NS_PER_S
"""A stamp so much older than the newest one means that time started again (a bag in a loop)."""

LONGEST_PERIOD_NS = 10 * NS_PER_S
"""A longer gap is an outage, not the camera's rate."""

RATE_WINDOW = 4
"""Measurements kept for the frame rate; one comes each second."""


class CameraFeed:
    """Subscribes to one camera and stores what comes, unconverted.

    Everything here is called by the executor's thread alone.

    Args:
        node: Whose subscription it is, and whose clock (ROS time) stamps what comes unstamped.
        settings: Topic, transport, QoS, bounds.
        clock: Steady time.
        callback_group: Of the subscription.
        on_frame: Called when there is a new newest frame; must be quick.
    """

    def __init__(
        self,
        node: Node,
        settings: CameraSettings,
        clock: Clock,
        callback_group: CallbackGroup,
        on_frame: Callable[[], None],
    ) -> None:
        self.settings = settings
        self._node = node
        self._clock = clock
        self._on_frame = on_frame
        self._buffer = FrameBuffer(
            max_frames=settings.buffer_frames,
            max_seconds=settings.buffer_seconds,
            max_bytes=settings.buffer_bytes,
        )
        self._newest: StoredFrame | None = None
        self._started_ns = self._last_ns = clock.now_ns()
        self._received = 0
        self._not_kept = 0
        self._period_ns = 0
        self._rate = deque([(self._started_ns, 0)], maxlen=RATE_WINDOW)
        self._incompatible = ''
        self._has_unstamped = False
        self._keep_from_ns = 0
        self._keep_every_ns = round(NS_PER_S / settings.buffer_fps) if settings.buffer_fps else 0
        self._subscription = node.create_subscription(
            ImageMsg if settings.transport == 'raw' else CompressedImageMsg,
            settings.topic,
            self._store,
            qos.camera(settings.reliability, settings.depth),
            callback_group=callback_group,
            event_callbacks=qos.subscription_events(self._on_incompatible),
        )
        self.topic: str = self._subscription.topic_name
        self._source = FrameSource(settings.name, self.topic)

    @property
    def buffer(self) -> FrameBuffer:
        """The frames kept for clips."""
        return self._buffer

    @property
    def newest(self) -> StoredFrame | None:
        """The last frame that came; None when none has."""
        return self._newest

    def clear(self) -> None:
        """Forget all frames, for the clock has jumped."""
        self._buffer.clear()
        self._newest = None
        self._keep_from_ns = 0

    def close(self) -> None:
        """End the subscription; the frames go with this object."""
        self._node.destroy_subscription(self._subscription)
        self.clear()

    def measure(self) -> None:
        """Take note of the frame count; the diagnostics timer calls this once a second."""
        self._rate.append((self._clock.now_ns(), self._received))

    def health(self) -> CameraHealth:
        """Return how the camera does now."""
        now_ns = self._clock.now_ns()
        return CameraHealth(
            name=self.settings.name,
            topic=self.topic,
            transport=self.settings.transport,
            reliability=self.settings.reliability,
            min_fps=self.settings.min_fps,
            publishers=self._node.count_publishers(self.topic),
            incompatible=self._incompatible,
            fps=self._fps(now_ns),
            period_s=self._period_ns / NS_PER_S,
            age_s=self._age_s(),
            silence_s=(now_ns - self._last_ns) / NS_PER_S,
            watched_s=(now_ns - self._started_ns) / NS_PER_S,
            received=self._received,
            dropped=self._not_kept + self._buffer.stats.dropped,
            kept=len(self._buffer),
            kept_bytes=self._buffer.nbytes,
        )

    def _store(self, message: ImageMessage) -> None:
        # Runs for every frame: it keeps the message's bytes by reference and decodes nothing.
        header = message.header
        stamp = header.stamp
        stamp_ns = stamp.sec * NS_PER_S + stamp.nanosec or self._arrival_stamp()
        if header.frame_id != self._source.frame_id:
            self._source = FrameSource(self.settings.name, self.topic, header.frame_id)
        now_ns = self._clock.now_ns()
        if self._received:
            gap_ns = min(now_ns - self._last_ns, LONGEST_PERIOD_NS)
            self._period_ns += (gap_ns - self._period_ns) // min(self._received, 8)
        self._received += 1
        self._last_ns = now_ns
        newest = self._newest
        if newest is not None and stamp_ns < newest.stamp_ns:
            if stamp_ns > newest.stamp_ns - STEP_BACK_NS:
                self._not_kept += 1  # late on its way: a newer one is here
                return
            self.clear()
        self._newest = frame = StoredFrame(self._source, stamp_ns, image_from_ros(message), now_ns)
        self._keep(frame)
        self._on_frame()

    def _keep(self, frame: StoredFrame) -> None:
        """Keep a frame for clips, if it is one of those to be kept."""
        stamp_ns = frame.stamp_ns
        if stamp_ns < self._keep_from_ns:
            self._not_kept += 1
            return
        if self._keep_every_ns:
            # Counted from when it was due, not from when it came, or the rate would drift down.
            is_on_time = stamp_ns - self._keep_from_ns < self._keep_every_ns
            due_ns = self._keep_from_ns if is_on_time else stamp_ns
            self._keep_from_ns = due_ns + self._keep_every_ns
        self._buffer.add(frame)

    def _arrival_stamp(self) -> int:
        if not self._has_unstamped:
            self._has_unstamped = True
            self._node.get_logger().warning(
                f'camera {self.settings.name}: images on {self.topic} have no stamp, '
                'so the time of their arrival is taken'
            )
        return int(self._node.get_clock().now().nanoseconds)

    def _fps(self, now_ns: int) -> float:
        since_ns, count = self._rate[0]
        return (self._received - count) * NS_PER_S / max(now_ns - since_ns, 1)

    def _age_s(self) -> float:
        if self._newest is None:
            return 0.0
        return age_s(self._newest.stamp_ns, self._node.get_clock().now().nanoseconds)

    def _on_incompatible(self, policy: str) -> None:
        self._incompatible = policy
        self._node.get_logger().warning(
            f'camera {self.settings.name}: a publisher on {self.topic} offers another {policy} '
            f'than asked for, nothing will come from it (the parameter '
            f'cameras.{self.settings.name}.qos.reliability is {self.settings.reliability})'
        )
