"""What a description can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from launch import LaunchContext, LaunchDescription
from launch._description import Entity
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import Substitution
from launch.utilities import normalize_to_list_of_substitutions, perform_substitutions


class DeclareLaunchArgument:
    """An argument of the launch file.

    Raises:
        RuntimeError: The default is not one of the choices, or there are none.
    """

    def __init__(
        self,
        name: str,
        *,
        default_value: str | Substitution | None = None,
        description: str | None = None,
        choices: list[str] | None = None,
    ) -> None:
        if choices is not None and not choices:
            raise RuntimeError(f'argument {name}: choices are empty')
        if choices is not None and isinstance(default_value, str) and default_value not in choices:
            raise RuntimeError(f'argument {name}: {default_value!r} is not one of {choices}')
        self.name = name
        self.description = description or ''
        self.choices = choices
        self.default_value = (
            None if default_value is None else normalize_to_list_of_substitutions(default_value)
        )

    def execute(self, context: LaunchContext) -> None:
        """Set the default where nothing was given.

        Raises:
            RuntimeError: There is neither, or the value is not one of the choices.
        """
        if self.name not in context.launch_configurations:
            if self.default_value is None:
                raise RuntimeError(f'argument {self.name} was not given')
            default = perform_substitutions(context, self.default_value)
            context.launch_configurations[self.name] = default
        value = context.launch_configurations[self.name]
        if self.choices is not None and value not in self.choices:
            raise RuntimeError(f'argument {self.name}: {value!r} is not one of {self.choices}')


class SetEnvironmentVariable:
    """A variable for the processes that are started after it."""

    def __init__(self, name: str | Substitution, value: str | Substitution) -> None:
        self.name = normalize_to_list_of_substitutions(name)
        self.value = normalize_to_list_of_substitutions(value)

    def execute(self, context: LaunchContext) -> None:
        """Set it."""
        name = perform_substitutions(context, self.name)
        context.environment[name] = perform_substitutions(context, self.value)


class OpaqueFunction:
    """A function that makes actions once the arguments have values."""

    def __init__(self, *, function: Callable[[LaunchContext], Sequence[Entity] | None]) -> None:
        self._function = function

    def execute(self, context: LaunchContext) -> Sequence[Entity] | None:
        """Call it."""
        return self._function(context)


class IncludeLaunchDescription:
    """Another launch file, in its place; it sees the same values."""

    def __init__(self, launch_description_source: PythonLaunchDescriptionSource) -> None:
        self._source = launch_description_source

    def description(self) -> LaunchDescription:
        """Return what it includes."""
        return self._source.description()

    def execute(self, context: LaunchContext) -> Sequence[Entity]:
        """Return what it includes."""
        return self.description().entities
