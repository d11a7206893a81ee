"""The kinds of requests of a soak, and which ends each may come to."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Final

from edge_vlm_ros.action import Ask as AskAction  # noqa: TID251 (a ROS client, as users write them)
from edge_vlm_ros.srv import Ask, Describe  # noqa: TID251

from edge_vlm_ros.core import ErrorCode
from tools.soak.robot import COMPRESSED, RAW, damaged, grey, jpeg

CAMERAS: Final = (*RAW, *COMPRESSED)
SESSIONS: Final = 6
GOOD = ErrorCode.NONE

_FRAMES = {ErrorCode.STALE_FRAME, ErrorCode.NO_FRAME, ErrorCode.BAD_IMAGE}
"""Ends of a question about a camera that pauses or sends damage."""
_CROWD = {ErrorCode.BUSY}
_DEATH = {ErrorCode.ENGINE_DIED, ErrorCode.DEVICE}
_FIELDS: Final[dict[str, dict[str, Any]]] = {
    'empty': {'question': ' '},
    'unknown camera': {'cameras': ['nose']},
    'not a number': {'temperature': float('nan')},
    'negative time': {'timeout_s': -1.0},
    'too long': {'question': 'why ' * 40_000},
    'many choices': {'choices': ['yes'] * 300},
    'odd priority': {'priority': 77},
}


@dataclass(frozen=True, slots=True)
class Wish:
    """A request that is to be made.

    Attributes:
        kind: For the report.
        fields: Of the request.
        ends: Codes it may end with.
        over: 'ask' or 'describe' (services), or 'action'.
        cancel_after_s: When it is taken back; 0 = never.
        is_checked: Whether a good answer tells means, which are compared with its frames.
    """

    kind: str
    fields: dict[str, Any]
    ends: frozenset[ErrorCode]
    over: str = 'ask'
    cancel_after_s: float = 0.0
    is_checked: bool = False

    def message(self) -> Any:
        """Make the ROS request or goal."""
        kinds = {'ask': Ask.Request, 'describe': Describe.Request, 'action': AskAction.Goal}
        return kinds[self.over](**self.fields)


@dataclass(slots=True)
class Draw:
    """Draws requests.

    Attributes:
        random: Decides.
        weights: Of each kind.
    """

    random: random.Random
    weights: dict[str, float] = field(
        default_factory=lambda: {
            'still': 20,
            'clip': 12,
            'session': 12,
            'choices': 6,
            'images': 8,
            'bad image': 3,
            'deadline': 6,
            'cancel': 8,
            'action': 8,
            'action cancel': 5,
            'describe': 5,
            'bad field': 7,
            'engine error': 4,
        }
    )

    def next(self) -> Wish:
        """Draw one."""
        (kind,) = self.random.choices(list(self.weights), list(self.weights.values()))
        return self.of_kind(kind)

    def of_kind(self, kind: str) -> Wish:
        """Draw one of a kind."""
        made: Wish = getattr(self, f'_{kind.replace(" ", "_")}')()
        return made

    def poison(self, question: str) -> Wish:
        """Make a question that the engine dies of, or hangs at."""
        return Wish(question, {'question': question, **self._image()}, _ends(_CROWD | _DEATH))

    def _still(self) -> Wish:
        fields = {'question': 'What is it?', 'cameras': [self._camera()], **self._priority()}
        return Wish('still', fields, _ends(_FRAMES | _CROWD, good=True), is_checked=True)

    def _clip(self) -> Wish:
        fields = {
            'question': 'What moves?',
            'cameras': self.random.sample(CAMERAS, self.random.randint(1, 4)),
            'last_seconds': self.random.choice([0.5, 1.0, 2.0]),
            'max_frames': self.random.randint(2, 6),
        }
        return Wish('clip', fields, _ends(_FRAMES | _CROWD, good=True), is_checked=True)

    def _session(self) -> Wish:
        fields = {
            'question': 'And now?',
            'session_id': f's{self.random.randrange(SESSIONS)}',
            'cameras': [self._camera()],
        }
        ends = _FRAMES | _CROWD | {ErrorCode.UNKNOWN_SESSION}
        return Wish('session', fields, _ends(ends, good=True), is_checked=True)

    def _choices(self) -> Wish:
        fields = {'question': 'choose', 'choices': ['yes', 'no'], 'cameras': [self._camera()]}
        return Wish('choices', fields, _ends(_FRAMES | _CROWD, good=True))

    def _images(self) -> Wish:
        fields = {'question': 'What is it?', **self._image(self.random.randint(1, 3))}
        return Wish('images', fields, _ends(_CROWD, good=True), is_checked=True)

    def _bad_image(self) -> Wish:
        image = jpeg('', self.random.randrange(2**60))
        fields = {'question': 'What?', 'compressed_images': [damaged(image, self.random)]}
        return Wish('bad image', fields, _ends(_CROWD | {ErrorCode.BAD_IMAGE}))

    def _deadline(self) -> Wish:
        timeout_s = self.random.uniform(0.01, 0.2)
        fields = {'question': 'long', 'cameras': [self._camera()], 'timeout_s': timeout_s}
        return Wish('deadline', fields, _ends(_FRAMES | _CROWD | {ErrorCode.DEADLINE}))

    def _cancel(self) -> Wish:
        fields = {'question': 'long', 'cameras': [self._camera()]}
        ends = _ends(_FRAMES | _CROWD | {ErrorCode.CANCELLED})
        return Wish('cancel', fields, ends, cancel_after_s=self.random.uniform(0.001, 0.15))

    def _action(self) -> Wish:
        fields = {'question': 'What is it?', 'cameras': [self._camera()], **self._priority()}
        ends = _ends(_FRAMES | _CROWD, good=True)
        return Wish('action', fields, ends, 'action', is_checked=True)

    def _action_cancel(self) -> Wish:
        fields = {'question': 'long', 'cameras': [self._camera()]}
        ends = _ends(_FRAMES | _CROWD | {ErrorCode.CANCELLED})
        after_s = self.random.uniform(0.001, 0.15)
        return Wish('action cancel', fields, ends, 'action', after_s)

    def _describe(self) -> Wish:
        ends = _ends(_FRAMES | _CROWD, good=True)
        fields = {'cameras': [self._camera()]}
        return Wish('describe', fields, ends, 'describe', is_checked=True)

    def _bad_field(self) -> Wish:
        name = self.random.choice(list(_FIELDS))
        fields = {'question': 'What is it?', 'cameras': [self._camera()], **_FIELDS[name]}
        ends = _CROWD | {ErrorCode.BAD_REQUEST, ErrorCode.UNKNOWN_CAMERA}
        return Wish(f'bad field: {name}', fields, _ends(ends))

    def _engine_error(self) -> Wish:
        question = self.random.choice(['error in prefill', 'error in decode'])
        fields = {'question': question, 'cameras': [self._camera()]}
        return Wish(question, fields, _ends(_FRAMES | _CROWD | {ErrorCode.DEVICE}))

    def _camera(self) -> str:
        return self.random.choice(CAMERAS)

    def _priority(self) -> dict[str, int]:
        return {'priority': self.random.choice([-1, 0, 0, 0, 1])}

    def _image(self, number: int = 1) -> dict[str, Any]:
        stamps = [self.random.randrange(2**60) for _ in range(number)]
        if self.random.random() < 0.5:
            return {'images': [grey('', stamp) for stamp in stamps]}
        return {'compressed_images': [jpeg('', stamp) for stamp in stamps]}


def _ends(codes: set[ErrorCode], *, good: bool = False) -> frozenset[ErrorCode]:
    return frozenset(codes | ({GOOD} if good else set()))


DEATHS: Final = frozenset(_DEATH)
