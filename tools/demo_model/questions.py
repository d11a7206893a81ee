"""Questions about scenes of the demo world, and their true answers.

`WORDINGS` are the wordings for training; others can be passed in, so the held-out ones live apart.
A dialogue is a list of (question, answer) turns. A question that would be a toss-up is not asked.
"""

from __future__ import annotations

import itertools
import random
import re
from typing import TYPE_CHECKING, Final

from tools.demo_model.outside import outside_question
from tools.demo_model.scenes import (
    CENTRE_GAP,
    COLOURS,
    SHAPES,
    clear_of_thirds,
    third,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tools.demo_model.scenes import Seen

    Wordings = Mapping[str, Sequence[str]]

Turn = tuple[str, str]
Dialogue = list[Turn]

KINDS: Final = (
    'describe',
    'count',
    'existence',
    'colour',
    'identity',
    'place',
    'relation',
    'nearest',
    'path',
    'motion',
    'follow-up',
    'absent',
    'outside',
)
STILL_KINDS: Final = tuple(k for k in KINDS if k != 'motion')

PLACES: Final = ('on the left', 'in the middle', 'on the right')
NUMBERS: Final = ('Zero.', 'One.', 'Two.', 'Three.')
PLURALS: Final = {'box': 'boxes', 'ball': 'balls', 'cone': 'cones'}
OUTSIDE: Final = 'I only know this little world of boxes, balls and cones.'
NEAREST_GAP_M: Final = 0.4
PATH_LIMIT_M: Final = 1.5
PATH_DOUBT_M: Final = 0.2

# {c} colour, {s} shape, {S} plural, {o} thing named by colour and shape or one of them, {d} side
WORDINGS: Final[Wordings] = {
    'describe': (
        'Describe what you see.',
        'What do you see?',
        'Tell me what you see.',
        'What is in front of you?',
        'Describe the scene.',
        'List all the objects.',
        'What can you see here?',
        'Describe the objects in front of you.',
        'Tell me what is here.',
        'What is in the picture?',
        'Describe this picture.',
        'What objects are there?',
        'List the things you see and where they are.',
        'What is there?',
        'Give me a description of the scene.',
        'Which things can you see, and where?',
        'Tell me everything you see.',
        'What things are in view?',
        'Say what you see and where.',
        'Describe all the things here.',
        'Describe the view.',
        'What does the camera see?',
    ),
    'count': (
        'How many objects are there?',
        'How many things do you see?',
        'Count the objects.',
        'What is the number of objects?',
        'How many objects can you see?',
        'Tell me how many things there are.',
        'How many things are in front of you?',
        'Count all the things here.',
        'How many objects are in the picture?',
        'Give me the number of things you see.',
        'How many objects stand on the floor?',
        'How many objects in all?',
        'Please count everything you see.',
        'How many things can you see?',
        'How many are there?',
        'How many objects do you see?',
        'How many things are in the picture?',
    ),
    'count_colour': (
        'How many are {c}?',
        'How many {c} objects are there?',
        'How many {c} things do you see?',
        'Count the {c} objects.',
        'What is the number of {c} objects?',
        'Tell me how many {c} things there are.',
        'How many of them are {c}?',
        'How many {c} objects can you see?',
        'How many things here are {c}?',
        'Count all {c} things.',
        'Give me the number of {c} things.',
        'How many {c} objects are in the picture?',
        'How many of the objects are {c}?',
        'How many {c} ones do you see?',
        'How many {c} ones are there?',
        'How many {c} things are in front of you?',
        'How many objects here are {c}?',
    ),
    'count_shape': (
        'How many {S}?',
        'How many {S} are there?',
        'How many {S} do you see?',
        'Count the {S}.',
        'What is the number of {S}?',
        'Tell me how many {S} there are.',
        'How many of the objects are {S}?',
        'How many {S} are in front of you?',
        'Count all {S} here.',
        'Give me the number of {S}.',
        'How many {S} are in the picture?',
        'How many {S} stand on the floor?',
        'How many of them are {S}?',
        'How many {S} does the picture show?',
        'Tell me the number of {S}.',
        'How many things are {S}?',
        'How many {S} in all?',
    ),
    'existence': (
        'Is there a {o}?',
        'Do you see a {o}?',
        'Can you see a {o}?',
        'Is a {o} in front of you?',
        'Is there a {o} here?',
        'Is there any {o} in the scene?',
        'Do you see any {o}?',
        'Is a {o} in the picture?',
        'Does the picture show a {o}?',
        'Is a {o} there?',
        'Tell me if there is a {o}.',
        'Can you find a {o}?',
        'Is one of the objects a {o}?',
        'Are you looking at a {o}?',
        'Is there one {o}?',
        'Is there a {o} in front of you?',
        'Can you see any {o}?',
        'Is there a {o} in the scene?',
    ),
    'existence_colour': (
        'Is there anything {c}?',
        'Do you see anything {c}?',
        'Is anything {c} here?',
        'Is there a {c} object?',
        'Can you see anything {c}?',
        'Do you see a {c} thing?',
        'Is any object {c}?',
        'Is something {c} in front of you?',
        'Is there any {c} thing in the picture?',
        'Can you find something {c}?',
        'Is one of the objects {c}?',
        'Tell me if anything is {c}.',
        'Can you see a {c} thing?',
        'Is there any {c} object here?',
        'Do you see something {c}?',
        'Is there anything {c} in the picture?',
    ),
    'colour': (
        'What color is the {s}?',
        'Which color is the {s}?',
        'What is the color of the {s}?',
        'Tell me the color of the {s}.',
        'The {s} is what color?',
        'What color does the {s} have?',
        'What colour is the {s}?',
        'What is the colour of the {s}?',
        'Name the color of the {s}.',
        'What color is the {s} in the picture?',
        'What color is the {s} in front of you?',
        'Say what color the {s} is.',
        'How is the {s} colored?',
        'Can you tell me the color of the {s}?',
        'Which color has the {s}?',
        'The {s} has which color?',
        'What is the color of the {s} here?',
        'Is the {s} red, green, blue, yellow, purple or white?',
    ),
    'identity': (
        'What is the {c} thing?',
        'What is the {c} object?',
        'What shape is the {c} thing?',
        'Which shape is the {c} object?',
        'Tell me what the {c} thing is.',
        'The {c} object is what?',
        'What kind of object is the {c} thing?',
        'What shape does the {c} object have?',
        'What is the shape of the {c} thing?',
        'Name the {c} object.',
        'Which object is {c}?',
        'What is the {c} thing in front of you?',
        'Say what the {c} object is.',
        'What is the thing that is {c}?',
        'Which shape has the {c} object?',
        'Tell me the shape of the {c} thing.',
        'Is the {c} thing a box, a ball or a cone?',
        'Say what shape the {c} thing is.',
    ),
    'place': (
        'Where is the {o}?',
        'Where do you see the {o}?',
        'In which part of the picture is the {o}?',
        'Tell me where the {o} is.',
        'On which side is the {o}?',
        'Where in the picture is the {o}?',
        'Where is the {o} now?',
        'Is the {o} on the left, in the middle or on the right?',
        'Say where the {o} is.',
        'Where does the {o} stand?',
        'Can you tell me where the {o} is?',
        'Where can I find the {o}?',
        'What is the position of the {o}?',
        'Where can the {o} be seen?',
        'On what side is the {o}?',
        'Which side is the {o} on?',
        'Where is the {o} in the picture?',
        'Do you know where the {o} is?',
    ),
    'relation': (
        'What is to the {d} of the {o}?',
        'Which object is to the {d} of the {o}?',
        'What do you see to the {d} of the {o}?',
        'Tell me what is {d} of the {o}.',
        'What is {d} of the {o}?',
        'What is on the {d} side of the {o}?',
        'What stands to the {d} of the {o}?',
        'Which thing is just {d} of the {o}?',
        'What is next to the {o} on the {d}?',
        'Name the object to the {d} of the {o}.',
        'What comes {d} of the {o}?',
        'Say what is to the {d} of the {o}.',
        'Which object do you see {d} of the {o}?',
        'What object is on the {d} of the {o}?',
        'What is there {d} of the {o}?',
        'What thing do you see {d} of the {o}?',
        'Which object comes next to the {d} of the {o}?',
    ),
    'nearest': (
        'Which object is closest?',
        'What is the closest object?',
        'Which thing is nearest?',
        'What is nearest to you?',
        'Tell me which object is closest.',
        'What is the nearest object?',
        'Which object is the closest to you?',
        'Name the nearest thing.',
        'What is closest to the camera?',
        'Which of the objects is nearest?',
        'Which object stands nearest to the robot?',
        'What do you see closest to you?',
        'Say which object is nearest.',
        'Which object is nearest to you?',
        'What is closest?',
        'Which thing is the closest one?',
        'What thing is nearest to the robot?',
        'Tell me the nearest object.',
    ),
    'path': (
        'Is the way ahead clear?',
        'Is the path clear?',
        'Can you go straight ahead?',
        'Can you drive forward?',
        'Is the way free?',
        'Is the path ahead free?',
        'Is the way in front of you clear?',
        'Is it safe to drive straight ahead?',
        'Can the robot move forward?',
        'Is the road ahead clear?',
        'Tell me if the way ahead is clear.',
        'Is there a clear path ahead?',
        'Could you drive on?',
        'Is the way forward open?',
        'Is the way to the front clear?',
        'Can you move straight forward?',
        'Is it clear straight ahead?',
        'Can you drive on straight?',
        'Is the road forward free?',
    ),
    'motion': (
        'What is moving?',
        'What moves?',
        'Is anything moving?',
        'Tell me what is moving.',
        'What do you see moving?',
        'Which thing is moving?',
        'Is something moving?',
        'What moved?',
        'Which object is moving, and how?',
        'How do things move?',
        'Describe the motion.',
        'What is in motion?',
        'Say what is moving and where to.',
        'What changed in the last seconds?',
        'What object is moving?',
        'Do you see anything move?',
        'Tell me what moves.',
        'Is there any motion?',
        'What was moving here?',
        'What thing moves, and where to?',
    ),
    'then_colour': (
        'And what color is it?',
        'What color is it?',
        'And its color?',
        'Which color is it?',
        'And which color is it?',
        'Tell me its color.',
        'And what colour is it?',
        'What is its color?',
        'And what color does it have?',
        'Say its color.',
        'And the color?',
        'What color does it have?',
        'And what is the color?',
        'And the color of it?',
        'Which color does it have?',
    ),
    'then_place': (
        'And where is it?',
        'Where is it?',
        'And on which side is it?',
        'Where do you see it?',
        'Tell me where it is.',
        'And its place?',
        'Where does it stand?',
        'And where does it stand?',
        'Say where it is.',
        'And in which part of the picture is it?',
        'Where is it now?',
        'And where can I find it?',
        'And on what side?',
        'Where can you see it?',
        'And where is it now?',
        'On what side is it?',
        'And which side is it on?',
    ),
}

_PREFIXES: Final = (
    'Please tell me: ',
    'Robot, ',
    'Tell me: ',
    'Hello. ',
    'Hey robot, ',
    'A question: ',
    'Now, ',
    'Look. ',
)


def name(thing: Seen) -> str:
    """Return the colour and shape of a thing."""
    return f'{thing.colour} {thing.shape}'


def describe(things: Sequence[Seen]) -> str:
    """Return the answer to a describe question."""
    if not things:
        return 'Nothing.'
    parts = [f'a {name(t)} {PLACES[third(t.cx)]}' for t in sorted(things, key=lambda t: t.cx)]
    text = parts[0] if len(parts) == 1 else f'{", ".join(parts[:-1])} and {parts[-1]}'
    return f'{text[0].upper()}{text[1:]}.'


def motion_answer(motion: str, mover: Seen | None) -> str:
    """Return the answer to a motion question."""
    if motion == 'none':
        return 'Nothing is moving.'
    if motion.startswith('turn'):
        return f'The camera is turning {motion[5:]}.'
    assert mover is not None
    return f'The {name(mover)} is moving {motion}.'


def roughen(rng: random.Random, question: str) -> str:
    """Return the question as people may also type it: lower case, no mark, a few words before."""
    if rng.random() < 0.12:
        prefix = rng.choice(_PREFIXES)
        question = prefix + (
            question if prefix[-2] in '.:' else question[0].lower() + question[1:]
        )
    if rng.random() < 0.10:
        question = question[0].lower() + question[1:]
    if rng.random() < 0.08:
        question = question.rstrip('?.')
    return question


class Asker:
    """Writes dialogues about scenes, each of one kind."""

    def __init__(
        self, rng: random.Random, wordings: Wordings = WORDINGS, *, rough: bool = True
    ) -> None:
        self.rng = rng
        self._wordings = wordings
        self._rough = rough

    def ask(self, things: Sequence[Seen], kind: str) -> Dialogue | None:
        """Return a dialogue of this kind, or None where the scene has no safe question."""
        if kind == 'outside':
            question = outside_question(self.rng)
            return [(roughen(self.rng, question) if self._rough else question, OUTSIDE)]
        maker = {
            'describe': self._describe,
            'count': self._count,
            'existence': self._existence,
            'colour': self._colour,
            'identity': self._identity,
            'place': self._place,
            'relation': self._relation,
            'nearest': self._nearest,
            'path': self._path,
            'follow-up': self._follow_up,
            'absent': self._absent,
        }[kind]
        return maker(things)

    def motion(self, motion: str, mover: Seen | None) -> Dialogue:
        """Return a dialogue about the motion of a clip."""
        return [(self.word('motion'), motion_answer(motion, mover))]

    def word(self, key: str, **slots: str) -> str:
        """Return a random wording with its slots filled."""
        question = self.rng.choice(self._wordings[key]).format(**slots)
        return roughen(self.rng, question) if self._rough else question

    def _describe(self, things: Sequence[Seen]) -> Dialogue | None:
        if not (_all_placed(things) and _all_spread(things)):
            return None
        return [(self.word('describe'), describe(things))]

    def _count(self, things: Sequence[Seen]) -> Dialogue:
        rng, part = self.rng, self.rng.random()
        if part < 0.4:
            return [(self.word('count'), NUMBERS[len(things)])]
        there = bool(things) and rng.random() < 0.7
        if part < 0.7:
            colour = rng.choice(things).colour if there else rng.choice(COLOURS)
            number = sum(t.colour == colour for t in things)
            return [(self.word('count_colour', c=colour), NUMBERS[number])]
        shape = rng.choice(things).shape if there else rng.choice(SHAPES)
        number = sum(t.shape == shape for t in things)
        return [(self.word('count_shape', S=PLURALS[shape]), NUMBERS[number])]

    def _existence(self, things: Sequence[Seen]) -> Dialogue:
        rng, part = self.rng, self.rng.random()
        there = bool(things) and rng.random() < 0.5
        if part < 0.2:
            colour = rng.choice(things).colour if there else rng.choice(COLOURS)
            found = any(t.colour == colour for t in things)
            return [(self.word('existence_colour', c=colour), 'Yes.' if found else 'No.')]
        if part < 0.4:
            shape = rng.choice(things).shape if there else rng.choice(SHAPES)
            found = any(t.shape == shape for t in things)
            return [(self.word('existence', o=shape), 'Yes.' if found else 'No.')]
        colour, shape = self._pair(things, there=there)
        found = any((t.colour, t.shape) == (colour, shape) for t in things)
        return [(self.word('existence', o=f'{colour} {shape}'), 'Yes.' if found else 'No.')]

    def _pair(self, things: Sequence[Seen], *, there: bool) -> tuple[str, str]:
        """Return a colour and a shape, those of a thing or a near miss."""
        rng = self.rng
        if there:
            thing = rng.choice(things)
            return thing.colour, thing.shape
        near = rng.random() if things else 1.0
        colour = rng.choice(things).colour if near < 0.45 else rng.choice(COLOURS)
        shape = rng.choice(things).shape if 0.35 < near < 0.8 else rng.choice(SHAPES)
        return colour, shape

    def _colour(self, things: Sequence[Seen]) -> Dialogue | None:
        lone = _lone_shapes(things)
        if not lone:
            return None
        thing = self.rng.choice(lone)
        return [(self.word('colour', s=thing.shape), f'{thing.colour.capitalize()}.')]

    def _identity(self, things: Sequence[Seen]) -> Dialogue | None:
        lone = _lone_colours(things)
        if not lone:
            return None
        thing = self.rng.choice(lone)
        return [(self.word('identity', c=thing.colour), f'A {thing.shape}.')]

    def _phrase(self, thing: Seen, things: Sequence[Seen]) -> str:
        """Return words that fit this thing only: mostly both, at times one of them."""
        pick = self.rng.random()
        if pick < 0.22 and thing in _lone_shapes(things):
            return thing.shape
        if pick > 0.85 and thing in _lone_colours(things):
            return f'{thing.colour} {self.rng.choice(("thing", "object"))}'
        return name(thing)

    def _place(self, things: Sequence[Seen]) -> Dialogue | None:
        placed = [t for t in things if clear_of_thirds(t.cx)]
        if not placed:
            return None
        thing = self.rng.choice(placed)
        answer = f'{PLACES[third(thing.cx)].capitalize()}.'
        return [(self.word('place', o=self._phrase(thing, things)), answer)]

    def _relation(self, things: Sequence[Seen]) -> Dialogue | None:
        if not things or not _all_spread(things):
            return None
        row = sorted(things, key=lambda t: t.cx)
        pairs = [(i, side) for i in range(len(row)) for side in (-1, 1)]
        inner = [(i, side) for i, side in pairs if 0 <= i + side < len(row)]
        i, side = self.rng.choice(inner if inner and self.rng.random() < 0.55 else pairs)
        there = 0 <= i + side < len(row)
        answer = f'A {name(row[i + side])}.' if there else 'Nothing.'
        words = {'d': 'right' if side > 0 else 'left', 'o': self._phrase(row[i], things)}
        return [(self.word('relation', **words), answer)]

    def _nearest(self, things: Sequence[Seen]) -> Dialogue | None:
        row = sorted(things, key=lambda t: t.distance)
        if not row:
            return [(self.word('nearest'), 'Nothing.')]
        if len(row) > 1 and row[1].distance - row[0].distance < NEAREST_GAP_M:
            return None
        return [(self.word('nearest'), f'The {name(row[0])}.')]

    def _path(self, things: Sequence[Seen]) -> Dialogue | None:
        known, blocker = path_truth(things)
        if not known:
            return None
        answer = f'No, a {name(blocker)} is in the way.' if blocker else 'Yes.'
        return [(self.word('path'), answer)]

    def _follow_up(self, things: Sequence[Seen]) -> Dialogue | None:
        kind = self.rng.choice(('place', 'nearest', 'identity'))
        first = self.ask(things, kind)
        if first is None or not things:
            return None
        question, answer = first[0]
        thing = _meant(things, question, answer)
        then = 'then_colour'
        if kind != 'place' and self.rng.random() < 0.7:
            then = 'then_place'
            if not clear_of_thirds(thing.cx):
                return None
        second = (
            f'{thing.colour.capitalize()}.'
            if then == 'then_colour'
            else f'{PLACES[third(thing.cx)].capitalize()}.'
        )
        return [*first, (self.word(then), second)]

    def _absent(self, things: Sequence[Seen]) -> Dialogue | None:
        rng = self.rng
        key = rng.choice(('colour', 'identity', 'place', 'place', 'relation'))
        shapes = [s for s in SHAPES if all(t.shape != s for t in things)]
        colours = [c for c in COLOURS if all(t.colour != c for t in things)]
        side = rng.choice(('left', 'right'))
        form = {'colour': 1.0, 'identity': 0.0}.get(key, rng.random())
        if form > 0.85:
            if not shapes:
                return None
            what = rng.choice(shapes)
            return [(self.word(key, s=what, o=what, d=side), f'There is no {what}.')]
        if form < 0.15:
            colour = rng.choice(colours)
            words = f'{colour} {rng.choice(("thing", "object"))}'
            answer = f'There is no {colour} thing.'
            return [(self.word(key, c=colour, o=words, d=side), answer)]
        colour, shape = self._pair(things, there=False)
        if any((t.colour, t.shape) == (colour, shape) for t in things):
            return None
        what = f'{colour} {shape}'
        return [(self.word(key, o=what, d=side), f'There is no {what}.')]


def path_truth(things: Sequence[Seen]) -> tuple[bool, Seen | None]:
    """Return whether the path question is no toss-up, and the nearest thing in the way."""
    if any(abs(t.distance - PATH_LIMIT_M) < PATH_DOUBT_M and third(t.cx) == 1 for t in things):
        return False, None
    if any(t.distance < PATH_LIMIT_M + PATH_DOUBT_M and not clear_of_thirds(t.cx) for t in things):
        return False, None
    inside = sorted(
        (t for t in things if third(t.cx) == 1 and t.distance < PATH_LIMIT_M),
        key=lambda t: t.distance,
    )
    if len(inside) > 1 and inside[1].distance - inside[0].distance < NEAREST_GAP_M:
        return False, None
    return True, inside[0] if inside else None


def _all_placed(things: Sequence[Seen]) -> bool:
    return all(clear_of_thirds(t.cx) for t in things)


def _all_spread(things: Sequence[Seen]) -> bool:
    row = sorted(t.cx for t in things)
    return all(b - a >= CENTRE_GAP for a, b in itertools.pairwise(row))


def _lone_shapes(things: Sequence[Seen]) -> list[Seen]:
    return [t for t in things if sum(u.shape == t.shape for u in things) == 1]


def _lone_colours(things: Sequence[Seen]) -> list[Seen]:
    return [t for t in things if sum(u.colour == t.colour for u in things) == 1]


def _meant(things: Sequence[Seen], question: str, answer: str) -> Seen:
    """Return the thing that a place, nearest or identity turn is about."""
    words = set(re.findall('[a-z]+', f'{question} {answer}'.lower()))

    def fit(thing: Seen) -> int:
        return (thing.colour in words) + (thing.shape in words)

    return max(things, key=fit)
