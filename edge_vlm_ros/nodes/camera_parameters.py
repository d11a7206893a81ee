"""The parameters of one camera: `cameras.<name>.topic` and so on, read into frozen settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_vlm_ros.nodes.declaring import SettingsError, choices, declare, one_of, value_of
from edge_vlm_ros.nodes.qos import RELIABILITIES

if TYPE_CHECKING:
    from rclpy.node import Node

TRANSPORTS = ('raw', 'compressed')
BYTES_PER_MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class CameraSettings:
    """One camera; what stands here is what its parameters are by default.

    Attributes:
        name: As requests call it.
        topic: As subscribed, before remapping.
        transport: 'raw' (sensor_msgs/Image) or 'compressed' (sensor_msgs/CompressedImage).
        reliability: 'best_effort' or 'reliable'.
        depth: Messages that wait in the middleware.
        buffer_frames: Most frames kept.
        buffer_seconds: Oldest frame kept, counted from the newest.
        buffer_bytes: Most bytes kept.
        buffer_fps: Frames kept a second beside the newest one; 0 = all.
        min_fps: Fewer frames a second are worth a warning; 0 = any rate will do.
        newest_question_wins: Of the questions about it, only the newest waits.
        range16: Of 16-bit images, the values that become black and white; (0, 0) = not said.
    """

    name: str
    topic: str
    transport: str = 'raw'
    reliability: str = 'best_effort'
    depth: int = 2
    buffer_frames: int = 300
    buffer_seconds: float = 10.0
    buffer_bytes: int = 128 * BYTES_PER_MEGABYTE
    buffer_fps: float = 0.0
    min_fps: float = 1.0
    newest_question_wins: bool = False
    range16: tuple[int, int] = (0, 0)


def declare_camera(node: Node, name: str, topic: str) -> None:
    """Declare the parameters of one camera.

    Args:
        node: Whose.
        name: As requests call it.
        topic: Its topic, unless the user names one.
    """

    def of_camera(part: str, value: Any, description: str, **limits: Any) -> None:
        text = f'Camera "{name}": {description}'
        declare(node, f'cameras.{name}.{part}', value, text, read_only=True, **limits)

    of_camera(
        'transport',
        'raw',
        'sensor_msgs/Image or sensor_msgs/CompressedImage.',
        constraint=choices(TRANSPORTS),
    )
    is_compressed = value_of(node, f'cameras.{name}.transport') == 'compressed'
    default = CameraSettings(name, f'{topic}/compressed' if is_compressed else topic)
    _declare_topic(of_camera, default)
    _declare_buffer(of_camera, default)


def _declare_topic(of_camera: Callable[..., None], default: CameraSettings) -> None:
    of_camera(
        'topic',
        default.topic,
        'topic of its images, subscribed as it stands whatever the transport; where it is not '
        'set, compressed transport means the default with "/compressed" after it.',
    )
    of_camera(
        'qos.reliability',
        default.reliability,
        'best_effort takes from every publisher, reliable only from reliable ones.',
        constraint=choices(RELIABILITIES),
    )
    of_camera(
        'qos.depth', default.depth, 'messages that wait in the middleware.', low=1, high=1000
    )
    of_camera(
        'newest_question_wins',
        default.newest_question_wins,
        'of the questions about it, only the newest waits: older ones of no higher priority end '
        'with ERROR_BUSY.',
    )


def _declare_buffer(of_camera: Callable[..., None], default: CameraSettings) -> None:
    of_camera('buffer.frames', default.buffer_frames, 'frames kept, at most.', low=1, high=100_000)
    of_camera(
        'buffer.seconds',
        default.buffer_seconds,
        's; older frames are dropped.',
        low=0.1,
        high=3600.0,
    )
    of_camera(
        'buffer.megabytes',
        default.buffer_bytes / BYTES_PER_MEGABYTE,
        'MB of frames kept, at most.',
        low=1.0,
        high=65536.0,
    )
    of_camera(
        'buffer.fps',
        default.buffer_fps,
        'frames a second kept for clips beside the newest one; 0: every frame.',
        low=0.0,
        high=1000.0,
    )
    of_camera(
        'range_16bit',
        list(default.range16),
        'lowest and highest value of 16-bit images (mono16, 16UC1, PNG and TIFF of 16 bits), '
        'which become black and white; [0, 0]: the whole range, and an image that uses only its '
        'lowest 14 bits, as of a thermal camera, is refused, and so is 16UC1.',
    )
    of_camera(
        'min_fps',
        default.min_fps,
        'fewer frames a second than this is a warning in diagnostics; 0: never.',
        low=0.0,
        high=1000.0,
    )


def read_camera(node: Node, name: str) -> CameraSettings:
    """Read what the parameters of one camera say.

    Raises:
        SettingsError: A value makes no sense.
    """

    def value(part: str) -> Any:
        return value_of(node, f'cameras.{name}.{part}')

    transport = one_of(f'cameras.{name}.transport', value('transport'), TRANSPORTS)
    topic = value('topic')
    if not topic:
        raise SettingsError(f'cameras.{name}.topic is empty')
    reliability = one_of(
        f'cameras.{name}.qos.reliability', value('qos.reliability'), tuple(RELIABILITIES)
    )
    return CameraSettings(
        name=name,
        topic=topic,
        transport=transport,
        reliability=reliability,
        depth=value('qos.depth'),
        buffer_frames=value('buffer.frames'),
        buffer_seconds=value('buffer.seconds'),
        buffer_bytes=round(value('buffer.megabytes') * BYTES_PER_MEGABYTE),
        buffer_fps=value('buffer.fps'),
        min_fps=value('min_fps'),
        newest_question_wins=value('newest_question_wins'),
        range16=_range16(f'cameras.{name}.range_16bit', value('range_16bit')),
    )


def _range16(name: str, values: Sequence[int]) -> tuple[int, int]:
    """Return the range of 16-bit images; (0, 0) where nothing is said."""
    if len(values) == 0 or tuple(values) == (0, 0):
        return (0, 0)
    if len(values) != 2 or not 0 <= values[0] < values[1] <= 65535:
        raise SettingsError(
            f'{name} is two whole numbers from 0 to 65535, the lower one first, not {list(values)}'
        )
    return (values[0], values[1])
