"""The vlm node's parameters: declared with description and range, read into frozen settings.

What the node is (chip, model, cameras, bounds) is read-only and becomes one `VlmSettings` at
start-up. What a request may leave open is a `RequestDefaults`, read anew for every request, so a
change at run time holds from the next question on.

Cameras and presets are lists of names; each name brings parameters of its own. In a YAML file
they stand beside the list, with dots (one key cannot be a list and a map at once):

    cameras: ['front', 'rear']
    cameras.front.topic: '/front/image_raw'
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from edge_vlm_ros.core import BadRequestError
from edge_vlm_ros.nodes.qos import RELIABILITIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rclpy.node import Node

CHIPS = ('bm1684x', 'bm1688', 'ax650', 'ax630c', 'cpu', 'scripted')
TRANSPORTS = ('raw', 'compressed')
PRESETS = {
    'scene': 'Describe what you see.',
    'path': 'Is the way ahead clear?',
    'nearest': 'Which object is closest?',
    'count': 'How many objects are there?',
    'motion': 'What is moving?',
}
NAME = re.compile(r'[A-Za-z][A-Za-z0-9_]*')
WHOLE_NUMBER = re.compile(r'[+-]?[0-9]+')
BYTES_PER_MEGABYTE = 1_000_000


class SettingsError(ValueError):
    """A parameter's value makes no sense; the message names parameter and value."""


@dataclass(frozen=True, slots=True)
class CameraSettings:
    """One camera.

    Attributes:
        name: As requests call it.
        topic: As subscribed, before remapping.
        transport: 'raw' (sensor_msgs/Image) or 'compressed' (sensor_msgs/CompressedImage).
        reliability: 'best_effort' or 'reliable'.
        depth: Messages that wait in the middleware.
        buffer_frames: Most frames kept.
        buffer_seconds: Oldest frame kept, behind the newest.
        buffer_bytes: Most bytes kept.
        buffer_fps: Frames kept a second beside the newest one; 0 = all.
        min_fps: Fewer frames a second are worth a warning; 0 = any rate will do.
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
    range16: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class VlmSettings:
    """What the node is; fixed while it runs.

    Attributes:
        chip: 'cpu', 'bm1684x', ...
        model: Catalogue name or path; '' = the chip's default.
        model_dirs: Folders to look for models in, before the usual ones.
        device_ids: Chips of a machine that has several.
        engine_options: Name and value, for the engine and for the model's family.
        autostart: Configure and activate at start.
        queue_size: Most requests that run or wait.
        cameras: In the order of the parameter; the first is the default.
        presets: Names for `describe`; the first is the default.
    """

    chip: str
    model: str
    model_dirs: tuple[str, ...]
    device_ids: tuple[int, ...]
    engine_options: tuple[tuple[str, str | int], ...]
    autostart: bool
    queue_size: int
    cameras: tuple[CameraSettings, ...]
    presets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RequestDefaults:
    """What a request gets where it leaves a field at 0.

    Attributes:
        max_frames: Frames of a clip.
        max_age_s: Age of the newest frame above which a question is refused; 0 = any age.
        frame_wait_s: Longest wait for a frame that is fresh enough; 0 = none.
        timeout_s: Time to answer; 0 = no limit.
        max_tokens: Answer tokens; 0 = as many as the context holds.
        system_prompt: '' = the model family's own.
    """

    max_frames: int
    max_age_s: float
    frame_wait_s: float
    timeout_s: float
    max_tokens: int
    system_prompt: str


def declare_parameters(node: Node) -> None:
    """Declare every parameter of the vlm node.

    Raises:
        SettingsError: A name in `cameras` or `presets` cannot be part of a parameter's name.
    """
    _declare_engine(node)
    _declare_requests(node)
    cameras = _names(node, 'cameras', ['camera'], 'Cameras by name, as requests call them.')
    for name in cameras:
        _declare_camera(node, name, 'image_raw' if len(cameras) == 1 else f'{name}/image_raw')
    presets = _names(
        node,
        'presets',
        list(PRESETS),
        'Prompts of the describe service; the first is its default.',
    )
    for name in presets:
        _declare(node, f'presets.{name}', PRESETS.get(name, ''), f'Question of preset "{name}".')


def read_settings(node: Node) -> VlmSettings:
    """Read what the node is; call after `declare_parameters`.

    Raises:
        SettingsError: A value makes no sense.
    """
    chip = _one_of('chip', _value(node, 'chip'), CHIPS)
    settings = VlmSettings(
        chip=chip,
        model=_value(node, 'model'),
        model_dirs=tuple(_expanded(path) for path in _value(node, 'model_dirs') if path),
        device_ids=tuple(_value(node, 'device_ids')),
        engine_options=tuple(_option(text) for text in _value(node, 'engine_options') if text),
        autostart=_value(node, 'autostart'),
        queue_size=_value(node, 'queue_size'),
        cameras=tuple(_read_camera(node, name) for name in _filled(_value(node, 'cameras'))),
        presets=tuple(_filled(_value(node, 'presets'))),
    )
    for name in settings.presets:
        if not _value(node, f'presets.{name}').strip():
            raise SettingsError(f'presets.{name} is empty: give preset "{name}" a question')
    return settings


def read_request_defaults(node: Node) -> RequestDefaults:
    """Read what requests may leave open, as it is now."""
    return RequestDefaults(
        max_frames=_value(node, 'max_frames'),
        max_age_s=_value(node, 'max_age_s'),
        frame_wait_s=_value(node, 'frame_wait_s'),
        timeout_s=_value(node, 'timeout_s'),
        max_tokens=_value(node, 'max_tokens'),
        system_prompt=_value(node, 'system_prompt'),
    )


def read_preset(node: Node, settings: VlmSettings, name: str) -> str:
    """Return the question of a preset, as it is now; '' asks for the first.

    Raises:
        BadRequestError: There is no preset of that name.
    """
    if not settings.presets:
        raise BadRequestError('there are no presets: the parameter `presets` is empty')
    name = name or settings.presets[0]
    if name not in settings.presets:
        raise BadRequestError(f'no preset {name!r}; there are {", ".join(settings.presets)}')
    return str(_value(node, f'presets.{name}'))


def _declare_engine(node: Node) -> None:
    _declare(
        node, 'chip', 'cpu', 'What runs the model.', read_only=True, constraint=_choices(CHIPS)
    )
    _declare(
        node,
        'model',
        '',
        "Model: a name of the catalogue or a path; empty: the chip's default.",
        read_only=True,
    )
    _declare(
        node,
        'model_dirs',
        [''],
        'Folders to look for models in, before the usual ones; ~ and $NAME are expanded.',
        read_only=True,
    )
    _declare(
        node,
        'device_ids',
        [0],
        'Numbers of the chips to use, on machines with several.',
        read_only=True,
    )
    _declare(
        node,
        'engine_options',
        [''],
        'Options of the chip\'s engine (cpu: "threads=2"; ax650: "backend=portable") and of the '
        'model\'s family ("resize=fast" or "resize=exact"; InternVL and Llama: "max_tiles=4"; '
        'Qwen2-VL: "min_pixels", "max_pixels", "clip_pixels", "resized_width" with '
        '"resized_height"), each as "name=value"; empty: none.',
        read_only=True,
    )
    _declare(
        node,
        'autostart',
        value=True,
        description='Configure and activate at start; a failed start then ends the process '
        'with exit status 1.',
        read_only=True,
    )
    _declare(
        node,
        'queue_size',
        8,
        'Requests that run or wait, at most; one more is refused with ERROR_BUSY.',
        read_only=True,
        low=1,
        high=1000,
    )


def _declare_requests(node: Node) -> None:
    _declare(
        node,
        'max_frames',
        8,
        'Frames of a clip, where a request says 0; a model that takes fewer gets fewer.',
        low=1,
        high=256,
    )
    _declare(
        node,
        'max_age_s',
        2.0,
        's; where a request says 0: a newest frame older than this is refused with '
        'ERROR_STALE_FRAME; 0: any age will do.',
        low=0.0,
        high=1e9,
    )
    _declare(
        node,
        'frame_wait_s',
        1.0,
        's; how long a request waits for a frame where there is none or only too old ones, within '
        'its own timeout; then it is refused with ERROR_NO_FRAME or ERROR_STALE_FRAME; '
        '0: at once.',
        low=0.0,
        high=3600.0,
    )
    _declare(
        node,
        'timeout_s',
        120.0,
        's; where a request says 0: the answer ends after so long with FINISH_DEADLINE; '
        '0: no limit.',
        low=0.0,
        high=1e6,
    )
    _declare(
        node,
        'max_tokens',
        256,
        'Tokens of an answer at most, where a request says 0; 0: as many as the context holds.',
        low=0,
        high=1_000_000,
    )
    _declare(
        node,
        'system_prompt',
        '',
        "Who the model is to be, where a request says nothing; empty: the model family's own.",
    )


def _declare_camera(node: Node, name: str, topic: str) -> None:
    def declare(part: str, value: Any, description: str, **limits: Any) -> None:
        text = f'Camera "{name}": {description}'
        _declare(node, f'cameras.{name}.{part}', value, text, read_only=True, **limits)

    declare(
        'transport',
        'raw',
        'sensor_msgs/Image or sensor_msgs/CompressedImage.',
        constraint=_choices(TRANSPORTS),
    )
    is_compressed = _value(node, f'cameras.{name}.transport') == 'compressed'
    declare(
        'topic',
        f'{topic}/compressed' if is_compressed else topic,
        'topic of its images, subscribed as it stands here whatever the transport; where it is '
        'not set, compressed transport means the default with "/compressed" after it.',
    )
    declare(
        'qos.reliability',
        'best_effort',
        'best_effort takes from every publisher, reliable only from reliable ones.',
        constraint=_choices(RELIABILITIES),
    )
    declare('qos.depth', 2, 'messages that wait in the middleware.', low=1, high=1000)
    declare('buffer.frames', 300, 'frames kept, at most.', low=1, high=100_000)
    declare('buffer.seconds', 10.0, 's; older frames are dropped.', low=0.1, high=3600.0)
    declare('buffer.megabytes', 128.0, 'MB of frames kept, at most.', low=1.0, high=65536.0)
    declare(
        'buffer.fps',
        0.0,
        'frames a second kept for clips beside the newest one; 0: every frame.',
        low=0.0,
        high=1000.0,
    )
    declare(
        'range_16bit',
        [0, 0],
        'lowest and highest value of 16-bit images (mono16, 16UC1, PNG and TIFF of 16 bits), '
        'which become black and white; [0, 0]: the whole range, and an image that uses only its '
        'lowest 14 bits, as of a thermal camera, is refused, and so is 16UC1.',
    )
    declare(
        'min_fps',
        1.0,
        'fewer frames a second than this is a warning in diagnostics; 0: never.',
        low=0.0,
        high=1000.0,
    )


def _read_camera(node: Node, name: str) -> CameraSettings:
    def value(part: str) -> Any:
        return _value(node, f'cameras.{name}.{part}')

    transport = _one_of(f'cameras.{name}.transport', value('transport'), TRANSPORTS)
    topic = value('topic')
    if not topic:
        raise SettingsError(f'cameras.{name}.topic is empty')
    reliability = _one_of(
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


def _names(node: Node, parameter: str, default: list[str], description: str) -> list[str]:
    _declare(node, parameter, default, description, read_only=True)
    names = _filled(_value(node, parameter))
    for name in names:
        if not NAME.fullmatch(name):
            raise SettingsError(
                f'{parameter}: {name!r} is no name (a letter, then letters, digits and _)'
            )
    if len(set(names)) != len(names):
        raise SettingsError(f'{parameter}: a name stands there twice: {", ".join(names)}')
    return names


def _declare(  # noqa: PLR0913 - the parts of a ParameterDescriptor
    node: Node,
    name: str,
    value: Any,
    description: str,
    *,
    read_only: bool = False,
    low: float | None = None,
    high: float | None = None,
    constraint: str = '',
) -> None:
    descriptor = ParameterDescriptor(
        description=description, read_only=read_only, additional_constraints=constraint
    )
    if low is not None and high is not None:
        if isinstance(value, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        else:
            bounds = IntegerRange(from_value=int(low), to_value=int(high), step=1)
            descriptor.integer_range = [bounds]
    node.declare_parameter(name, value, descriptor)


def _value(node: Node, name: str) -> Any:
    return node.get_parameter(name).value


def _filled(texts: list[str]) -> list[str]:
    # A list parameter cannot be declared empty in every distribution: [''] stands for it.
    return [text for text in texts if text]


def _choices(values: Any) -> str:
    return 'One of: ' + ', '.join(values)


def _one_of(name: str, value: str, values: tuple[str, ...]) -> str:
    if value not in values:
        raise SettingsError(f'{name} is one of {", ".join(values)}, not {value!r}')
    return value


def _option(text: str) -> tuple[str, str | int]:
    name, equals, value = text.partition('=')
    if not equals or not name:
        raise SettingsError(f'engine_options: {text!r} is not of the form name=value')
    return name, int(value) if WHOLE_NUMBER.fullmatch(value) else value


def _expanded(path: str) -> str:
    return os.path.expandvars(os.path.expanduser(path))  # noqa: PTH111 - ~ first, $NAME after it
