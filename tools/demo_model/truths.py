"""What is true of the things that a frame shows, and what is too close to call."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from edge_vlm_ros.demo import world
from tools.demo_model.scenes import Seen

NEAREST_GAP_M: Final = 0.4
"""Of two things whose distances differ by less, neither is the nearest."""


def name(thing: Seen) -> str:
    """Return the colour and shape of a thing."""
    return f'{thing.colour} {thing.shape}'


def describe(things: Sequence[Seen]) -> str:
    """Return the answer to a describe question."""
    return world.describe((name(thing), thing.cx) for thing in things)


def motion_answer(motion: str, mover: Seen | None) -> str:
    """Return the answer to a motion question."""
    if motion == 'none':
        return world.NOTHING_MOVES
    if motion.startswith('turn'):
        return world.turning(motion.removeprefix('turn '))
    assert mover is not None
    return world.movement(name(mover), motion)


def path_truth(things: Sequence[Seen]) -> tuple[bool, Seen | None]:
    """Return whether the path question is no toss-up, and the nearest thing in the way."""
    ahead = [t for t in things if world.third(t.cx) == world.MIDDLE]
    if any(world.blocks_the_way(t.distance) is None for t in ahead):
        return False, None
    if any(t.distance < world.CLEAR_M and not world.is_clear_of_borders(t.cx) for t in things):
        return False, None
    inside = sorted(
        (t for t in ahead if world.blocks_the_way(t.distance)), key=lambda t: t.distance
    )
    if len(inside) > 1 and inside[1].distance - inside[0].distance < NEAREST_GAP_M:
        return False, None
    return True, inside[0] if inside else None


def are_placed(things: Sequence[Seen]) -> bool:
    """Return whether each thing is plainly in its third."""
    return all(world.is_clear_of_borders(t.cx) for t in things)


def are_in_order(things: Sequence[Seen]) -> bool:
    """Return whether their order from left to right is plain."""
    return world.are_in_order(t.cx for t in things)


def lone_shapes(things: Sequence[Seen]) -> list[Seen]:
    """Return the things whose shape no other has."""
    return [t for t in things if sum(u.shape == t.shape for u in things) == 1]


def lone_colours(things: Sequence[Seen]) -> list[Seen]:
    """Return the things whose colour no other has."""
    return [t for t in things if sum(u.colour == t.colour for u in things) == 1]


def meant(things: Sequence[Seen], question: str, answer: str) -> Seen:
    """Return the thing that a place, nearest or identity turn is about."""
    words = set(re.findall('[a-z]+', f'{question} {answer}'.lower()))

    def fit(thing: Seen) -> int:
        return (thing.colour in words) + (thing.shape in words)

    return max(things, key=fit)
