"""The geometry of the demo world: what stands where, and what a camera would see of it.

No renderer is needed here. Ground axes: x ahead of the robot, y to its left, z up, metres. Image
places are shares of the width and of the height, (0, 0) top left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Shape = Literal['box', 'ball', 'cone']
Colour = Literal['red', 'green', 'blue', 'yellow', 'purple', 'white']
Motion = Literal['none', 'left', 'right', 'closer', 'away', 'turn left', 'turn right']

SHAPES: Final[tuple[Shape, ...]] = ('box', 'ball', 'cone')
COLOURS: Final[tuple[Colour, ...]] = ('red', 'green', 'blue', 'yellow', 'purple', 'white')
MOTIONS: Final[tuple[Motion, ...]] = (
    'none',
    'left',
    'right',
    'closer',
    'away',
    'turn left',
    'turn right',
)
CLIP_FRAMES: Final = 8
CLIP_SECONDS: Final = 4.0

MIN_DISTANCE_M: Final = 1.0
MAX_DISTANCE_M: Final = 3.0
MIN_WIDTH: Final = 0.09
MIN_VISIBLE: Final = 0.75
THIRDS_MARGIN: Final = 0.03
MIN_SIDE_SHIFT: Final = 0.15
MIN_DISTANCE_CHANGE: Final = 0.30
MIN_TURN_RAD: Final = float(np.radians(10.0))
CENTRE_GAP: Final = 0.05

MAP_SIDE: Final = 16  # cells of the instance map: 2 x 2 to each 14 px patch of a 112 px image
_MASK_W: Final = 192
_MASK_H: Final = 144
_RING: Final = np.linspace(0.0, 2.0 * np.pi, 25)[:-1]

# Cones are meshes, so they come in fixed sizes: (diameter, height) in metres.
CONE_SIZES: Final = np.random.default_rng(20).uniform(0.30, 0.50, (36, 2)).round(3)


@dataclass(frozen=True, slots=True)
class Camera:
    """The robot's camera; pitch is downwards, yaw to the left."""

    height_m: float
    pitch_rad: float
    hfov_rad: float
    yaw_rad: float = 0.0

    def position(self) -> NDArray[np.float64]:
        """Return the place of the lens, (3,)."""
        return np.array([0.0, 0.0, self.height_m])

    def axes(self) -> NDArray[np.float64]:
        """Return (3, 3): the columns are right, up and backwards, as MuJoCo wants them."""
        cos_p, sin_p = np.cos(self.pitch_rad), np.sin(self.pitch_rad)
        cos_y, sin_y = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        ahead = np.array([cos_p * cos_y, cos_p * sin_y, -sin_p])
        right = np.array([sin_y, -cos_y, 0.0])
        return np.stack([right, np.cross(right, ahead), -ahead], axis=1)


@dataclass(frozen=True, slots=True)
class Body:
    """One object on the floor; `cone` is its row in CONE_SIZES (-1: not a cone)."""

    colour: Colour
    shape: Shape
    x: float
    y: float
    turn_rad: float
    width_m: float
    depth_m: float
    height_m: float
    cone: int = -1

    @property
    def distance_m(self) -> float:
        """Return the floor distance from the camera's foot to the centre."""
        return float(np.hypot(self.x, self.y))


class Seen(NamedTuple):
    """One object as it looks in one frame; the box is that of its visible part."""

    colour: str
    shape: str
    cx: float
    cy: float
    w: float
    h: float
    distance: float
    visible: float


@dataclass(frozen=True, slots=True)
class View:
    """What one frame shows.

    `seen` has one entry a body, None where it is cut by the border, hidden too far or too small;
    `outside` says which bodies are wholly out of the image; `instances` is a (16, 16) map with
    the number of the body plus one, 0 for none.
    """

    seen: tuple[Seen | None, ...]
    outside: tuple[bool, ...]
    instances: NDArray[np.uint8]

    def decided(self) -> bool:
        """Return whether each body is either properly visible or wholly out of the image."""
        return all(s is not None or o for s, o in zip(self.seen, self.outside, strict=True))

    def whole(self) -> bool:
        """Return whether each body is properly visible."""
        return all(s is not None for s in self.seen)


@dataclass(frozen=True, slots=True)
class Still:
    """One scene for one picture."""

    camera: Camera
    bodies: tuple[Body, ...]


@dataclass(frozen=True, slots=True)
class Clip:
    """Eight frames over four seconds; `who` is the body that moves, -1 for none."""

    motion: Motion
    who: int
    frames: tuple[Still, ...]


def third(x: float) -> int:
    """Return 0, 1 or 2: the third of the width that x lies in."""
    return 0 if x < 1 / 3 else 1 if x < 2 / 3 else 2


def clear_of_thirds(x: float) -> bool:
    """Return whether x keeps the margin from both borders between thirds."""
    return min(abs(x - 1 / 3), abs(x - 2 / 3)) >= THIRDS_MARGIN


def outline(body: Body, eye: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points, (n, 3), whose convex hull in the image is that of the body."""
    if body.shape == 'ball':
        radius = body.width_m / 2
        centre = np.array([body.x, body.y, radius])
        to_eye = eye - centre
        far = float(np.linalg.norm(to_eye))
        to_eye /= far
        side = np.array([to_eye[1], -to_eye[0], 0.0])
        side /= np.linalg.norm(side)
        up = np.cross(to_eye, side)
        rim = radius * np.sqrt(1 - (radius / far) ** 2)
        circle = np.cos(_RING)[:, None] * side + np.sin(_RING)[:, None] * up
        return centre + to_eye * radius**2 / far + rim * circle
    if body.shape == 'box':
        cos, sin = np.cos(body.turn_rad), np.sin(body.turn_rad)
        dx, dy = body.width_m / 2, body.depth_m / 2
        corners = np.array([[-dx, -dy], [-dx, dy], [dx, -dy], [dx, dy]])
        ground = corners @ np.array([[cos, sin], [-sin, cos]]) + (body.x, body.y)
        return np.concatenate(
            [np.column_stack([ground, np.full(4, z)]) for z in (0.0, body.height_m)]
        )
    radius = body.width_m / 2
    ring = np.column_stack(
        [
            body.x + radius * np.cos(_RING),
            body.y + radius * np.sin(_RING),
            np.zeros(24),
        ]
    )
    return np.concatenate([ring, [[body.x, body.y, body.height_m]]])


def project(body: Body, camera: Camera) -> NDArray[np.float64] | None:
    """Return the outline in the image, (n, 2), or None when some of it is behind the lens."""
    eye = camera.position()
    q = (outline(body, eye) - eye) @ camera.axes()
    ahead = -q[:, 2]
    if (ahead < 0.1).any():
        return None
    half = np.tan(camera.hfov_rad / 2)
    return np.column_stack(
        [
            0.5 + 0.5 * q[:, 0] / ahead / half,
            0.5 - 0.5 * q[:, 1] / ahead / (0.75 * half),
        ]
    )


def look(bodies: tuple[Body, ...], camera: Camera) -> View:
    """Work out what the camera sees of each body, by painting outlines from far to near."""
    count = len(bodies)
    order = sorted(range(count), key=lambda i: -bodies[i].distance_m)
    instances = np.zeros((_MASK_H, _MASK_W), np.uint8)
    boxes: list[tuple[NDArray[np.float64], NDArray[np.float64]] | None] = [None] * count
    areas = [0] * count
    outside = [True] * count
    scale = np.array([_MASK_W, _MASK_H]) * 16
    for i in order:
        points = project(bodies[i], camera)
        if points is None:
            continue
        low, high = points.min(0), points.max(0)
        boxes[i] = (low, high)
        outside[i] = bool(low[0] >= 1 or low[1] >= 1 or high[0] <= 0 or high[1] <= 0)
        if outside[i]:
            continue
        hull = cv2.convexHull((points * scale - 8).round().astype(np.int32))
        own = np.zeros_like(instances)
        cv2.fillConvexPoly(own, hull, 1, shift=4)
        areas[i] = max(1, int(own.sum()))
        instances[own > 0] = i + 1
    seen = tuple(
        None
        if outside[i] or (box := boxes[i]) is None
        else _seen(bodies[i], box, areas[i], instances == i + 1)
        for i in range(count)
    )
    step_y, step_x = _MASK_H // MAP_SIDE, _MASK_W // MAP_SIDE
    small = instances[step_y // 2 :: step_y, step_x // 2 :: step_x]
    return View(seen, tuple(outside), np.ascontiguousarray(small))


def _seen(
    body: Body,
    box: tuple[NDArray[np.float64], NDArray[np.float64]],
    area: int,
    mask: NDArray[np.bool_],
) -> Seen | None:
    low, high = box
    if low.min() < 0.005 or high.max() > 0.995:
        return None
    visible = float(mask.sum()) / area
    if visible < MIN_VISIBLE:
        return None
    if visible < 0.995:
        xs, ys = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        low = np.maximum(low, (xs[0] / _MASK_W, ys[0] / _MASK_H))
        high = np.minimum(high, ((xs[-1] + 1) / _MASK_W, (ys[-1] + 1) / _MASK_H))
    (w, h), (cx, cy) = high - low, (low + high) / 2
    if w < MIN_WIDTH:
        return None
    return Seen(
        body.colour,
        body.shape,
        float(cx),
        float(cy),
        float(w),
        float(h),
        body.distance_m,
        min(1.0, visible),
    )


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
    return all(MIN_DISTANCE_M <= b.distance_m <= MAX_DISTANCE_M for b in bodies)


def good_still(still: Still, *, thirds: bool = True) -> bool:
    """Return whether the scene keeps every rule for stills."""
    if not (in_range(still.bodies) and apart(still.bodies)):
        return False
    view = look(still.bodies, still.camera)
    if not view.whole():
        return False
    return not thirds or all(clear_of_thirds(s.cx) for s in view.seen if s is not None)


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
                u, distance = rng.uniform(0.06, 0.94), rng.uniform(1.0, 3.0)
                if lead and not bodies:
                    u, distance = rng.uniform(0.37, 0.63), rng.uniform(1.0, 1.32)
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
        angle = sign * float(self.rng.uniform(MIN_TURN_RAD, np.radians(24.0)))
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
            path = rng.uniform(0.16, 0.50) * width * np.array([0.0, 1.0])
            path = path if motion == 'left' else -path
        else:
            share = rng.uniform(0.31, 0.60) if motion == 'closer' else rng.uniform(0.31, 1.2)
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
        if motion in ('left', 'right') and abs(last.cx - first.cx) < MIN_SIDE_SHIFT:
            return None
        return Clip(motion, who, tuple(frames))
