"""The little world of the demo: what is in it, its rules, and the sentences that are true in it.

Training and held-out scenes keep these rules (tools/demo_model draws them), and the demo asks a
question only where they decide its answer (`truth`): what would be a toss-up is not asked.

Places are shares of the image's width, distances are metres from the camera's foot.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Final, Literal

Shape = Literal['box', 'ball', 'cone']
Colour = Literal['red', 'green', 'blue', 'yellow', 'purple', 'white']

SHAPES: Final[tuple[Shape, ...]] = ('box', 'ball', 'cone')
COLOURS: Final[tuple[Colour, ...]] = ('red', 'green', 'blue', 'yellow', 'purple', 'white')
PLACES: Final = ('on the left', 'in the middle', 'on the right')
MIDDLE: Final = 1
"""The third of the width that lies straight ahead."""

NEAREST_M: Final = 1.0
FARTHEST_M: Final = 3.0
"""Things stand between these two distances."""
WHOLE: Final = 0.75
"""A thing of which a smaller share is visible is not asked about."""

BORDERS: Final = (1 / 3, 2 / 3)
BORDER_MARGIN: Final = 0.03
"""A centre this near to a border between thirds is in neither."""
CENTRE_GAP: Final = 0.05
"""Neighbours whose centres are nearer to each other have no order."""

PATH_LIMIT_M: Final = 1.5
PATH_DOUBT_M: Final = 0.2
BLOCKED_M: Final = PATH_LIMIT_M - PATH_DOUBT_M
CLEAR_M: Final = PATH_LIMIT_M + PATH_DOUBT_M
"""What stands ahead up to BLOCKED_M blocks the way, from CLEAR_M on it does not."""

CLIP_SECONDS: Final = 4.0
CLIP_FRAMES: Final = 8
"""What a question about motion is shown."""
SIDE_SHIFT: Final = 0.15
"""What moves sideways moves at least so far in a clip."""
DISTANCE_CHANGE: Final = 0.30
"""What comes closer or goes away does so by at least this share of its distance."""
TURN_DEG: Final = 10.0
"""A camera that turns turns at least so far."""

NOTHING: Final = 'Nothing.'
NOTHING_MOVES: Final = 'Nothing is moving.'


def third(x: float) -> int:
    """Return 0, 1 or 2: the third of the width that x lies in."""
    return sum(x >= border for border in BORDERS)


def is_clear_of_borders(x: float) -> bool:
    """Return whether a centre is plainly in its third."""
    return all(abs(x - border) >= BORDER_MARGIN for border in BORDERS)


def are_in_order(centres: Iterable[float]) -> bool:
    """Return whether it is plain in which order things stand from left to right."""
    row = sorted(centres)
    return all(right - left >= CENTRE_GAP for left, right in pairwise(row))


def blocks_the_way(distance_m: float) -> bool | None:
    """Return whether a thing straight ahead is in the way; None: a toss-up."""
    if BLOCKED_M < distance_m < CLEAR_M:
        return None
    return distance_m <= BLOCKED_M


def place(x: float) -> str:
    """Return the words for the third that x lies in."""
    return PLACES[third(x)]


def describe(things: Iterable[tuple[str, float]]) -> str:
    """Say what stands where, from left to right.

    Args:
        things: Name and centre of each.
    """
    parts = [f'a {name} {place(x)}' for name, x in sorted(things, key=lambda thing: thing[1])]
    if not parts:
        return NOTHING
    text = parts[0] if len(parts) == 1 else f'{", ".join(parts[:-1])} and {parts[-1]}'
    return f'A{text[1:]}.'


def path_answer(blocker: str | None) -> str:
    """Say whether the way ahead is clear.

    Args:
        blocker: Name of the nearest thing in the way; None: there is none.
    """
    return 'Yes.' if blocker is None else f'No, a {blocker} is in the way.'


def movement(name: str, way: str) -> str:
    """Say how one thing moves: left, right, closer or away."""
    return f'The {name} is moving {way}.'


def turning(way: str) -> str:
    """Say how the camera turns: left or right."""
    return f'The camera is turning {way}.'
