"""Watches among the node's parameters: a list of names, each with parameters of its own.

watch_names: ['blocked']
watches.blocked.question: 'Is the way ahead clear?'
watches.blocked.when: ['no']
"""

from __future__ import annotations

from dataclasses import MISSING
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_vlm_ros.core import BadRequestError
from edge_vlm_ros.nodes.declaring import SettingsError, expanded, filled, value_of
from edge_vlm_ros.nodes.watch_store import WatchStore
from edge_vlm_ros.watch import RANGES, WatchMode, WatchSpec, spec_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rclpy.node import Node

    from edge_vlm_ros.nodes.declaring import ParameterTable

_TEXTS = {
    'choices': 'Answers to choose from, two or more; empty: yes and no.',
    'when': 'Those of them that mean the event; empty: the first one.',
    'cameras': 'Cameras by name; empty: the first one.',
}
_NUMBERS = {
    'last_seconds': 's; frames from this long ago until now; 0: the newest frame only.',
    'max_frames': 'Frames at most, spread evenly in time; 0: as max_frames.',
    'max_age_s': 's; a look at an older newest frame is missed; 0: as max_age_s.',
    'period_s': 's; from one look to the next.',
    'begin_looks': 'The event begins when so many of the last begin_of looks say so.',
    'begin_of': 'At least begin_looks.',
    'end_looks': 'The event ends when so many of the last end_of looks say so.',
    'end_of': 'At least end_looks.',
    'cooldown_s': 's; from the end of an event on the next one cannot begin for so long.',
    'heartbeat_s': 's; while the event is on it is said again so often; 0: never.',
    'min_probability': 'A look of which the answer is less likely is unsure and no vote.',
    'look_anyway_s': 's; an unchanged scene is looked at again after so long.',
}


def declare_watches(table: ParameterTable) -> None:
    """Declare the parameters.

    Raises:
        SettingsError: What was given for one at the start does not fit.
    """
    table.declare(
        'watch_file',
        '',
        'Where watches that are set or removed by service are kept over a restart; ~ and $NAME '
        'are expanded; empty: nowhere.',
        read_only=True,
    )
    names = table.declare_names(
        'watch_names',
        [''],
        'Standing questions by name: what the robot speaks up about by itself.',
        'watches',
    )
    for name in names:
        _declare_watch(table, f'watches.{name}')


def _declare_watch(table: ParameterTable, prefix: str) -> None:
    table.declare(f'{prefix}.question', '', 'What is asked; must not be empty.', read_only=True)
    for field, text in _TEXTS.items():
        table.declare(f'{prefix}.{field}', [''], text, read_only=True)
    for field, text in _NUMBERS.items():
        low, high = RANGES[field]
        table.declare(
            f'{prefix}.{field}', _default(field), text, read_only=True, low=low, high=high
        )
    table.declare(
        f'{prefix}.every_look',
        value=False,
        description='There is no gate: each look asks the model, changed scene or not.',
        read_only=True,
    )
    table.declare(
        f'{prefix}.mode',
        'on',
        'on: it looks and speaks. muted: it looks and says nothing. off: it does not look.',
        read_only=True,
        choices=[mode.name.lower() for mode in WatchMode],
        false_is='off',
    )


def read_watches(node: Node) -> tuple[WatchSpec, ...]:
    """Read the watches that the parameters name.

    Raises:
        SettingsError: One makes no sense, or watches a camera that there is not.
    """
    cameras = filled(value_of(node, 'camera_names'))
    return tuple(_read(node, name, cameras) for name in filled(value_of(node, 'watch_names')))


def check_cameras(spec: WatchSpec, cameras: Sequence[str]) -> None:
    """Check that there are the cameras that a watch is about.

    Raises:
        BadRequestError: There are not.
    """
    unknown = [name for name in spec.cameras if name not in cameras]
    if unknown or not cameras:
        listed = ', '.join(cameras) or 'none'
        raise BadRequestError(f'no camera {(unknown or [""])[0]!r}; there are: {listed}')


def watch_store(node: Node) -> WatchStore:
    """Return where watches are kept over a restart."""
    path = value_of(node, 'watch_file')
    return WatchStore(Path(expanded(path)) if path else None)


def _read(node: Node, name: str, cameras: Sequence[str]) -> WatchSpec:
    fields: dict[str, Any] = {'name': name}
    for field in WatchSpec.__dataclass_fields__:
        if field != 'name':
            value = value_of(node, f'watches.{name}.{field}')
            fields[field] = filled(list(value)) if field in _TEXTS else value
    try:
        spec = spec_of(fields)
        check_cameras(spec, cameras)
    except BadRequestError as error:
        raise SettingsError(f'watches.{name}: {error.message}', f'watches.{name}') from error
    return spec


def _default(field: str) -> Any:
    default = WatchSpec.__dataclass_fields__[field].default
    assert default is not MISSING
    return default
