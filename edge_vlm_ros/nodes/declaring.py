"""Declare a parameter with its description and bounds, and read its value."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

if TYPE_CHECKING:
    from rclpy.node import Node

_NAME = re.compile(r'[A-Za-z][A-Za-z0-9_]*')


class SettingsError(ValueError):
    """A parameter's value makes no sense; the message names parameter and value."""


def declare(  # noqa: PLR0913 - the parts of a ParameterDescriptor
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
    """Declare one parameter; `low` and `high` are bounds that ROS itself holds."""
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


def value_of(node: Node, name: str) -> Any:
    """Return a parameter's value, as it is now."""
    return node.get_parameter(name).value


def filled(texts: list[str]) -> list[str]:
    """Return the texts of a list that are not empty."""
    # A list parameter cannot be declared empty in every distribution: [''] stands for it.
    return [text for text in texts if text]


def choices(values: Iterable[str]) -> str:
    """Say in a descriptor what a parameter may be."""
    return 'One of: ' + ', '.join(values)


def one_of(name: str, value: str, values: tuple[str, ...]) -> str:
    """Check that a parameter's value is one of these, and return it.

    Raises:
        SettingsError: It is not.
    """
    if value not in values:
        raise SettingsError(f'{name} is one of {", ".join(values)}, not {value!r}')
    return value


def declare_names(node: Node, parameter: str, default: list[str], description: str) -> list[str]:
    """Declare a list of names, and return it; each may be part of a parameter's name.

    Raises:
        SettingsError: One cannot, or stands there twice.
    """
    declare(node, parameter, default, description, read_only=True)
    names = filled(value_of(node, parameter))
    for name in names:
        if not _NAME.fullmatch(name):
            raise SettingsError(
                f'{parameter}: {name!r} is no name (a letter, then letters, digits and _)'
            )
    if len(set(names)) != len(names):
        raise SettingsError(f'{parameter}: a name stands there twice: {", ".join(names)}')
    return names
