"""The parameters of one camera: `cameras.<name>.topic` and so on, read into frozen settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rclpy.exceptions import InvalidTopicNameException
from rclpy.validate_topic_name import validate_topic_name

from edge_vlm_ros.nodes.declaring import SettingsError, value_of
from edge_vlm_ros.nodes.qos_overrides import Overrides

if TYPE_CHECKING:
    from rclpy.node import Node

    from edge_vlm_ros.nodes.declaring import ParameterTable

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
        durability: 'volatile' or 'transient_local': also what was sent before, see `qos.camera`.
        depth: Messages that wait in the middleware.
        qos_id: Tells its `qos_overrides` from those of another camera on its topic; '' = it is
            the first.
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
    durability: str = 'volatile'
    depth: int = 2
    qos_id: str = ''
    buffer_frames: int = 300
    buffer_seconds: float = 10.0
    buffer_bytes: int = 128 * BYTES_PER_MEGABYTE
    buffer_fps: float = 0.0
    min_fps: float = 1.0
    newest_question_wins: bool = False
    range16: tuple[int, int] = (0, 0)


def declare_camera(table: ParameterTable, name: str, topic: str) -> None:
    """Declare the parameters of one camera.

    Args:
        table: Of the node.
        name: As requests call it.
        topic: Its topic, unless the user names one.

    Raises:
        SettingsError: What was given for one at the start does not fit.
    """

    def of_camera(part: str, value: Any, description: str, **limits: Any) -> Any:
        text = f'Camera "{name}": {description}'
        return table.declare(f'cameras.{name}.{part}', value, text, read_only=True, **limits)

    transport = of_camera(
        'transport',
        'raw',
        'sensor_msgs/Image or sensor_msgs/CompressedImage.',
        choices=TRANSPORTS,
    )
    is_compressed = transport == 'compressed'
    default = CameraSettings(name, f'{topic}/compressed' if is_compressed else topic)
    subscribed = of_camera(
        'topic',
        default.topic,
        'topic of its images, subscribed as it stands whatever the transport; where it is not '
        'set, compressed transport means the default with "/compressed" after it.',
        check=_problem_of_topic,
    )
    _declare_qos(table, default, subscribed)
    of_camera(
        'newest_question_wins',
        default.newest_question_wins,
        'of the questions about it, only the newest waits: older ones of no higher priority end '
        'with ERROR_BUSY.',
    )
    _declare_buffer(of_camera, default)


def _declare_qos(table: ParameterTable, default: CameraSettings, topic: str) -> None:
    """Declare how a topic is subscribed to: as `cameras.<name>.qos` and as `qos_overrides`."""
    overrides = Overrides(table, topic, 'subscription')
    if overrides.is_declared:  # Two cameras look at one topic.
        overrides = Overrides(table, topic, 'subscription', default.name)

    def declare(policy: str, value: Any, description: str) -> Any:
        text = f'Camera "{default.name}": {description}'
        return overrides.declare_as(policy, f'cameras.{default.name}.qos.{policy}', value, text)

    durability = declare(
        'durability',
        default.durability,
        'volatile takes what is sent from now on; transient_local also the picture that a '
        'transient-local ("latched") publisher sent before, and nothing from a volatile one.',
    )
    is_kept = durability == 'transient_local'
    reliability = declare(
        'reliability',
        'reliable' if is_kept else default.reliability,
        'best_effort takes from every publisher, reliable only from reliable ones; where it is '
        'not set, durability transient_local means reliable.',
    )
    if is_kept and reliability != 'reliable':
        raise SettingsError(
            f'cameras.{default.name}.qos.reliability is {reliability} and .durability '
            f'{durability}: what a publisher sent before is only resent to reliable subscriptions'
        )
    declare('depth', default.depth, 'messages that wait in the middleware.')
    overrides.declare('history', 'keep_last')


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
        low=0,
        high=65535,
        check=_problem_of_range16,
    )
    of_camera(
        'min_fps',
        default.min_fps,
        'fewer frames a second than this is a warning in diagnostics; 0: never.',
        low=0.0,
        high=1000.0,
    )


def read_camera(node: Node, name: str) -> CameraSettings:
    """Read what the parameters of one camera say; call after `declare_camera`."""

    def value(part: str) -> Any:
        return value_of(node, f'cameras.{name}.{part}')

    topic = value('topic')
    overrides = f'qos_overrides.{node.resolve_topic_name(topic)}.subscription'
    low, high = value('range_16bit')
    return CameraSettings(
        name=name,
        topic=topic,
        transport=value('transport'),
        reliability=value('qos.reliability'),
        durability=value('qos.durability'),
        depth=value('qos.depth'),
        qos_id=name if node.has_parameter(f'{overrides}_{name}.depth') else '',
        buffer_frames=value('buffer.frames'),
        buffer_seconds=value('buffer.seconds'),
        buffer_bytes=round(value('buffer.megabytes') * BYTES_PER_MEGABYTE),
        buffer_fps=value('buffer.fps'),
        min_fps=value('min_fps'),
        newest_question_wins=value('newest_question_wins'),
        range16=(low, high),
    )


def _problem_of_topic(topic: str) -> str:
    try:
        validate_topic_name(topic)
    except InvalidTopicNameException as error:
        return f'{topic!r} is no topic: {str(error).partition(": ")[2].partition(":")[0]}'
    return ''


def _problem_of_range16(values: list[int]) -> str:
    is_range = len(values) == 2 and (values == [0, 0] or values[0] < values[1])
    return (
        '' if is_range else f'two whole numbers from 0 to 65535, the lower one first, not {values}'
    )
