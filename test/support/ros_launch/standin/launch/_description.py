"""Descriptions, and what they are carried out with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from launch.actions import DeclareLaunchArgument


class LaunchContext:
    """The values that actions set and substitutions look up."""

    def __init__(self) -> None:
        self.launch_configurations: dict[str, str] = {}
        self.environment: dict[str, str] = {}


class Entity(Protocol):
    """What a description is made of."""

    def execute(self, context: LaunchContext) -> Sequence[Entity] | None:
        """Carry it out; return what comes of it, in order."""


class LaunchDescription:
    """What is launched, in order."""

    def __init__(self, initial_entities: Iterable[Entity] | None = None) -> None:
        self.entities: list[Entity] = list(initial_entities or ())

    def execute(self, context: LaunchContext) -> Sequence[Entity]:
        """Return what it is made of."""
        return self.entities

    def get_launch_arguments(self) -> list[DeclareLaunchArgument]:
        """Return its arguments and those of the files that it includes; of two the first."""
        from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription

        found: dict[str, DeclareLaunchArgument] = {}
        for entity in self.entities:
            if isinstance(entity, DeclareLaunchArgument):
                found.setdefault(entity.name, entity)
            elif isinstance(entity, IncludeLaunchDescription):
                for argument in entity.description().get_launch_arguments():
                    found.setdefault(argument.name, argument)
        return list(found.values())
