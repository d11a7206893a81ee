"""What is true in a shipped clip, frame by frame, and whether an answer says so.

The rules are those of `world`. A question whose answer would be a toss-up has no true answer here;
it is not asked at that moment.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_vlm_ros.demo import world

STILL_SHIFT = 0.02
"""Up to here nothing has moved, share of the width."""
STILL_CHANGE = 0.03
"""Up to here nothing has come closer or gone away, share of the distance."""
STILL_TURN_DEG = 1.0
"""Up to here the camera has not turned."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One object as one frame shows it.

    Attributes:
        colour: 'red', ...
        shape: 'box', 'ball' or 'cone'.
        x: Its middle, share of the width.
        distance_m: From the camera's foot.
        visible: Share of it that is neither hidden nor outside.
    """

    colour: str
    shape: str
    x: float
    distance_m: float
    visible: float = 1.0

    @property
    def name(self) -> str:
        """Colour and shape; no two things of a scene share both."""
        return f'{self.colour} {self.shape}'

    @property
    def third(self) -> int:
        """0, 1 or 2: left, middle, right."""
        return world.third(self.x)

    @property
    def is_clear_of_borders(self) -> bool:
        """Whether it is plainly in its third."""
        return world.is_clear_of_borders(self.x)


@dataclass(frozen=True, slots=True)
class ClipMoment:
    """What one frame of a clip shows.

    Attributes:
        time_s: From the clip's start.
        things: Whatever is in sight.
        yaw_deg: Where the camera looks; to the left is more.
    """

    time_s: float
    things: tuple[Thing, ...]
    yaw_deg: float = 0.0


Rule = Callable[[Sequence[ClipMoment]], 'str | None']
"""From the moments of the frames used, oldest first, to the one true answer; None = a toss-up."""


class ClipTruth:
    """The moments of one clip, in order."""

    def __init__(self, moments: Sequence[ClipMoment]) -> None:
        self.moments = tuple(sorted(moments, key=lambda moment: moment.time_s))
        self._times_s = [moment.time_s for moment in self.moments]

    @classmethod
    def load(cls, path: Path) -> ClipTruth:
        """Read the JSON file beside a shipped clip."""
        content = json.loads(path.read_text(encoding='utf-8'))
        return cls([_moment(frame) for frame in content['frames']])

    @property
    def length_s(self) -> float:
        """Time of the last frame."""
        return self._times_s[-1]

    def at(self, time_s: float) -> ClipMoment:
        """Return the moment nearest to a media time."""
        after = min(max(bisect_left(self._times_s, time_s), 1), len(self.moments) - 1)
        before, later = self.moments[after - 1], self.moments[after]
        return before if time_s - before.time_s <= later.time_s - time_s else later

    def window(self, stop_s: float, seconds: float, count: int) -> list[ClipMoment]:
        """Return `count` moments spread evenly over the seconds before `stop_s`."""
        step_s = seconds / (count - 1)
        return [self.at(stop_s - seconds + step_s * number) for number in range(count)]


def _moment(frame: dict[str, Any]) -> ClipMoment:
    things = tuple(
        Thing(thing['colour'], thing['shape'], thing['cx'], thing['distance'], thing['visible'])
        for thing in frame['objects']
    )
    return ClipMoment(frame['second'], things, frame.get('camera_yaw_deg', 0.0))


def describe(moments: Sequence[ClipMoment]) -> str | None:
    """Tell what stands where in the last frame, left to right."""
    things = moments[-1].things
    if not _is_plain(things) or not world.are_in_order(thing.x for thing in things):
        return None
    return world.describe((thing.name, thing.x) for thing in things)


def colour_of(shape: str) -> Rule:
    """Return the rule of 'What color is the <shape>?', about the last frame."""

    def rule(moments: Sequence[ClipMoment]) -> str | None:
        things = moments[-1].things
        found = [thing for thing in things if thing.shape == shape]
        if len(found) != 1 or not _are_whole(things):
            return None
        return f'{found[0].colour.capitalize()}.'

    return rule


def path(moments: Sequence[ClipMoment]) -> str | None:
    """Tell whether the way ahead is clear in the last frame, and what blocks it."""
    things = moments[-1].things
    if not _is_plain(things):
        return None
    ahead = [thing for thing in things if thing.third == world.MIDDLE]
    if any(world.blocks_the_way(thing.distance_m) is None for thing in ahead):
        return None
    blockers = [thing for thing in ahead if world.blocks_the_way(thing.distance_m)]
    nearest = min(blockers, key=lambda thing: thing.distance_m, default=None)
    return world.path_answer(nearest.name if nearest else None)


def motion(moments: Sequence[ClipMoment]) -> str | None:
    """Tell what has moved between the first frame and the last, and how."""
    if len(moments) < 2 or not all(_are_whole(moment.things) for moment in moments):
        return None
    first, last = moments[0], moments[-1]
    turn_deg = last.yaw_deg - first.yaw_deg
    if abs(turn_deg) > STILL_TURN_DEG:
        way = 'left' if turn_deg > 0 else 'right'
        return world.turning(way) if abs(turn_deg) >= world.TURN_DEG else None
    then = {thing.name: thing for thing in first.things}
    now = {thing.name: thing for thing in last.things}
    if then.keys() != now.keys():
        return None
    movers = [name for name, thing in then.items() if not _stands(thing, now[name])]
    if not movers:
        return world.NOTHING_MOVES
    ways = [_way(then[name], now[name]) for name in movers]
    return world.movement(movers[0], ways[0]) if len(ways) == 1 and ways[0] else None


def _stands(then: Thing, now: Thing) -> bool:
    change = abs(now.distance_m / then.distance_m - 1)
    return abs(now.x - then.x) <= STILL_SHIFT and change <= STILL_CHANGE


def _way(then: Thing, now: Thing) -> str | None:
    """Return how one thing moved; None where it is too little, or both ways at once."""
    change, shift = now.distance_m / then.distance_m - 1, now.x - then.x
    if (abs(change) >= world.DISTANCE_CHANGE) == (abs(shift) >= world.SIDE_SHIFT):
        return None
    if abs(change) >= world.DISTANCE_CHANGE:
        return 'away' if change > 0 else 'closer'
    return 'right' if shift > 0 else 'left'


def _are_whole(things: Sequence[Thing]) -> bool:
    return all(thing.visible >= world.WHOLE for thing in things)


def _is_plain(things: Sequence[Thing]) -> bool:
    """Whether every thing is to be seen and plainly in its third."""
    return _are_whole(things) and all(thing.is_clear_of_borders for thing in things)


def is_right(said: str, truth: str) -> bool:
    """Compare an answer with the truth; case, spaces and the full stop do not count."""
    return _plain_words(said) == _plain_words(truth)


def _plain_words(text: str) -> list[str]:
    return text.lower().replace('.', ' ').replace(',', ' ').split()
