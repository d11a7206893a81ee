"""What a watch is told to do, checked as a whole."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from edge_vlm_ros.core import NS_PER_S, YES_NO, BadRequestError, Question
from edge_vlm_ros.core.request_limits import check_camera_names, check_question, plain_text
from edge_vlm_ros.watch.words import WatchMode

MAX_WATCHES: Final = 64
MAX_NAME: Final = 64
"""Characters of a watch's name: it becomes part of a topic's."""

_NAME = re.compile(rf'[A-Za-z][A-Za-z0-9_]{{0,{MAX_NAME - 1}}}')

RANGES: Final[dict[str, tuple[float, float]]] = {
    'period_s': (0.1, 86400.0),
    'last_seconds': (0.0, 3600.0),
    'max_frames': (0, 256),
    'max_age_s': (0.0, 86400.0),
    'begin_looks': (1, 100),
    'begin_of': (1, 100),
    'end_looks': (1, 100),
    'end_of': (1, 100),
    'cooldown_s': (0.0, 86400.0),
    'heartbeat_s': (0.0, 86400.0),
    'min_probability': (0.0, 1.0),
    'look_anyway_s': (0.1, 86400.0),
}
"""What the numbers of a watch can be; the same as those of the parameters."""


@dataclass(frozen=True, slots=True)
class WatchSpec:
    """A standing question, and when its answers are an event; see `msg/WatchSpec.msg`.

    Attributes:
        name: A letter, then letters, digits and _.
        question: What is asked.
        choices: The answers to choose from, at least two.
        when: Those of them that mean the event; not all of them.
        cameras: By name; none = the first.
        last_seconds: Frames from this long ago until now; 0 = the newest alone.
        max_frames: 0 = as the owner says.
        max_age_s: A look at older frames is missed, seconds; 0 = as the owner says.
        period_s: From one look to the next, seconds.
        begin_looks: The event begins when so many ...
        begin_of: ... of the last so many looks say so.
        end_looks: The event ends when so many ...
        end_of: ... of the last so many looks say so.
        cooldown_s: From an end on the next event cannot begin for so long, seconds; 0 = it can.
        heartbeat_s: While it is on the event is said again so often, seconds; 0 = never.
        min_probability: A less likely answer is no vote.
        look_anyway_s: An unchanged scene is looked at after so long, seconds.
        every_look: There is no gate.
        mode: What the watch does.

    Raises:
        BadRequestError: A value makes no sense; says which.
    """

    name: str
    question: str
    choices: tuple[str, ...] = YES_NO
    when: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    last_seconds: float = 0.0
    max_frames: int = 0
    max_age_s: float = 0.0
    period_s: float = 1.0
    begin_looks: int = 2
    begin_of: int = 3
    end_looks: int = 2
    end_of: int = 3
    cooldown_s: float = 0.0
    heartbeat_s: float = 0.0
    min_probability: float = 0.0
    look_anyway_s: float = 30.0
    every_look: bool = False
    mode: WatchMode = WatchMode.ON

    def __post_init__(self) -> None:
        check_watch_name(self.name)
        check_question(Question(self.question, choices=self.choices))
        check_camera_names(self.cameras)
        if len(self.choices) < 2:
            raise BadRequestError(f'choices are two or more, not {len(self.choices)}')
        if not self.when:
            object.__setattr__(self, 'when', self.choices[:1])
        object.__setattr__(self, 'when', tuple(self._choice(each) for each in self.when))
        if set(self.when) == set(self.choices):
            raise BadRequestError('when is all choices: the event would be on for ever')
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:  # Not so for NaN either.
                raise BadRequestError(f'{name} is from {low:g} to {high:g}, not {value:g}')
        for what in ('begin', 'end'):
            looks, of = getattr(self, f'{what}_looks'), getattr(self, f'{what}_of')
            if looks > of:
                raise BadRequestError(f'{what}_looks is at most {what}_of ({of}), not {looks}')

    @property
    def period_ns(self) -> int:
        """From one look to the next, nanoseconds."""
        return round(self.period_s * NS_PER_S)

    def means_event(self, answer: str) -> bool:
        """Return whether an answer means the event."""
        return answer in self.when

    def _choice(self, text: str) -> str:
        """Return the choice that a text of `when` names."""
        for choice in self.choices:
            if plain_text(choice) == plain_text(text):
                return choice
        listed = ', '.join(map(repr, self.choices))
        raise BadRequestError(f'when names choices ({listed}), not {text!r}')


def check_watch_name(name: str) -> None:
    """Check that a name can be one of a watch.

    Raises:
        BadRequestError: It cannot.
    """
    if not _NAME.fullmatch(name):
        raise BadRequestError(
            f'name is a letter, then letters, digits and _, {MAX_NAME} at most, not {name[:100]!r}'
        )


def spec_of(fields: dict[str, Any]) -> WatchSpec:
    """Return a watch from fields in plain types (JSON, YAML, a command line).

    Fields that are left out, empty or 0 where that makes no sense, have their defaults.

    Raises:
        BadRequestError: A field is unknown, of another type, or makes no sense.
    """
    known = WatchSpec.__dataclass_fields__
    for name in fields:
        if name not in known:
            raise BadRequestError(f'a watch has no field {name!r}; it has {", ".join(known)}')
    given: dict[str, Any] = {}
    for name, value in fields.items():
        given[name] = _typed(name, value)
        low, _ = RANGES.get(name, (0, 0))
        if (low > 0 and given[name] == 0) or given[name] == ():
            del given[name]
    for name in ('name', 'question'):
        given.setdefault(name, '')
    return WatchSpec(**given)


def fields_of(spec: WatchSpec) -> dict[str, Any]:
    """Return a watch's fields in plain types; `spec_of` takes them back."""
    values = {name: getattr(spec, name) for name in WatchSpec.__dataclass_fields__}
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
    return {**plain, 'mode': spec.mode.name.lower()}


def mode_of(value: int | str) -> WatchMode:
    """Return a mode by its number or its name.

    Raises:
        BadRequestError: There is no such mode.
    """
    for mode in WatchMode:
        if value == mode.value or (isinstance(value, str) and value.lower() == mode.name.lower()):
            return mode
    listed = ', '.join(f'{mode.value} ({mode.name.lower()})' for mode in WatchMode)
    raise BadRequestError(f'mode is one of {listed}, not {value!r}')


def _typed(name: str, value: Any) -> Any:
    """Return a field's value in its type.

    Raises:
        BadRequestError: It is of another.
    """
    if name == 'mode':
        return mode_of(value)
    if name in {'choices', 'when', 'cameras'}:
        if isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value):
            return tuple(value)
        raise BadRequestError(f'{name} is a list of texts, not {value!r:.100}')
    if name in {'name', 'question'}:
        kind: Any = str
    elif name == 'every_look':
        kind = bool
    else:
        kind = int if isinstance(RANGES[name][0], int) else float
        if kind is float and type(value) is int:
            value = float(value)
    if type(value) is not kind:
        raise BadRequestError(f'{name} is of type {kind.__name__}, not {value!r:.100}')
    return value
