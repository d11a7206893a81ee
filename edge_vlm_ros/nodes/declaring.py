"""Parameters with what each one takes: declared, judged and converted by one rule, then read.

rclpy alone refuses `max_age_s: 2` with a traceback, because 2 is no double. Here a value is judged
before rclpy sees it, at the start and later alike: whole numbers are taken for numbers, a single
value for a list of one, and what does not fit is named with its value and with what would.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

if TYPE_CHECKING:
    from rclpy.node import Node

_NAME = re.compile(r'[A-Za-z][A-Za-z0-9_]*')
_SHOWN: Final = 100
"""Characters of a value that a message repeats."""

_KINDS: Final = {
    bool: 'true or false',
    int: 'a whole number',
    float: 'a number',
    str: 'a text',
}
_LISTS: Final = {
    int: ('a list of whole numbers', 'as [0, 1]'),
    str: ('a list of texts', "as ['a', 'b']"),
}


class SettingsError(ValueError):
    """A parameter's value makes no sense; the message names parameter and value.

    Args:
        message: For people.
        parameter: The one that is wrong; '' = several are, together.
    """

    def __init__(self, message: str, parameter: str = '') -> None:
        super().__init__(message)
        self.parameter = parameter


@dataclass(frozen=True, slots=True)
class Rule:
    """What one parameter takes.

    Attributes:
        name: With dots.
        default: Its type is the parameter's; that of a list is its first element's.
        low: Least number; None = any.
        high: Largest number; None = any.
        choices: The only texts that are taken; none = any.
        check: Says what else is wrong with a value, naming it; '' = nothing.
        is_fixed: It cannot be changed while the node runs.
        false_is: The text that a false means: YAML reads a bare `off` so; '' = none.
    """

    name: str
    default: Any
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    check: Callable[[Any], str] | None = None
    is_fixed: bool = False
    false_is: str = ''

    def taken(self, given: Any) -> Any:
        """Return a value in the parameter's own type.

        Args:
            given: As it came; None = an empty list, which has no type in a YAML file.

        Raises:
            SettingsError: It does not fit.
        """
        value = self._list(given) if isinstance(self.default, list) else self._one(given)
        problem = self.check(value) if self.check else ''
        if problem:
            raise SettingsError(f'{self.name}: {problem}', self.name)
        return value

    @property
    def takes(self) -> str:
        """What would be taken, for people."""
        if self.choices:
            return 'one of ' + ', '.join(self.choices)
        span = ''
        if self.low is not None and self.high is not None:
            span = f' from {_number(self.low)} to {_number(self.high)}'
        if isinstance(self.default, list):
            text, example = _LISTS[type(self.default[0])]
            return f'{text}{span}, {example}'
        return _KINDS[type(self.default)] + span

    def _refusal(self, given: str) -> SettingsError:
        return SettingsError(f'{self.name} takes {self.takes}, not {given}', self.name)

    def _one(self, given: Any) -> Any:
        if given is False and self.false_is:
            given = self.false_is
        value = _converted(given, type(self.default))
        if value is None or not self._fits(value):
            hint = ''
            if isinstance(self.default, str) and isinstance(given, (bool, int, float)):
                word = str(given).lower()
                hint = f" (in quotes it is a text: '{word}' in a file, \"'{word}'\" in a shell)"
            raise self._refusal(shown(given) + hint)
        return value

    def _list(self, given: Any) -> list[Any]:
        kind = type(self.default[0])
        items = list(given) if isinstance(given, (list, tuple, array)) else [given]
        if given is None or not items:
            if kind is not str:
                raise self._refusal('[]')
            return ['']  # A list parameter cannot be declared empty in every distribution.
        values = [_converted(item, kind) for item in items]
        if not all(value is not None and self._fits(value) for value in values):
            raise self._refusal(shown(given))
        return values

    def _fits(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        # Not-a-number is in no range.
        return self.low is None or self.high is None or bool(self.low <= value <= self.high)


class ParameterTable:
    """The parameters of a node, and the rule of each.

    Args:
        node: Whose. Values that were given for it at the start are taken when they are declared.

    Attributes:
        together: Judges all values together; called with what reads one by its name.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._given = _given_at_start(node)
        self._rules: dict[str, Rule] = {}
        self._groups: dict[str, tuple[str, tuple[str, ...]]] = {}
        self.together: Callable[[Callable[[str], Any]], None] | None = None

    def declare(  # noqa: PLR0913 - the parts of a ParameterDescriptor and of a Rule
        self,
        name: str,
        value: Any,
        description: str,
        *,
        read_only: bool = False,
        low: float | None = None,
        high: float | None = None,
        choices: Iterable[str] = (),
        check: Callable[[Any], str] | None = None,
        false_is: str = '',
    ) -> Any:
        """Declare one parameter; return its value.

        Args:
            name: With dots; neither it nor a part of it may be another's name: see `nested_names`.
            value: The default, of the parameter's type.
            description: For people.
            read_only: It cannot be changed while the node runs.
            low: Least number.
            high: Largest number.
            choices: The only texts that are taken.
            check: Says what else is wrong with a value, naming it; '' = nothing.
            false_is: The text that a false means; '' = none.

        Raises:
            SettingsError: What was given for it at the start does not fit.
        """
        rule = Rule(name, value, low, high, tuple(choices), check, read_only, false_is)
        value = rule.taken(self._given.get(name, value))
        self._rules[name] = rule
        descriptor = _descriptor(rule, description)
        self._node.declare_parameter(name, value, descriptor, ignore_override=True)
        return value

    def declare_names(self, name: str, default: list[str], description: str, group: str) -> Any:
        """Declare a list of names, each of which is part of other parameters' names.

        Args:
            name: Of the list.
            default: Names.
            description: For people.
            group: What the names of those others begin with: `<group>.<name>.`.

        Raises:
            SettingsError: One cannot be such a part, stands there twice, or `group` is given a
                value of its own, as it had in the first versions.
        """
        if group in self._given:
            names = self._given[group]
            names = names if isinstance(names, list) else [names]
            raise SettingsError(
                f'{group} is no parameter any more: write {name}: {shown(names)} '
                f'({group}.<name> and what is below it stay as they are)'
            )
        value = self.declare(name, default, description, read_only=True, check=_problem_of_names)
        names = filled(value)
        self._groups[group] = (name, tuple(names))
        return names

    def given(self, name: str) -> Any:
        """Return what was given for a parameter at the start, unjudged; None = nothing."""
        return self._given.get(name)

    def is_declared(self, name: str) -> bool:
        """Return whether there is a parameter of a name."""
        return self._node.has_parameter(name)

    def resolve_topic(self, topic: str) -> str:
        """Return a topic's full name, remapped."""
        return self._node.resolve_topic_name(topic)

    def value(self, name: str) -> Any:
        """Return a parameter's value, as it is now."""
        return value_of(self._node, name)

    def judge(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Return new values in their parameters' types; changes nothing.

        Args:
            changes: By name. Parameters that are not of this table are let through.

        Raises:
            SettingsError: One does not fit, or all values together would make no sense.
        """
        values = {}
        for name, given in changes.items():
            rule = self._rules.get(name)
            values[name] = given if rule is None else rule.taken(given)
        self.judge_together(values)
        return values

    def judge_together(self, changes: Mapping[str, Any]) -> None:
        """Judge all values, some of them changed.

        Raises:
            SettingsError: Together they make no sense.
        """

        def value(name: str) -> Any:
            return changes[name] if name in changes else self.value(name)

        if self.together is not None:
            self.together(value)

    def unknown(self, name: str) -> str:
        """Say that there is no parameter of a name, and which was meant, if any."""
        group, _, rest = name.partition('.')
        list_name, names = self._groups.get(group, ('', ()))
        member = rest.partition('.')[0]
        if list_name and member not in names:
            return f'{name} ({list_name} does not name {member!r})'
        found = get_close_matches(name, self._node.get_parameters_by_prefix(''), n=1)
        return f'{name} (is {found[0]} meant?)' if found else name

    def warn_of_unknown(self) -> None:
        """Name in the log, once, what was given at the start and is no parameter."""
        declared = self._node.get_parameters_by_prefix('')
        unknown = sorted(name for name in self._given if name not in declared)
        if unknown:
            names = ', '.join(map(self.unknown, unknown))
            self._node.get_logger().warning(f'parameters that do not exist are ignored: {names}')


def nested_names(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the pairs of names of which one holds the other: a YAML file cannot hold both.

    `ros2 param dump` writes dots as maps, and a key is either a value or a map.
    """
    known = set(names)
    pairs = []
    for name in sorted(known):
        parts = name.split('.')
        above = ('.'.join(parts[:count]) for count in range(1, len(parts)))
        pairs += [(prefix, name) for prefix in above if prefix in known]
    return pairs


def value_of(node: Node, name: str) -> Any:
    """Return a parameter's value, as it is now."""
    return node.get_parameter(name).value


def filled(texts: list[str]) -> list[str]:
    """Return the texts of a list that are not empty: [''] stands for the empty list."""
    return [text for text in texts if text]


def expanded(path: str) -> str:
    """Return a path with ~ and $NAME expanded."""
    return os.path.expandvars(os.path.expanduser(path))  # noqa: PTH111 - ~ first, $NAME after it


def shown(value: Any) -> str:
    """Write a value for a message of one line, cut where it is long."""
    if value is None:
        return 'nothing'
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(list(value) if isinstance(value, array) else value)
    return text if len(text) <= _SHOWN else f'{text[:_SHOWN]}...'


def one_line(error: BaseException) -> str:
    """Return an error of ROS or of ours on one line, without places in ROS's sources."""
    text = ' '.join(str(error).split())
    return re.sub(r',? at /\S+:\d+', '', text)


def _converted(given: Any, kind: type) -> Any:
    """Return a value as one of its kind; None = it is none."""
    if kind is float and type(given) is int:
        return float(given)
    return given if type(given) is kind else None


def _number(value: float) -> str:
    return f'{value:g}'.replace('e+0', 'e')


def _problem_of_names(names: list[str]) -> str:
    found = filled(names)
    for name in found:
        if not _NAME.fullmatch(name):
            hint = f'; a list is written {name.split(",")}' if ',' in name else ''
            return f'{name!r} is no name (a letter, then letters, digits and _){hint}'
    if len(set(found)) != len(found):
        return f'a name stands there twice: {", ".join(found)}'
    return ''


def _descriptor(rule: Rule, description: str) -> ParameterDescriptor:
    choices = 'One of: ' + ', '.join(rule.choices) if rule.choices else ''
    descriptor = ParameterDescriptor(
        description=description, read_only=rule.is_fixed, additional_constraints=choices
    )
    if rule.low is not None and rule.high is not None:
        if isinstance(rule.default, float):
            span = FloatingPointRange(from_value=rule.low, to_value=rule.high)
            descriptor.floating_point_range = [span]
        else:
            bounds = IntegerRange(from_value=int(rule.low), to_value=int(rule.high), step=1)
            descriptor.integer_range = [bounds]
    return descriptor


def _given_at_start(node: Node) -> dict[str, Any]:
    """Return the values of parameter files, command line and constructor, by name.

    rclpy has no public way to ask for them before they are declared; in all distributions they are
    here. Without them rclpy judges alone.
    """
    overrides = getattr(node, '_parameter_overrides', {})
    return {name: parameter.value for name, parameter in overrides.items()}
