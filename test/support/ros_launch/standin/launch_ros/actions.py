"""Nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from launch.substitutions import Substitution
from launch.utilities import normalize_to_list_of_substitutions, perform_substitutions

from launch import LaunchContext
from launch_ros.parameter_descriptions import ParameterValue


class Node:
    """A process with a node.

    Args:
        package: Whose executable it is.
        executable: In the package's folder of lib/.
        name: Of the node.
        namespace: Relative to the root; '' = the root.
        output: 'screen' or 'log'.
        respawn: Whether it is started again when it ends.
        respawn_delay: s until then; None = at once.
        parameters: Paths of YAML files and mappings; later ones win.
        arguments: Passed on before those that follow from the others.
    """

    def __init__(  # noqa: PLR0913, as in the real one
        self,
        *,
        package: str,
        executable: str,
        name: str | None = None,
        namespace: str | Substitution = '',
        output: str = 'log',
        respawn: bool = False,
        respawn_delay: float | None = None,
        parameters: Sequence[str | Mapping[str, Any]] = (),
        arguments: Sequence[str] = (),
    ) -> None:
        assert output in {'screen', 'log'}, output
        self.respawn, self.respawn_delay = respawn, respawn_delay
        self.package, self.executable, self.name = package, executable, name
        self.namespace = normalize_to_list_of_substitutions(namespace)
        self.parameters, self.arguments = parameters, arguments

    def execute(self, context: LaunchContext) -> None:
        """Nothing: who carries out the description starts the process."""

    def command_line(self, context: LaunchContext, folder: Path) -> list[str]:
        """Return the words after the executable, as the real one passes them.

        Args:
            context: Gives the values.
            folder: For the files into which mappings of parameters are written.
        """
        words = [*self.arguments, '--ros-args']
        if self.name is not None:
            words += ['-r', f'__node:={self.name}']
        namespace = perform_substitutions(context, self.namespace)
        words += ['-r', f'__ns:=/{namespace.lstrip("/")}']
        for index, given in enumerate(self.parameters):
            path = Path(given) if isinstance(given, str) else folder / f'{self.name}-{index}.yaml'
            if not isinstance(given, str):
                values = {key: _evaluated(value, context) for key, value in given.items()}
                path.write_text(yaml.safe_dump({'/**': {'ros__parameters': values}}))
            words += ['--params-file', str(path)]
        return words


def _evaluated(value: object, context: LaunchContext) -> object:
    return value.evaluate(context) if isinstance(value, ParameterValue) else value
