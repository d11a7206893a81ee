"""One camera as the page's process sees it: subscribed to while somebody looks.

Compressed images pass through as they come. Raw ones are thinned out before anything else, then
shrunk and encoded once for all pages. When a question goes out, the frames around that moment are
encoded whole, since it is one of them that the answer will name.

The executor's thread alone.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from sensor_msgs.msg import CompressedImage as CompressedImageMsg
from sensor_msgs.msg import Image as ImageMsg

from edge_vlm_ros.core import BadImageError
from edge_vlm_ros.nodes import qos
from edge_vlm_ros.nodes.conversions import image_from_ros, time_from_ros
from edge_vlm_ros.web import Picture

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node

    from edge_vlm_ros.nodes.conversions import ImageMessage
    from edge_vlm_ros.web import Camera

RAW_FPS: Final = 10.0
"""Raw images a second that are encoded."""
SHOWN_PX: Final = 640
"""Longer side of what is shown of raw images, about."""
SHOWN_QUALITY: Final = 75
WHOLE_QUALITY: Final = 92
CAUGHT_BEFORE: Final = 4
"""Frames before a question that can still be encoded whole; held by reference."""
CAUGHT_BYTES: Final = 32_000_000
"""Of all of them."""
CAUGHT_AFTER: Final = 3
"""Frames after it: the question is on its way, or waits for a frame."""
_JPEG: Final = b'\xff\xd8'


class WebCamera:
    """Subscribes to one camera and makes pictures of what comes.

    Args:
        node: Whose subscription it is.
        camera: Which.
        show: Called with every picture; must be quick.

    Attributes:
        camera: As given.
    """

    def __init__(self, node: Node, camera: Camera, show: Callable[[Picture], None]) -> None:
        self._node = node
        self.camera = camera
        self._show = show
        self._recent: deque[ImageMsg] = deque(maxlen=CAUGHT_BEFORE)
        self._due_s = 0.0
        self._caught = 0
        self._has_complained = False
        is_raw = camera.transport == 'raw'
        self._subscription = node.create_subscription(
            ImageMsg if is_raw else CompressedImageMsg,
            camera.topic,
            self._take_raw if is_raw else self._take_compressed,
            qos.camera('best_effort', depth=1),
            event_callbacks=qos.subscription_events(self._say_incompatible),
        )

    def close(self) -> None:
        """End the subscription."""
        self._node.destroy_subscription(self._subscription)
        self._recent.clear()

    def catch(self) -> None:
        """Show the frames of now with all of their pixels: a question has gone out."""
        self._caught = CAUGHT_AFTER
        for message in self._recent:
            self._encode(message, is_whole=True)
        self._recent.clear()

    def _take_compressed(self, message: CompressedImageMsg) -> None:
        data = bytes(message.data)
        if data.startswith(_JPEG):
            self._show(Picture(self._stamp_ns(message), data))
        elif self._is_due():
            self._encode(message, is_whole=True)

    def _take_raw(self, message: ImageMsg) -> None:
        if self._caught:
            self._caught -= 1
            self._encode(message, is_whole=True)
            return
        self._recent.append(message)
        while sum(len(each.data) for each in self._recent) > CAUGHT_BYTES:
            self._recent.popleft()
        if self._is_due():
            self._encode(message, is_whole=False)

    def _is_due(self) -> bool:
        now_s = time.monotonic()
        if now_s < self._due_s:
            return False
        # Counted from when it was due, or a camera of 15 frames a second would give 7.5.
        is_on_time = now_s - self._due_s < 1 / RAW_FPS
        self._due_s = (self._due_s if is_on_time else now_s) + 1 / RAW_FPS
        return True

    def _encode(self, message: ImageMessage, *, is_whole: bool) -> None:
        try:
            picture = _encoded(message, self._stamp_ns(message), is_whole=is_whole)
        except BadImageError as error:
            self._complain(error.message)
            return
        self._show(picture)

    def _stamp_ns(self, message: ImageMessage) -> int:
        """Return a frame's stamp; of one that has none about the time that the node takes."""
        stamp_ns = time_from_ros(message.header.stamp)
        return stamp_ns or int(self._node.get_clock().now().nanoseconds)

    def _complain(self, reason: str) -> None:
        if not self._has_complained:
            self._has_complained = True
            self._node.get_logger().warning(
                f'camera {self.camera.name}: images on {self.camera.topic} cannot be shown: '
                f'{reason}'
            )

    def _say_incompatible(self, policy: str) -> None:
        self._complain(f'their publisher offers another {policy}')


def _encoded(message: ImageMessage, stamp_ns: int, *, is_whole: bool) -> Picture:
    """Make a JPEG of an image message.

    Raises:
        BadImageError: It cannot be decoded.
    """
    import cv2  # 50 MB that nobody pays for while nobody looks at a raw camera

    from edge_vlm_ros.vision import decode_image

    pixels: Any = decode_image(image_from_ros(message))
    height, width = pixels.shape[:2]
    factor = 1 if is_whole else max(1, round(max(width, height) / SHOWN_PX))
    if factor > 1:
        size = (max(1, width // factor), max(1, height // factor))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, SHOWN_QUALITY if factor > 1 else WHOLE_QUALITY]
    _, jpeg = cv2.imencode('.jpg', cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), quality)
    return Picture(stamp_ns, jpeg.tobytes(), is_whole=factor == 1)
