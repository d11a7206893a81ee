"""Draws scenes and clips that keep the rules of the demo world."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from edge_vlm_ros.demo.world import (
    CLIP_FRAMES,
    COLOURS,
    DISTANCE_CHANGE,
    FARTHEST_M,
    NEAREST_M,
    SHAPES,
    SIDE_SHIFT,
    TURN_DEG,
    Colour,
    Shape,
    is_clear_of_borders,
)
from tools.demo_model.scenes import (
    CONE_SIZES,
    MOTIONS,
    Body,
    Camera,
    Clip,
    Motion,
    Still,
    look,
)

_MARGIN: Final = 0.01  # what moves is drawn to move a little more than the least


def apart(bodies: tuple[Body, ...]) -> bool:
    """Return whether no two bodies stand in each other."""
    for i, a in enumerate(bodies):
        for b in bodies[:i]:
            gap = float(np.hypot(a.x - b.x, a.y - b.y))
            if gap < 0.6 * (max(a.width_m, a.depth_m) + max(b.width_m, b.depth_m)) + 0.02:
                return False
    return True


def in_range(bodies: tuple[Body, ...]) -> bool:
    """Return whether each body keeps the distances of the world."""
    return all(NEAREST_M <= b.distance_m <= FARTHEST_M for b in bodies)


def good_still(still: Still, *, thirds: bool = True) -> bool:
    """Return whether the scene keeps every rule for stills."""
    if not (in_range(still.bodies) and apart(still.bodies)):
        return False
    view = look(still.bodies, still.camera)
    if not view.whole():
        return False
    return not thirds or all(is_clear_of_borders(s.cx) for s in view.seen if s is not None)


class SceneSampler:
    """Draws scenes and clips that keep the rules of the world."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def camera(self) -> Camera:
        """Draw the robot's camera with its jitter."""
        jitter = self.rng.uniform(-1.0, 1.0, 3)
        return Camera(
            0.60 + 0.02 * jitter[0],
            float(np.radians(15.0 + jitter[1])),
            float(np.radians(62.0 + jitter[2])),
        )

    def body(self, colour: Colour, shape: Shape, x: float, y: float) -> Body:
        """Draw the size and turn of one body."""
        rng = self.rng
        turn = float(rng.uniform(0.0, np.pi))
        if shape == 'cone':
            k = int(rng.integers(len(CONE_SIZES)))
            width, height = (float(v) for v in CONE_SIZES[k])
            return Body(colour, shape, x, y, turn, width, width, height, k)
        width, depth, height = (float(v) for v in rng.uniform(0.30, 0.50, 3))
        if shape == 'ball':
            return Body(colour, shape, x, y, turn, width, width, width)
        return Body(colour, shape, x, y, turn, width, depth, height)

    def _place(self, camera: Camera, u: float, distance: float) -> tuple[float, float]:
        angle = camera.yaw_rad - np.arctan((2 * u - 1) * np.tan(camera.hfov_rad / 2))
        return distance * float(np.cos(angle)), distance * float(np.sin(angle))

    def still(self, *, least: int = 0, exactly: int | None = None) -> Still:
        """Draw one scene.

        Args:
            least: Fewest objects.
            exactly: This many objects instead of a random number.
        """
        rng = self.rng
        while True:
            camera = self.camera()
            count = int(rng.choice(4, p=[0.05, 0.20, 0.33, 0.42]))
            count = max(least, count) if exactly is None else exactly
            lead, alike = rng.random() < 0.40, rng.random()
            bodies: tuple[Body, ...] = ()
            for _ in range(60):
                if len(bodies) == count:
                    return Still(camera, bodies)
                colour = COLOURS[rng.integers(len(COLOURS))]
                shape = SHAPES[rng.integers(len(SHAPES))]
                u, distance = rng.uniform(0.06, 0.94), rng.uniform(NEAREST_M, FARTHEST_M)
                if lead and not bodies:
                    u, distance = rng.uniform(0.37, 0.63), rng.uniform(NEAREST_M, 1.32)
                if bodies and alike < 0.25 and rng.random() < 0.5:
                    colour = bodies[0].colour
                elif bodies and alike > 0.75 and rng.random() < 0.5:
                    shape = bodies[0].shape
                if any((b.colour, b.shape) == (colour, shape) for b in bodies):
                    continue
                body = self.body(colour, shape, *self._place(camera, u, distance))
                if any(b.cone >= 0 and b.cone == body.cone for b in bodies):
                    continue
                trial = (*bodies, body)
                if good_still(Still(camera, trial)):
                    bodies = trial

    def clip(self, motion: Motion | None = None) -> Clip:
        """Draw one clip, of the given motion or of any."""
        rng = self.rng
        if motion is None:
            motion = MOTIONS[rng.choice(7, p=[0.13, 0.16, 0.16, 0.16, 0.16, 0.115, 0.115])]
        turning = motion.startswith('turn')
        while True:
            start = self.still(least=2 if turning else 1)
            if motion == 'none':
                return Clip(motion, -1, (start,) * CLIP_FRAMES)
            for _ in range(8):
                clip = self._turn(start, motion) if turning else self._move(start, motion)
                if clip is not None:
                    return clip

    def _turn(self, start: Still, motion: Motion) -> Clip | None:
        """Turn the camera; two objects stay wholly in view, so that a lone mover is no riddle."""
        sign = 1.0 if motion == 'turn left' else -1.0
        angle = sign * float(self.rng.uniform(np.radians(TURN_DEG), np.radians(24.0)))
        offset = -angle * float(self.rng.random())
        frames = tuple(
            Still(replace(start.camera, yaw_rad=offset + angle * i / 7), start.bodies)
            for i in range(CLIP_FRAMES)
        )
        views = [look(f.bodies, f.camera) for f in frames]
        held = [all(v.seen[b] is not None for v in views) for b in range(len(start.bodies))]
        return Clip(motion, -1, frames) if sum(held) >= 2 else None

    def _move(self, start: Still, motion: Motion) -> Clip | None:
        """Move one body at an even pace along a line, sideways or along its line of sight."""
        rng = self.rng
        who = int(rng.integers(len(start.bodies)))
        body = start.bodies[who]
        here = np.array([body.x, body.y])
        if motion in ('left', 'right'):
            width = 2 * body.x * np.tan(start.camera.hfov_rad / 2)
            path = rng.uniform(SIDE_SHIFT + _MARGIN, 0.50) * width * np.array([0.0, 1.0])
            path = path if motion == 'left' else -path
        else:
            least = DISTANCE_CHANGE + _MARGIN
            share = rng.uniform(least, 0.60) if motion == 'closer' else rng.uniform(least, 1.2)
            path = here * (share if motion == 'away' else -share)
        lag = rng.random() if motion in ('left', 'right') else 0.0
        frames = []
        for i in range(CLIP_FRAMES):
            x, y = here + path * (i / 7 - lag)
            moved = replace(body, x=float(x), y=float(y))
            bodies = (*start.bodies[:who], moved, *start.bodies[who + 1 :])
            frames.append(Still(start.camera, bodies))
        for i in (7, 0, 4, 2, 6, 1, 3, 5):
            if not good_still(frames[i], thirds=False):
                return None
        first = look(frames[0].bodies, frames[0].camera).seen[who]
        last = look(frames[-1].bodies, frames[-1].camera).seen[who]
        if first is None or last is None:
            return None
        if motion in ('left', 'right') and abs(last.cx - first.cx) < SIDE_SHIFT:
            return None
        return Clip(motion, who, tuple(frames))
