"""The vlm node's parameters: declared with description and range, read into frozen settings.

What the node is (chip, model, cameras, bounds) is read-only and becomes one `VlmSettings` at
start-up. What a request may leave open is in `request_parameters`.

Cameras and presets are lists of names; each name brings parameters of its own. The lists have
names of their own, for a key of a YAML file cannot be a list and a map at once:

    camera_names: ['front', 'rear']
    cameras.front.topic: '/front/image_raw'
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_vlm_ros.core import (
    MAX_QUESTION_BYTES,
    BadRequestError,
    EdgeVlmError,
    chip_named,
    chip_names,
    parse_option,
)
from edge_vlm_ros.core.presets import PRESETS
from edge_vlm_ros.nodes.ahead_parameters import AheadSettings, declare_ahead, read_ahead
from edge_vlm_ros.nodes.camera_parameters import CameraSettings, declare_camera, read_camera
from edge_vlm_ros.nodes.declaring import SettingsError, expanded, filled, value_of
from edge_vlm_ros.nodes.remote_parameters import (
    REMOTE,
    RemoteSettings,
    declare_remote,
    read_remote,
)
from edge_vlm_ros.nodes.request_parameters import declare_requests, length_problem
from edge_vlm_ros.nodes.watch_parameters import declare_watches
from edge_vlm_ros.scheduling import QueuePolicy
from edge_vlm_ros.serving import ModelSpec, ServingSettings

if TYPE_CHECKING:
    from rclpy.node import Node

    from edge_vlm_ros.nodes.declaring import ParameterTable

QUEUE_POLICIES = tuple(policy.value for policy in QueuePolicy)


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
        remote: Servers, for chip remote.
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
    remote: RemoteSettings

    @property
    def servers(self) -> tuple[str, ...]:
        """Where images are sent; none = they stay on this machine."""
        return self.remote.servers if self.chip == REMOTE else ()

    def spec(self) -> ModelSpec:
        """Return which model answers, on what."""
        of_chip = self.remote.options() if self.chip == REMOTE else {}
        return ModelSpec(
            chip=self.chip,
            model=self.model,
            device_ids=self.device_ids,
            model_dirs=tuple(map(Path, self.model_dirs)),
            options={**of_chip, **dict(self.engine_options)},
        )

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


def declare_parameters(table: ParameterTable) -> None:
    """Declare every parameter of the vlm node, but those of its publishers' QoS.

    Raises:
        SettingsError: What was given for one at the start does not fit, or all together do not.
    """
    _declare_model(table)
    _declare_start(table)
    _declare_queue(table)
    declare_requests(table)
    declare_ahead(table)
    declare_remote(table)
    cameras = table.declare_names(
        'camera_names', ['camera'], 'Cameras by name, as requests call them.', 'cameras'
    )
    for name in cameras:
        declare_camera(table, name, 'image_raw' if len(cameras) == 1 else f'{name}/image_raw')
    presets = table.declare_names(
        'preset_names',
        list(PRESETS),
        'Prompts of the describe service; the first is its default.',
        'presets',
    )
    for name in presets:
        text = PRESETS.get(name, '')
        table.declare(
            f'presets.{name}', text, f'Question of preset "{name}".', check=_problem_of_preset
        )
    declare_watches(table)
    table.judge_together({})


def read_settings(node: Node) -> VlmSettings:
    """Read what the node is; call after `declare_parameters`.

    Raises:
        SettingsError: The chip is of a package that is broken.
    """
    return VlmSettings(
        chip=_chip(value_of(node, 'chip')),
        model=value_of(node, 'model'),
        model_dirs=tuple(expanded(path) for path in value_of(node, 'model_dirs') if path),
        device_ids=tuple(value_of(node, 'device_ids')),
        engine_options=tuple(map(parse_option, filled(value_of(node, 'engine_options')))),
        autostart=value_of(node, 'autostart'),
        wait_for_model=value_of(node, 'wait_for_model'),
        engine_stall_s=value_of(node, 'engine_stall_s'),
        queue_size=value_of(node, 'queue_size'),
        queue_policy=QueuePolicy(value_of(node, 'queue_policy')),
        session_ttl_s=value_of(node, 'session_ttl_s'),
        session_max_turns=value_of(node, 'session_max_turns'),
        cameras=tuple(read_camera(node, name) for name in filled(value_of(node, 'camera_names'))),
        presets=tuple(filled(value_of(node, 'preset_names'))),
        ahead=read_ahead(node, filled(value_of(node, 'camera_names'))),
        remote=read_remote(node),
    )


def read_preset(node: Node, settings: VlmSettings, name: str) -> str:
    """Return the question of a preset, as it is now; '' asks for the first.

    Raises:
        BadRequestError: There is no preset of that name.
    """
    if not settings.presets:
        raise BadRequestError('there are no presets: the parameter `preset_names` is empty')
    name = name or settings.presets[0]
    if name not in settings.presets:
        raise BadRequestError(f'no preset {name!r}; there are {", ".join(settings.presets)}')
    return str(value_of(node, f'presets.{name}'))


def _declare_model(table: ParameterTable) -> None:
    table.declare(
        'chip',
        'cpu',
        'What runs the model.',
        read_only=True,
        choices=chip_names(),
    )
    table.declare(
        'model',
        '',
        "Model: a name of the catalogue or a path; empty: the chip's default.",
        read_only=True,
    )
    table.declare(
        'model_dirs',
        [''],
        'Folders to look for models in, before the usual ones; ~ and $NAME are expanded.',
        read_only=True,
    )
    table.declare(
        'device_ids',
        [0],
        'Numbers of the chips to use, on machines with several.',
        read_only=True,
        low=0,
        high=255,
    )
    table.declare(
        'engine_options',
        [''],
        'Options of the model\'s family ("resize=fast"; "max_tiles=4" where it tiles) and of the '
        'chip\'s engine (cpu: "threads=2"; remote: "parallel=8"), each as "name=value"; a name '
        'that neither has ends the start with a list of those they have; empty: none.',
        read_only=True,
        check=_problem_of_options,
    )


def _declare_start(table: ParameterTable) -> None:
    table.declare(
        'autostart',
        value=True,
        description='Configure and activate at start; a failed start then ends the process '
        'with exit status 1.',
        read_only=True,
    )
    table.declare(
        'wait_for_model',
        value=False,
        description='Active means able to answer: with autostart the node is activated once the '
        'model is loaded, and to activate it before fails. Otherwise requests are taken at once '
        'and wait for the model.',
        read_only=True,
    )
    table.declare(
        'drain_s',
        2.0,
        's; how long requests that run or wait may take to end when the node is deactivated '
        '(ERROR_NOT_READY for new ones), before the others are cancelled; 0: none.',
        low=0.0,
        high=3600.0,
    )
    table.declare(
        'engine_stall_s',
        0.0,
        's; an engine that gives no sign of life for so long is ended and started again; 0: as '
        'long as its steps were measured to take at the start, times ten, at least 20 s.',
        read_only=True,
        low=0.0,
        high=86400.0,
    )


def _declare_queue(table: ParameterTable) -> None:
    table.declare(
        'queue_size',
        8,
        'Requests that run or wait, at most; `queue_policy` says what becomes of one more.',
        read_only=True,
        low=1,
        high=1000,
    )
    table.declare(
        'queue_policy',
        QueuePolicy.QUEUE.value,
        'What becomes of a request that comes while another is answered. reject: ERROR_BUSY. '
        'queue: it waits; in a full queue, ERROR_BUSY. replace_oldest: it waits; in a full queue '
        'the oldest one that waits, of the lowest priority, ends with ERROR_BUSY. preempt: unless '
        'its priority is lower, the one that runs ends with ERROR_PREEMPTED and what it has said.',
        read_only=True,
        choices=QUEUE_POLICIES,
    )
    table.declare(
        'session_ttl_s',
        1800.0,
        's; a conversation that was not used for so long is forgotten.',
        read_only=True,
        low=1.0,
        high=1e6,
    )
    table.declare(
        'session_max_turns',
        0,
        'Turns of a conversation that are kept, the oldest go first; 0: as many as the context '
        'holds.',
        read_only=True,
        low=0,
        high=1000,
    )


def _chip(name: str) -> str:
    try:
        return chip_named(name).name
    except EdgeVlmError as error:
        raise SettingsError(f'chip: {error.message}') from error


def _problem_of_options(texts: list[str]) -> str:
    try:
        for text in filled(texts):
            parse_option(text)
    except BadRequestError as error:
        return error.message
    return ''


def _problem_of_preset(text: str) -> str:
    if not text.strip():
        return f'{text!r} is empty: a preset needs a question'
    return length_problem(text, MAX_QUESTION_BYTES)
