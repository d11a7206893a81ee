"""The vlm node's parameters: declared with description and range, read into frozen settings.

What the node is (chip, model, cameras, bounds) is read-only and becomes one `VlmSettings` at
start-up. What a request may leave open is a `RequestDefaults`, read again for every request, so a
change at run time holds from the next question on.

Cameras and presets are lists of names; each name brings parameters of its own. In a YAML file
they stand beside the list, with dots (one key cannot be a list and a map at once):

    cameras: ['front', 'rear']
    cameras.front.topic: '/front/image_raw'
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_vlm_ros.core import BadRequestError, EdgeVlmError, chip_named, chip_names, parse_option
from edge_vlm_ros.nodes.ahead_parameters import AheadSettings, declare_ahead, read_ahead
from edge_vlm_ros.nodes.camera_parameters import CameraSettings, declare_camera, read_camera
from edge_vlm_ros.nodes.declaring import (
    SettingsError,
    choices,
    declare,
    declare_names,
    filled,
    one_of,
    value_of,
)
from edge_vlm_ros.scheduling import QueuePolicy
from edge_vlm_ros.serving import ServingSettings

if TYPE_CHECKING:
    from rclpy.node import Node

QUEUE_POLICIES = tuple(policy.value for policy in QueuePolicy)
PRESETS = {
    'scene': 'Describe what you see.',
    'path': 'Is the way ahead clear?',
    'nearest': 'Which object is closest?',
    'count': 'How many objects are there?',
    'motion': 'What is moving?',
}


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
        wait_for_model: The node is not activated before the model is loaded.
        engine_stall_s: Longest step of the engine; 0 = from what steps were measured to cost.
        queue_size: Most requests that run or wait.
        queue_policy: What becomes of a request that finds no room, or that finds the chip at work.
        session_ttl_s: A conversation not used for so long is forgotten.
        session_max_turns: Turns of a conversation that are kept; 0 = as many as the context holds.
        cameras: In the order of the parameter; the first is the default.
        presets: Names for `describe`; the first is the default.
        ahead: What is made ready while nobody asks.
    """

    chip: str
    model: str
    model_dirs: tuple[str, ...]
    device_ids: tuple[int, ...]
    engine_options: tuple[tuple[str, str | int], ...]
    autostart: bool
    wait_for_model: bool
    engine_stall_s: float
    queue_size: int
    queue_policy: QueuePolicy
    session_ttl_s: float
    session_max_turns: int
    cameras: tuple[CameraSettings, ...]
    presets: tuple[str, ...]
    ahead: AheadSettings

    def serving(self) -> ServingSettings:
        """Return what of it concerns the queue and the conversations of the backend."""
        is_decided_here = self.queue_policy in {QueuePolicy.REJECT, QueuePolicy.QUEUE}
        return ServingSettings(
            # Where the node counts, whatever it lets through finds room.
            max_waiting=self.queue_size if is_decided_here else self.queue_size - 1,
            queue_policy=self.queue_policy,
            newest_wins=tuple(each.name for each in self.cameras if each.newest_question_wins),
            session_ttl_s=self.session_ttl_s,
            max_session_turns=self.session_max_turns,
            ahead_duty=self.ahead.duty,
            live_s=self.ahead.live_s,
        )


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
    _declare_model(node)
    _declare_start(node)
    _declare_queue(node)
    _declare_requests(node)
    declare_ahead(node)
    cameras = declare_names(node, 'cameras', ['camera'], 'Cameras by name, as requests call them.')
    for name in cameras:
        declare_camera(node, name, 'image_raw' if len(cameras) == 1 else f'{name}/image_raw')
    presets = declare_names(
        node,
        'presets',
        list(PRESETS),
        'Prompts of the describe service; the first is its default.',
    )
    for name in presets:
        declare(node, f'presets.{name}', PRESETS.get(name, ''), f'Question of preset "{name}".')


def read_settings(node: Node) -> VlmSettings:
    """Read what the node is; call after `declare_parameters`.

    Raises:
        SettingsError: A value makes no sense.
    """
    settings = VlmSettings(
        chip=_chip(value_of(node, 'chip')),
        model=value_of(node, 'model'),
        model_dirs=tuple(_expanded(path) for path in value_of(node, 'model_dirs') if path),
        device_ids=tuple(value_of(node, 'device_ids')),
        engine_options=tuple(_option(text) for text in value_of(node, 'engine_options') if text),
        autostart=value_of(node, 'autostart'),
        wait_for_model=value_of(node, 'wait_for_model'),
        engine_stall_s=value_of(node, 'engine_stall_s'),
        queue_size=value_of(node, 'queue_size'),
        queue_policy=QueuePolicy(
            one_of('queue_policy', value_of(node, 'queue_policy'), QUEUE_POLICIES)
        ),
        session_ttl_s=value_of(node, 'session_ttl_s'),
        session_max_turns=value_of(node, 'session_max_turns'),
        cameras=tuple(read_camera(node, name) for name in filled(value_of(node, 'cameras'))),
        presets=tuple(filled(value_of(node, 'presets'))),
        ahead=read_ahead(node, filled(value_of(node, 'cameras'))),
    )
    for name in settings.presets:
        if not value_of(node, f'presets.{name}').strip():
            raise SettingsError(f'presets.{name} is empty: give preset "{name}" a question')
    return settings


def read_request_defaults(node: Node) -> RequestDefaults:
    """Read what requests may leave open, as it is now."""
    return RequestDefaults(
        max_frames=value_of(node, 'max_frames'),
        max_age_s=value_of(node, 'max_age_s'),
        frame_wait_s=value_of(node, 'frame_wait_s'),
        timeout_s=value_of(node, 'timeout_s'),
        max_tokens=value_of(node, 'max_tokens'),
        system_prompt=value_of(node, 'system_prompt'),
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
    return str(value_of(node, f'presets.{name}'))


def _declare_model(node: Node) -> None:
    declare(
        node,
        'chip',
        'cpu',
        'What runs the model.',
        read_only=True,
        constraint=choices(chip_names()),
    )
    declare(
        node,
        'model',
        '',
        "Model: a name of the catalogue or a path; empty: the chip's default.",
        read_only=True,
    )
    declare(
        node,
        'model_dirs',
        [''],
        'Folders to look for models in, before the usual ones; ~ and $NAME are expanded.',
        read_only=True,
    )
    declare(
        node,
        'device_ids',
        [0],
        'Numbers of the chips to use, on machines with several.',
        read_only=True,
    )
    declare(
        node,
        'engine_options',
        [''],
        'Options of the model\'s family ("resize=fast"; "max_tiles=4" where it tiles) and of the '
        'chip\'s engine (cpu: "threads=2"), each as "name=value"; a name that neither has ends '
        'the start with a list of those they have; empty: none.',
        read_only=True,
    )


def _declare_start(node: Node) -> None:
    declare(
        node,
        'autostart',
        value=True,
        description='Configure and activate at start; a failed start then ends the process '
        'with exit status 1.',
        read_only=True,
    )
    declare(
        node,
        'wait_for_model',
        value=False,
        description='Active means able to answer: with autostart the node is activated once the '
        'model is loaded, and to activate it before fails. Otherwise requests are taken at once '
        'and wait for the model.',
        read_only=True,
    )
    declare(
        node,
        'engine_stall_s',
        0.0,
        's; an engine that gives no sign of life for so long is ended and started again; 0: as '
        'long as its steps were measured to take at the start, times ten, at least 20 s.',
        read_only=True,
        low=0.0,
        high=86400.0,
    )


def _declare_queue(node: Node) -> None:
    declare(
        node,
        'queue_size',
        8,
        'Requests that run or wait, at most; `queue_policy` says what becomes of one more.',
        read_only=True,
        low=1,
        high=1000,
    )
    declare(
        node,
        'queue_policy',
        QueuePolicy.QUEUE.value,
        'What becomes of a request that comes while another is answered. reject: ERROR_BUSY. '
        'queue: it waits; in a full queue, ERROR_BUSY. replace_oldest: it waits; in a full queue '
        'the oldest one that waits, of the lowest priority, ends with ERROR_BUSY. preempt: unless '
        'its priority is lower, the one that runs ends with ERROR_PREEMPTED and what it has said.',
        read_only=True,
        constraint=choices(QUEUE_POLICIES),
    )
    declare(
        node,
        'session_ttl_s',
        1800.0,
        's; a conversation that was not used for so long is forgotten.',
        read_only=True,
        low=1.0,
        high=1e6,
    )
    declare(
        node,
        'session_max_turns',
        0,
        'Turns of a conversation that are kept, the oldest go first; 0: as many as the context '
        'holds.',
        read_only=True,
        low=0,
        high=1000,
    )


def _declare_requests(node: Node) -> None:
    declare(
        node,
        'max_frames',
        8,
        'Frames of a clip, where a request says 0; a model that takes fewer gets fewer.',
        low=1,
        high=256,
    )
    declare(
        node,
        'max_age_s',
        2.0,
        's; where a request says 0: a newest frame older than this is refused with '
        'ERROR_STALE_FRAME; 0: any age will do.',
        low=0.0,
        high=1e9,
    )
    declare(
        node,
        'frame_wait_s',
        1.0,
        's; how long a request waits for a frame where there is none or only too old ones, within '
        'its own timeout; then it is refused with ERROR_NO_FRAME or ERROR_STALE_FRAME; '
        '0: at once.',
        low=0.0,
        high=3600.0,
    )
    declare(
        node,
        'timeout_s',
        120.0,
        's; where a request says 0: the answer ends after so long with FINISH_DEADLINE; '
        '0: no limit.',
        low=0.0,
        high=1e6,
    )
    declare(
        node,
        'max_tokens',
        256,
        'Tokens of an answer at most, where a request says 0; 0: as many as the context holds.',
        low=0,
        high=1_000_000,
    )
    declare(
        node,
        'system_prompt',
        '',
        "Who the model is to be, where a request says nothing; empty: the model family's own.",
    )


def _chip(name: str) -> str:
    try:
        return chip_named(name).name
    except EdgeVlmError as error:
        raise SettingsError(f'chip: {error.message}') from error


def _option(text: str) -> tuple[str, str | int]:
    try:
        return parse_option(text)
    except BadRequestError as error:
        raise SettingsError(f'engine_options: {error.message}') from error


def _expanded(path: str) -> str:
    return os.path.expandvars(os.path.expanduser(path))  # noqa: PTH111 - ~ first, $NAME after it
