"""What a page may say on its socket: JSON, read field by field, nothing taken on trust."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeAlias

from edge_vlm_ros.core import BadRequestError, ErrorCode
from edge_vlm_ros.web import bounds
from edge_vlm_ros.web.robot import Request


@dataclass(frozen=True, slots=True)
class Look:
    """The page looks at these cameras from now on, and at no others."""

    cameras: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """A question; `id` is the page's own name for it, the request's is made from it."""

    id: str
    request: Request


@dataclass(frozen=True, slots=True)
class Cancel:
    """End the question that the page calls so."""

    id: str


@dataclass(frozen=True, slots=True)
class Reset:
    """Forget a conversation."""

    session: str


PageMessage: TypeAlias = 'Look | Ask | Cancel | Reset'


def read(text: str, *, cameras: Collection[str], prefix: str) -> PageMessage:
    """Read one message.

    Args:
        text: As it came.
        cameras: Those there are; no other name is taken.
        prefix: What the request_ids of this page begin with.

    Raises:
        BadRequestError: It is none, or a field is out of its bounds.
    """
    fields = _Fields(_object(text), cameras)
    kind = fields.text('kind', bounds.MAX_NAME_CHARS)
    if kind == 'look':
        return Look(fields.cameras())
    if kind == 'cancel':
        return Cancel(fields.name('id'))
    if kind == 'reset':
        return Reset(fields.name('session'))
    if kind == 'ask':
        return _ask(fields, prefix)
    raise BadRequestError(f'there is no message of the kind {kind!r}')


def _ask(fields: _Fields, prefix: str) -> Ask:
    given = fields.name('id')
    question = fields.text('question', bounds.MAX_QUESTION_CHARS)
    if not question.strip():
        raise BadRequestError('the question is empty')
    request = Request(
        request_id=f'{prefix}-{given}',
        question=question,
        session_id=fields.text('session', bounds.MAX_NAME_CHARS),
        cameras=fields.cameras(),
        last_seconds=fields.number('last_seconds', bounds.MAX_LAST_SECONDS),
        max_frames=int(fields.number('max_frames', bounds.MAX_FRAMES)),
        choices=fields.texts('choices', bounds.MAX_CHOICES, bounds.MAX_CHOICE_CHARS),
        timeout_s=fields.number('timeout_s', bounds.MAX_TIMEOUT_S),
    )
    return Ask(given, request)


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadRequestError('a message is one JSON object')
    return found


class _Fields:
    """The fields of one message, each read as what it has to be."""

    def __init__(self, fields: dict[str, Any], cameras: Collection[str]) -> None:
        self._fields = fields
        self._cameras = cameras

    def text(self, name: str, most: int) -> str:
        """Return a text; '' where the field is missing."""
        return _text(name, self._fields.get(name, ''), most)

    def name(self, name: str) -> str:
        """Return a name, which must be there."""
        text = self.text(name, bounds.MAX_NAME_CHARS)
        if not text:
            raise BadRequestError(f'{name} is missing')
        return text

    def number(self, name: str, most: float) -> float:
        """Return a number from 0 to `most`; 0 where the field is missing."""
        value = self._fields.get(name, 0)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not 0 <= value <= most:
            raise BadRequestError(f'{name} is a number from 0 to {most:g}, not {value!r:.100}')
        return float(value)

    def texts(self, name: str, most: int, most_chars: int) -> tuple[str, ...]:
        """Return a list of texts; empty where the field is missing."""
        values = self._fields.get(name, [])
        if not isinstance(values, list):
            raise BadRequestError(f'{name} is a list of texts')
        if len(values) > most:
            raise BadRequestError(f'{name} has {len(values)} entries, the limit is {most}')
        return tuple(_text(name, value, most_chars) for value in values)

    def cameras(self) -> tuple[str, ...]:
        """Return names of cameras that there are."""
        names = self.texts('cameras', len(self._cameras), 256)
        unknown = [name for name in names if name not in self._cameras]
        if unknown:
            raise BadRequestError(f'no camera {unknown[0]!r:.100}', ErrorCode.UNKNOWN_CAMERA)
        return tuple(dict.fromkeys(names))


def _text(name: str, value: object, most: int) -> str:
    if not isinstance(value, str):
        raise BadRequestError(f'{name} is a text')
    if len(value) > most:
        raise BadRequestError(f'{name} has {len(value)} characters, the limit is {most}')
    # Lone surrogates, which JSON can write, are no text for ROS or a tokenizer.
    return value.encode('utf-8', 'replace').decode('utf-8')
