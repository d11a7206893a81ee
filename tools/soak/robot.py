"""Four cameras that pause and send damaged frames, and a client that hears all: one ROS node."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, final

import cv2
import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from edge_vlm_ros.action import Ask as AskAction  # noqa: TID251 (a ROS client, as users write them)
from edge_vlm_ros.msg import AnswerChunk  # noqa: TID251
from edge_vlm_ros.srv import Ask, Cancel, Describe, ResetSession  # noqa: TID251
from rclpy.action.client import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from edge_vlm_ros.nodes import qos
from tools.soak.script import brightness

RAW: Final = ('front', 'rear')
COMPRESSED: Final = ('left', 'right')
WIDTH, HEIGHT = 32, 24
PERIOD_S: Final = 0.1
DAMAGED: Final = 0.05
"""Share of the frames that are cut."""

_DEEP: Final = 2000
"""Of every inbox of the client: what it loses would look like a reply that never came."""


def grey(camera: str, stamp_ns: int) -> Image:
    """Make a raw image of the brightness that camera and stamp ask for."""
    image = Image(encoding='mono8', width=WIDTH, height=HEIGHT, step=WIDTH)
    image.data = array('B', bytes([brightness(camera, stamp_ns)]) * (WIDTH * HEIGHT))
    _set_header(image, camera, stamp_ns)
    return image


def jpeg(camera: str, stamp_ns: int) -> CompressedImage:
    """Likewise as JPEG."""
    pixels = np.full((HEIGHT, WIDTH), brightness(camera, stamp_ns), np.uint8)
    _, data = cv2.imencode('.jpg', pixels)
    image = CompressedImage(format='mono8; jpeg compressed ')
    image.data = array('B', data.tobytes())
    _set_header(image, camera, stamp_ns)
    return image


def damaged(image: Image | CompressedImage, draw: random.Random) -> Image | CompressedImage:
    """Cut an image somewhere."""
    image.data = image.data[: draw.randrange(len(image.data) // 2)]
    return image


def _set_header(image: Image | CompressedImage, camera: str, stamp_ns: int) -> None:
    image.header.stamp = Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    image.header.frame_id = f'{camera}_optical_frame'


@dataclass(slots=True)
class _Camera:
    publisher: Any
    make: Callable[[str, int], Image | CompressedImage]
    paused_until_ns: int = 0


@dataclass(slots=True)
class Heard:
    """What came on ~/answer of one request_id.

    Attributes:
        deltas: Text of its chunks.
        sequences: Their numbers.
        finals: How many were final.
    """

    deltas: list[str] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)
    finals: int = 0


@final
class Robot:
    """Cameras and client; everything happens while it spins.

    Args:
        draw: Which frames are damaged.
    """

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node('soak', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.heard: dict[str, Heard] = {}
        self.state = ''
        deep = QoSProfile(depth=_DEEP)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node = self.node
        node.create_subscription(AnswerChunk, 'vlm/answer', self._on_chunk, deep)
        node.create_subscription(String, 'vlm/state', self._on_state, latched)
        self.clients: dict[str, Any] = {
            'ask': node.create_client(Ask, 'ask', qos_profile=deep),
            'describe': node.create_client(Describe, 'describe', qos_profile=deep),
            'cancel': node.create_client(Cancel, 'vlm/cancel', qos_profile=deep),
            'reset': node.create_client(ResetSession, 'vlm/reset_session', qos_profile=deep),
        }
        self.action: Any = ActionClient(
            node,
            AskAction,
            'vlm/ask',
            goal_service_qos_profile=deep,
            result_service_qos_profile=deep,
            cancel_service_qos_profile=deep,
            feedback_sub_qos_profile=deep,
        )
        self.cameras = {
            **{name: self._camera(name, Image, grey, '') for name in RAW},
            **{
                name: self._camera(name, CompressedImage, jpeg, '/compressed')
                for name in COMPRESSED
            },
        }

    def _camera(self, name: str, kind: Any, make: Any, suffix: str) -> _Camera:
        publisher = self.node.create_publisher(
            kind, f'{name}/image_raw{suffix}', qos.camera('best_effort', 5)
        )
        self.node.create_timer(PERIOD_S, lambda: self._show(name))
        return _Camera(publisher, make)

    def now_ns(self) -> int:
        """Return ROS time."""
        return int(self.node.get_clock().now().nanoseconds)

    def pause(self, camera: str, seconds: float) -> None:
        """Have a camera send nothing for a while."""
        self.cameras[camera].paused_until_ns = self.now_ns() + round(seconds * 1e9)

    def spin(self, seconds: float = 0.01) -> None:
        """Let messages come and frames go, once."""
        self._executor.spin_once(timeout_sec=seconds)

    def close(self) -> None:
        """Leave the ROS graph."""
        self.action.destroy()
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()

    def _show(self, name: str) -> None:
        camera, now_ns = self.cameras[name], self.now_ns()
        if now_ns < camera.paused_until_ns:
            return
        image = camera.make(name, now_ns)
        if self._draw.random() < DAMAGED:
            image = damaged(image, self._draw)
        camera.publisher.publish(image)

    def _on_chunk(self, chunk: Any) -> None:
        heard = self.heard.setdefault(chunk.request_id, Heard())
        heard.deltas.append(chunk.delta)
        heard.sequences.append(chunk.sequence)
        heard.finals += chunk.done

    def _on_state(self, message: Any) -> None:
        self.state = message.data
