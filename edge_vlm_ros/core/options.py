"""Options that users give by name: each family and each engine has a type of its own for them.

An options type is a frozen dataclass below `Options`, each of its fields an `int`, a `float`, a
`bool`, a `str` or a `Literal` of texts. What a user may write is read off these types, so a new
option is a new field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

from edge_vlm_ros.core.errors import BadRequestError, ErrorCode

_LOW = 'low'
_WHOLE_NUMBER = re.compile(r'[+-]?[0-9]+')
_TRUTH = {'true': True, 'false': False}

OptionValue: TypeAlias = 'str | int | float | bool'


def count(default: int = 0, *, low: int = 0) -> Any:
    """Make a field of an options type: a whole number of at least `low`."""
    return field(default=default, metadata={_LOW: low})


@dataclass(frozen=True, slots=True)
class Options:
    """What may be chosen of something; this base has nothing to choose.

    Raises:
        BadRequestError: A value is of another kind than its field, or below its least.
    """

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for each in fields(self):
            _check(each.name, hints[each.name], getattr(self, each.name), each.metadata)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Name the options."""
        return tuple(each.name for each in fields(cls))


Kind = TypeVar('Kind', bound=Options)


def parse_option(text: str) -> tuple[str, str | int]:
    """Read an option as users write it, `name=value`; a whole number becomes one.

    Raises:
        BadRequestError: It has no name or no '='.
    """
    name, equals, value = text.partition('=')
    if not equals or not name:
        raise unsupported(f'{text!r} is not of the form name=value')
    return name, int(value) if _WHOLE_NUMBER.fullmatch(value) else value


def read_options(kind: type[Kind], values: Mapping[str, object], owner: str) -> Kind:
    """Make an options object of values by name.

    Args:
        kind: The options type.
        values: As `parse_option` gives them, or as Python users write them.
        owner: Whose options they are, for messages: 'chip cpu', 'family internvl'.

    Raises:
        BadRequestError: One is unknown, or has a value that cannot be.
    """
    known = kind.names()
    unknown = [name for name in values if name not in known]
    if unknown:
        raise unsupported(f'{owner} has no option {", ".join(unknown)}; {takes(owner, known)}')
    hints = get_type_hints(kind)
    return kind(**{name: _converted(hints[name], value) for name, value in values.items()})


def takes(owner: str, names: tuple[str, ...]) -> str:
    """Say which options something takes."""
    return f'{owner} takes {", ".join(names) or "none"}'


def unsupported(message: str) -> BadRequestError:
    """Return the error about an option that cannot be."""
    return BadRequestError(message, ErrorCode.UNSUPPORTED_OPTION)


def _converted(hint: Any, value: object) -> object:
    """Turn the text of a number or a truth into one, and a number into the text that is wanted."""
    if hint is bool and isinstance(value, str):
        return _TRUTH.get(value.lower(), value)
    if hint is float and isinstance(value, str | int) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            return value
    if hint is str and type(value) is int:
        return str(value)
    return value


def _check(name: str, hint: Any, value: object, limits: Mapping[str, Any]) -> None:
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            *others, last = get_args(hint)
            raise unsupported(f'{name} is {", ".join(others)} or {last}, not {value!r}')
        return
    low = limits.get(_LOW)
    # A bool is an int to Python, to nobody else.
    is_kind = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    if not is_kind or (low is not None and value < low):
        least = '' if low is None else f', {low} or more'
        raise unsupported(f'{name} is {_WORDS[hint]}{least}, not {value!r}')


_WORDS = {int: 'a whole number', float: 'a number', bool: 'true or false', str: 'a text'}
