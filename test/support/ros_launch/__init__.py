"""ROS 2's launch, which is not on PyPI: the real one where there is one, else a stand-in.

The stand-in can also carry a launch file out: not start it, but say which processes it starts.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from support.environment import Changes

STAND_IN: Final = Path(__file__).parent / 'standin'
_PACKAGES: Final = ('launch', 'launch_ros')


@dataclass(frozen=True)
class LaunchedNode:
    """A process that a launch file starts.

    Attributes:
        package: Whose executable it is.
        executable: Its name there.
        arguments: The words after it.
        environment: What the launch file changes in its environment.
        respawn_s: After how long it is started again when it ends; None = never.
    """

    package: str
    executable: str
    arguments: list[str]
    environment: Changes
    respawn_s: float | None


def is_installed() -> bool:
    """Return whether ROS's own launch can be imported.

    The name `launch` alone says nothing: our folder of launch files looks like a package of it.
    """
    try:
        return importlib.util.find_spec('launch_ros.actions') is not None
    except ModuleNotFoundError:
        return False


@contextmanager
def stand_in() -> Iterator[None]:
    """Make the stand-in importable as `launch` and `launch_ros` until the end of the block."""
    hidden = _take_out()
    sys.path.insert(0, str(STAND_IN))
    try:
        yield
    finally:
        sys.path.remove(str(STAND_IN))
        _take_out()
        sys.modules.update(hidden)


def _take_out() -> dict[str, Any]:
    names = [name for name in sys.modules if name.partition('.')[0] in _PACKAGES]
    return {name: sys.modules.pop(name) for name in names}


def carry_out(path: Path, values: Mapping[str, str], folder: Path) -> list[LaunchedNode]:
    """Return the nodes that a launch file starts, in order.

    Args:
        path: The launch file.
        values: Of its arguments, as after `ros2 launch`.
        folder: For files of parameters.

    Raises:
        RuntimeError: A value is missing or not one of the choices.
    """
    with stand_in():
        # By name: to a type checker `launch` is the folder of launch files.
        sources = importlib.import_module('launch.launch_description_sources')
        node_type = importlib.import_module('launch_ros.actions').Node
        context = importlib.import_module('launch').LaunchContext()
        context.launch_configurations.update(values)
        started = []
        left: list[Any] = [sources.PythonLaunchDescriptionSource(str(path)).description()]
        while left:
            entity = left.pop(0)
            left[:0] = entity.execute(context) or ()
            if isinstance(entity, node_type):
                words = entity.command_line(context, folder)
                changes = dict(context.environment)
                respawn_s = (entity.respawn_delay or 0.0) if entity.respawn else None
                started.append(
                    LaunchedNode(entity.package, entity.executable, words, changes, respawn_s)
                )
    return started
