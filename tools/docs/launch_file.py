"""Read the arguments of a launch file from its source; `launch` itself is not needed."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LaunchArgument:
    """One argument.

    Attributes:
        name: As in `name:=value`.
        default: Where it is a literal; None = it is computed.
        description: As `--show-args` gives it.
    """

    name: str
    default: str | None
    description: str


def read_arguments(path: Path) -> list[LaunchArgument]:
    """Return the arguments that a launch file declares, in its order.

    Raises:
        ValueError: A name or a description is not a literal.
    """
    tree = ast.parse(path.read_text(encoding='utf-8'), str(path))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    calls = [c for c in calls if ast.unparse(c.func).endswith('DeclareLaunchArgument')]
    calls.sort(key=lambda call: call.lineno)
    return [_read(call) for call in calls]


def _read(call: ast.Call) -> LaunchArgument:
    words = {keyword.arg: keyword.value for keyword in call.keywords}
    default = words.get('default_value')
    return LaunchArgument(
        name=str(ast.literal_eval(call.args[0])),
        default=str(default.value) if isinstance(default, ast.Constant) else None,
        description=str(ast.literal_eval(words['description'])),
    )
