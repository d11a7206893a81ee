"""What the vlm node watches while it is active: its cameras, and what is made ready of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge_vlm_ros.nodes.ahead import Ahead
from edge_vlm_ros.nodes.cameras import CameraFeed
from edge_vlm_ros.serving.ahead import PreparesAhead

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.callback_groups import CallbackGroup
    from rclpy.node import Node

    from edge_vlm_ros.nodes.executor_inbox import ExecutorInbox
    from edge_vlm_ros.nodes.health import CameraHealth
    from edge_vlm_ros.nodes.node_time import NodeTime
    from edge_vlm_ros.nodes.parameters import VlmSettings
    from edge_vlm_ros.nodes.request_parameters import RequestDefaults
    from edge_vlm_ros.serving import Backend


class Watching:
    """Opens and closes the cameras of a node. The executor's thread alone.

    Args:
        node: Whose.
        time: The node's clocks.
        inbox: For work that comes from other threads.
        callback_group: Of its subscriptions and timers.
        on_frame: Called when a camera has a new newest frame; must be quick.
        defaults: Reads what a request may leave open.

    Attributes:
        feeds: The cameras by name, in their order; empty while the node is not active.
        ahead: Makes frames ready before anybody asks; None = nothing is.
        time: As given.
        defaults: As given.
    """

    def __init__(  # noqa: PLR0913 (keywords)
        self,
        node: Node,
        *,
        time: NodeTime,
        inbox: ExecutorInbox,
        callback_group: CallbackGroup,
        on_frame: Callable[[], None],
        defaults: Callable[[], RequestDefaults],
    ) -> None:
        self.feeds: dict[str, CameraFeed] = {}
        self.ahead: Ahead | None = None
        self._node = node
        self.time = time
        self._inbox = inbox
        self._group = callback_group
        self._on_frame = on_frame
        self.defaults = defaults

    def open(self, settings: VlmSettings, backend: Backend) -> None:
        """Subscribe to the cameras; begin to make ready what `settings.ahead` says."""
        for camera in settings.cameras:
            self.feeds[camera.name] = CameraFeed(
                self._node, camera, self.time, self._group, self._on_frame
            )
        if not settings.ahead.is_on or not settings.ahead.watches:
            return
        # A model process passes wishes on, whatever its backend makes of them.
        if settings.servers or not isinstance(backend, PreparesAhead):
            self._node.get_logger().warning(
                f'ahead_mode is {settings.ahead.mode}, but chip {settings.chip} is served by a '
                'backend that makes nothing ready: it is off'
            )
            return
        self.ahead = Ahead(
            self._node,
            settings.ahead,
            self.feeds,
            backend,
            lambda: backend.info,
            time=self.time,
            inbox=self._inbox,
            callback_group=self._group,
            defaults=self.defaults,
        )

    def close(self) -> None:
        """End the subscriptions; want nothing to be made ready any more."""
        if self.ahead is not None:
            self.ahead.close()
            self.ahead = None
        for feed in self.feeds.values():
            feed.close()
        self.feeds.clear()

    def clear(self) -> None:
        """Forget all frames: the node's clock has jumped."""
        for feed in self.feeds.values():
            feed.clear()
        if self.ahead is not None:
            self.ahead.clear()

    def measure(self) -> None:
        """Take note of counters; the diagnostics timer calls this once a second."""
        for feed in self.feeds.values():
            feed.measure()
        if self.ahead is not None:
            self.ahead.measure()

    def health(self) -> list[CameraHealth]:
        """Return how the cameras do."""
        max_age_s = self.defaults().max_age_s
        return [replace(feed.health(), max_age_s=max_age_s) for feed in self.feeds.values()]
