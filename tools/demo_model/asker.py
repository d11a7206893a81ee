"""Asks about scenes of the demo world: dialogues with their true answers.

A dialogue is a list of (question, answer) turns. A question that would be a toss-up is not asked.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from edge_vlm_ros.demo import world
from edge_vlm_ros.demo.world import COLOURS, SHAPES, Colour, Shape
from tools.demo_model.outside import outside_question
from tools.demo_model.scenes import Seen
from tools.demo_model.truths import (
    NEAREST_GAP_M,
    are_in_order,
    are_placed,
    describe,
    lone_colours,
    lone_shapes,
    meant,
    motion_answer,
    name,
    path_truth,
)
from tools.demo_model.wordings import NUMBERS, OUTSIDE, PLURALS, PREFIXES, WORDINGS, Wordings

Turn = tuple[str, str]
Dialogue = list[Turn]

STILL_KINDS: Final = (
    'describe',
    'count',
    'existence',
    'colour',
    'identity',
    'place',
    'relation',
    'nearest',
    'path',
    'follow-up',
    'absent',
    'outside',
)
"""What can be asked of one frame; of a clip, what moves in it (`Asker.motion`)."""


def roughen(rng: random.Random, question: str) -> str:
    """Return the question as people may also type it: lower case, no mark, a few words before."""
    if rng.random() < 0.12:
        prefix = rng.choice(PREFIXES)
        question = prefix + (
            question if prefix[-2] in '.:' else question[0].lower() + question[1:]
        )
    if rng.random() < 0.10:
        question = question[0].lower() + question[1:]
    if rng.random() < 0.08:
        question = question.rstrip('?.')
    return question


class Asker:
    """Writes dialogues about scenes, each of one kind.

    Args:
        rng: Draws what is asked; the same state gives the same dialogues.
        wordings: Ways to ask, by kind; the held-out ones live apart (heldout.py).
        rough: Whether to ask as people type: `roughen`.
    """

    def __init__(
        self, rng: random.Random, wordings: Wordings = WORDINGS, *, rough: bool = True
    ) -> None:
        self.rng = rng
        self._wordings = wordings
        self._rough = rough
        self._makers: Mapping[str, Callable[[Sequence[Seen]], Dialogue | None]] = {
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
            'outside': self._outside,
        }

    def ask(self, things: Sequence[Seen], kind: str) -> Dialogue | None:
        """Return a dialogue of a kind of STILL_KINDS, or None where each would be a toss-up."""
        return self._makers[kind](things)

    def outside_question(self) -> str:
        """Return a question about anything but the world, as it is asked."""
        question = outside_question(self.rng)
        return roughen(self.rng, question) if self._rough else question

    def motion(self, motion: str, mover: Seen | None) -> Dialogue:
        """Return a dialogue about the motion of a clip."""
        return [(self.word('motion'), motion_answer(motion, mover))]

    def word(self, key: str, **slots: str) -> str:
        """Return a random wording with its slots filled."""
        question = self.rng.choice(self._wordings[key]).format(**slots)
        return roughen(self.rng, question) if self._rough else question

    def _describe(self, things: Sequence[Seen]) -> Dialogue | None:
        if not (are_placed(things) and are_in_order(things)):
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

    def _pair(self, things: Sequence[Seen], *, there: bool) -> tuple[Colour, Shape]:
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
        lone = lone_shapes(things)
        if not lone:
            return None
        thing = self.rng.choice(lone)
        return [(self.word('colour', s=thing.shape), f'{thing.colour.capitalize()}.')]

    def _identity(self, things: Sequence[Seen]) -> Dialogue | None:
        lone = lone_colours(things)
        if not lone:
            return None
        thing = self.rng.choice(lone)
        return [(self.word('identity', c=thing.colour), f'A {thing.shape}.')]

    def _phrase(self, thing: Seen, things: Sequence[Seen]) -> str:
        """Return words that fit this thing only: mostly both, at times one of them."""
        pick = self.rng.random()
        if pick < 0.22 and thing in lone_shapes(things):
            return thing.shape
        if pick > 0.85 and thing in lone_colours(things):
            return f'{thing.colour} {self.rng.choice(("thing", "object"))}'
        return name(thing)

    def _place(self, things: Sequence[Seen]) -> Dialogue | None:
        placed = [t for t in things if world.is_clear_of_borders(t.cx)]
        if not placed:
            return None
        thing = self.rng.choice(placed)
        answer = f'{world.place(thing.cx).capitalize()}.'
        return [(self.word('place', o=self._phrase(thing, things)), answer)]

    def _relation(self, things: Sequence[Seen]) -> Dialogue | None:
        if not things or not are_in_order(things):
            return None
        row = sorted(things, key=lambda t: t.cx)
        pairs = [(i, side) for i in range(len(row)) for side in (-1, 1)]
        inner = [(i, side) for i, side in pairs if 0 <= i + side < len(row)]
        i, side = self.rng.choice(inner if inner and self.rng.random() < 0.55 else pairs)
        there = 0 <= i + side < len(row)
        answer = f'A {name(row[i + side])}.' if there else world.NOTHING
        words = {'d': 'right' if side > 0 else 'left', 'o': self._phrase(row[i], things)}
        return [(self.word('relation', **words), answer)]

    def _nearest(self, things: Sequence[Seen]) -> Dialogue | None:
        row = sorted(things, key=lambda t: t.distance)
        if not row:
            return [(self.word('nearest'), world.NOTHING)]
        if len(row) > 1 and row[1].distance - row[0].distance < NEAREST_GAP_M:
            return None
        return [(self.word('nearest'), f'The {name(row[0])}.')]

    def _path(self, things: Sequence[Seen]) -> Dialogue | None:
        known, blocker = path_truth(things)
        if not known:
            return None
        return [(self.word('path'), world.path_answer(name(blocker) if blocker else None))]

    def _follow_up(self, things: Sequence[Seen]) -> Dialogue | None:
        kind = self.rng.choice(('place', 'nearest', 'identity'))
        first = self.ask(things, kind)
        if first is None or not things:
            return None
        question, answer = first[0]
        thing = meant(things, question, answer)
        then = 'then_colour'
        if kind != 'place' and self.rng.random() < 0.7:
            then = 'then_place'
            if not world.is_clear_of_borders(thing.cx):
                return None
        second = (
            f'{thing.colour.capitalize()}.'
            if then == 'then_colour'
            else f'{world.place(thing.cx).capitalize()}.'
        )
        return [*first, (self.word(then), second)]

    def _absent(self, things: Sequence[Seen]) -> Dialogue | None:
        """Ask about what is of the world and not there, named by shape, by colour or by both."""
        rng = self.rng
        key = rng.choice(('colour', 'identity', 'place', 'place', 'relation'))
        shapes = [s for s in SHAPES if all(t.shape != s for t in things)]
        colours = [c for c in COLOURS if all(t.colour != c for t in things)]
        side = rng.choice(('left', 'right'))
        draw = rng.random()  # for each key, so that a seed goes on giving the same questions
        if key == 'colour' or (key != 'identity' and draw > 0.85):
            if not shapes:
                return None
            shape = rng.choice(shapes)
            return [(self.word(key, s=shape, o=shape, d=side), f'There is no {shape}.')]
        if key == 'identity' or draw < 0.15:
            colour = rng.choice(colours)
            words = f'{colour} {rng.choice(("thing", "object"))}'
            answer = f'There is no {colour} thing.'
            return [(self.word(key, c=colour, o=words, d=side), answer)]
        colour, shape = self._pair(things, there=False)
        if any((t.colour, t.shape) == (colour, shape) for t in things):
            return None
        both = f'{colour} {shape}'
        return [(self.word(key, o=both, d=side), f'There is no {both}.')]

    def _outside(self, _: Sequence[Seen]) -> Dialogue:
        return [(self.outside_question(), OUTSIDE)]
