"""The geometry of the demo world: what stands where, and what a camera would see of it.

No renderer is needed here. Ground axes: x ahead of the robot, y to its left, z up, metres. Image
places are shares of the width and of the height, (0, 0) top left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.demo.world import WHOLE, Colour, Shape

Motion = Literal['none', 'left', 'right', 'closer', 'away', 'turn left', 'turn right']

MOTIONS: Final[tuple[Motion, ...]] = (
    'none',
    'left',
    'right',
    'closer',
    'away',
    'turn left',
    'turn right',
)
MIN_WIDTH: Final = 0.09
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

    colour: Colour
    shape: Shape
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
        points: NDArray[np.float64] = centre + to_eye * radius**2 / far + rim * circle
        return points
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
    if visible < WHOLE:
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
