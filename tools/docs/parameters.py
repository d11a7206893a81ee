"""The generated parts of `doc/parameters.md`.

Parameters are declared on a real node and read back, so the page says what
`ros2 param describe` says. The chips' values come from `config/`, the launch arguments from the
launch files.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tools.docs.launch_file import LaunchArgument, read_arguments
from tools.docs.markdown import escape, table

if TYPE_CHECKING:
    from rclpy.node import Node

    from edge_vlm_ros.nodes.declaring import ParameterTable

_HEADER = ('parameter', 'default', 'takes', 'meaning')


@dataclass(frozen=True, slots=True)
class DeclaredParameter:
    """One parameter as it is declared.

    Attributes:
        name: With dots.
        default: Of its YAML type.
        bounds: What it takes beside its type, for people; '' = anything.
        is_fixed: True: it cannot be changed while the node runs.
        meaning: Its description.
    """

    name: str
    default: Any
    bounds: str
    is_fixed: bool
    meaning: str


def parts(root: Path) -> dict[str, str]:
    """Return the text of each marked place, by name. Needs rclpy.

    Args:
        root: The top folder of the tree.
    """
    from edge_vlm_ros.nodes import camera_node, web_parameters
    from edge_vlm_ros.nodes.parameters import declare_parameters

    one = declared('vlm', declare_parameters)
    many = declared('vlm', declare_parameters, camera_names=['camera', 'other'])
    watching = declared('vlm', declare_parameters, watch_names=['name'])
    watches = [replace(p, name=p.name.replace('.name.', '.<name>.')) for p in watching]
    own = [p for p in one if not p.name.startswith(('cameras.', 'presets.'))]
    presets = [p for p in one if p.name.startswith('presets.')]
    return {
        'fixed': _table(p for p in own if p.is_fixed),
        'changeable': _table(p for p in own if not p.is_fixed),
        'cameras': table(_HEADER, _camera_rows(one, many)),
        'presets': table(
            ('parameter', 'question'), [(f'`{p.name}`', escape(p.default)) for p in presets]
        ),
        'watches': _table(p for p in watches if p.name.startswith('watches.')),
        'chips': _chips(root / 'config', own),
        'launch': _launch(read_arguments(root / 'launch' / 'vlm.launch.py')),
        'demo_launch': _launch(read_arguments(root / 'launch' / 'demo.launch.py')),
        'camera_node': _table(declared('camera', camera_node.declare_parameters)),
        'web': _table(declared('vlm_web', web_parameters.declare_parameters)),
    }


def declared(
    node_name: str, declare: Callable[[ParameterTable], None], **overrides: Sequence[str]
) -> list[DeclaredParameter]:
    """Return the parameters that `declare` adds to a node, in that order; no `qos_overrides`.

    Args:
        node_name: Of the node that is made for it and gone afterwards.
        declare: Declares them.
        overrides: Values given from outside, as a parameter file would.
    """
    import rclpy
    from rclpy.parameter import Parameter

    from edge_vlm_ros.nodes.declaring import ParameterTable

    context = rclpy.Context()
    rclpy.init(context=context, args=[])
    try:
        with warnings.catch_warnings():
            # The message generator, imported with the first message, imports old modules.
            warnings.simplefilter('ignore', DeprecationWarning)
            node = rclpy.create_node(
                node_name,
                context=context,
                parameter_overrides=[Parameter(n, value=v) for n, v in overrides.items()],
            )
        present = set(node.get_parameters_by_prefix(''))
        declare(ParameterTable(node))
        added = [name for name in node.get_parameters_by_prefix('') if name not in present]
        names = [name for name in added if not name.startswith('qos_overrides.')]
        found = [_read(node, name) for name in names]
        node.destroy_node()
    finally:
        context.try_shutdown()
    return found


def _read(node: Node, name: str) -> DeclaredParameter:
    descriptor = node.describe_parameter(name)
    return DeclaredParameter(
        name=name,
        default=node.get_parameter(name).value,
        bounds=_bounds(descriptor),
        is_fixed=descriptor.read_only,
        meaning=descriptor.description,
    )


def _bounds(descriptor: Any) -> str:
    for span in (*descriptor.integer_range, *descriptor.floating_point_range):
        return f'{span.from_value:g} to {span.to_value:g}'.replace('e+0', 'e')
    return str(descriptor.additional_constraints).replace('One of: ', '')


def _table(parameters: Iterable[DeclaredParameter]) -> str:
    return table(_HEADER, [_row(p, p.name, _yaml(p.default), p.meaning) for p in parameters])


def _row(
    parameter: DeclaredParameter, name: str, default: str, meaning: str
) -> tuple[str, str, str, str]:
    return f'`{name}`', default, parameter.bounds, escape(meaning)


def _camera_rows(
    one: Sequence[DeclaredParameter], many: Sequence[DeclaredParameter]
) -> list[tuple[str, str, str, str]]:
    """Return the rows of one camera's parameters, its name written <name>."""
    prefix = 'cameras.camera.'
    of_many = {p.name: p.default for p in many}
    rows = []
    for parameter in one:
        if not parameter.name.startswith(prefix):
            continue
        default = _yaml(parameter.default)
        other = _yaml(of_many[parameter.name]).replace('camera', '<name>')
        if other != default:
            default = f'{default} for a single camera, else {other}'
        name = 'cameras.<name>.' + parameter.name.removeprefix(prefix)
        meaning = parameter.meaning.removeprefix('Camera "camera": ')
        rows.append(_row(parameter, name, default, meaning))
    return rows


def _chips(config: Path, own: Sequence[DeclaredParameter]) -> str:
    """Return what the file of each chip changes: a row a parameter, a column a chip."""
    files = {path.stem: read_parameter_file(path) for path in sorted(config.glob('*.yaml'))}
    chips = [name for name in files if name != 'vlm']
    changed = {name for chip in chips for name in files[chip]} - {'chip'}
    rows = []
    for parameter in own:
        if parameter.name in changed:
            values = [_yaml(files[chip].get(parameter.name, parameter.default)) for chip in chips]
            rows.append((f'`{parameter.name}`', *values))
    return table(('parameter', *(f'`{chip}`' for chip in chips)), rows)


def read_parameter_file(path: Path) -> Mapping[str, Any]:
    """Return the parameters of a file in `config/`, whatever the node is called."""
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding='utf-8'))
    parameters: dict[str, Any] = content['/**']['ros__parameters']
    return parameters


def _launch(arguments: Sequence[LaunchArgument]) -> str:
    rows = []
    for argument in arguments:
        default = {None: 'computed', '': 'empty'}.get(argument.default, f'`{argument.default}`')
        rows.append((f'`{argument.name}`', default, escape(argument.description)))
    return table(('argument', 'default', 'meaning'), rows)


def _yaml(value: Any) -> str:
    """Write a value as a YAML file would, as code; the empty text and list as 'empty'."""
    if value in ('', ['']):
        return 'empty'
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return '`' + text.removesuffix('\n').removesuffix('...').strip() + '`'
