"""A camera whose scene changes at known moments."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import NS_PER_S
from tools.bench.ahead.watched import camera_frame

if TYPE_CHECKING:
    from edge_vlm_ros.core import StoredFrame

_WIDTH, _HEIGHT, _SIDE = 320, 240, 56
_NOISE, _VARIANTS = 4.0, 4
_PERIOD_NS = NS_PER_S // 10
_KEPT = 2000  # shots


def poisson_ns(
    rng: np.random.Generator, mean_s: float, start_ns: int, stop_ns: int
) -> tuple[int, ...]:
    """Draw moments that come once in `mean_s` on average, independently of each other."""
    moments: list[int] = []
    at_ns = start_ns + round(rng.exponential(mean_s) * NS_PER_S)
    while at_ns < stop_ns:
        moments.append(at_ns)
        at_ns += round(rng.exponential(mean_s) * NS_PER_S)
    return tuple(moments)


@dataclass(frozen=True, slots=True)
class Shot:
    """A frame of the camera.

    Attributes:
        frame: As a node stores it.
        at_ns: When it was taken and came.
        scene: What it shows: the number of changes before it.
    """

    frame: StoredFrame
    at_ns: int
    scene: int


class Camera:
    """Ten frames a second of a floor with one thing on it, which is another after each change.

    Args:
        rng: Decides what is seen.
        changes_ns: When the scene changes, in order.
    """

    def __init__(self, rng: np.random.Generator, changes_ns: tuple[int, ...]) -> None:
        self._rng = rng
        self._changes_ns = changes_ns
        self._noise = rng.normal(0, _NOISE, (_VARIANTS, _HEIGHT, _WIDTH, 3))
        self._scene = -1
        self._pictures: list[NDArray[np.uint8]] = []
        self._shots: dict[int, Shot] = {}

    def shot_of(self, frame: StoredFrame) -> Shot:
        """Find a frame of the last minutes."""
        return self._shots[frame.received_ns // _PERIOD_NS]

    def newest(self, now_ns: int) -> Shot:
        """Return the newest frame at a moment; the same frame each time."""
        number = now_ns // _PERIOD_NS
        if number not in self._shots:
            if len(self._shots) > _KEPT:
                self._shots = {key: self._shots[key] for key in list(self._shots)[_KEPT // 2 :]}
            self._shots[number] = self._shoot(number)
        return self._shots[number]

    def _shoot(self, number: int) -> Shot:
        at_ns = number * _PERIOD_NS
        scene = bisect_right(self._changes_ns, at_ns)
        if scene != self._scene:
            self._scene, picture = scene, self._draw()
            self._pictures = [
                np.clip(picture + noise, 0, 255).astype(np.uint8) for noise in self._noise
            ]
        return Shot(camera_frame(self._pictures[number % _VARIANTS], at_ns), at_ns, scene)

    def _draw(self) -> NDArray[np.float64]:
        picture = np.full((_HEIGHT, _WIDTH, 3), 110.0)
        picture[: _HEIGHT // 3] = 180.0
        x = self._rng.integers(0, _WIDTH - _SIDE)
        y = self._rng.integers(0, _HEIGHT - _SIDE)
        colour = np.array(((220, 40, 40), (30, 160, 60), (40, 60, 210), (235, 210, 40)))
        picture[y : y + _SIDE, x : x + _SIDE] = self._rng.permutation(colour)[0]
        return picture
