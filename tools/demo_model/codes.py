"""A fixed linear code for visual tokens, so that sight and language can be learnt side by side.

Each token covers 2 x 2 patches, its sub-cells. A thing whose centre lies in a sub-cell is written
there as features: presence, colour, shape, its place over the whole width, distance, height in
the image and width. Fixed orthonormal directions turn the features into a token. The vision tower
first learns to produce this code; meanwhile the language model learns to read it, from scenes
that were never rendered. Joint training then starts from parts that already understand each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from edge_vlm_ros.demo.world import COLOURS, SHAPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tools.demo_model.scenes import Seen

GRID: Final = 4
CELLS: Final = 2 * GRID
X_BINS: Final = 12
D_BINS: Final = 8
_COLOUR_AT: Final = 1
_SHAPE_AT: Final = _COLOUR_AT + len(COLOURS)
_X_AT: Final = _SHAPE_AT + len(SHAPES)
_D_AT: Final = _X_AT + X_BINS
_Y_AT: Final = _D_AT + D_BINS
FEATURES: Final = _Y_AT + 2
CODE: Final = 4 * FEATURES + 1  # the last is always one, so that empty tokens have a direction
TRACK: Final = 4 * 2
_COLOUR_OF: Final = {c: i for i, c in enumerate(COLOURS)}
_SHAPE_OF: Final = {s: i for i, s in enumerate(SHAPES)}


def directions(width: int) -> NDArray[np.float32]:
    """Return the (CODE, width) orthonormal directions of the code."""
    rng = np.random.default_rng(77)
    q, _ = np.linalg.qr(rng.standard_normal((width, width)))
    first: NDArray[np.float64] = q[:CODE]
    return first.astype(np.float32)


def _bins(value: float, count: int) -> NDArray[np.float32]:
    """Return triangular weights of a value in 0..1."""
    at = min(max(value, 0.0), 1.0) * (count - 1)
    weights: NDArray[np.float64] = np.maximum(0.0, 1.0 - np.abs(np.arange(count) - at))
    return weights.astype(np.float32)


def _shares(value: float, ramp: float) -> list[tuple[int, float]]:
    """Return the sub-cells (along one axis) that a centre falls into, softly near a border."""
    at = min(max(value, 1e-4), 1 - 1e-4) * CELLS
    cell, border = int(at), round(at)
    off = (at - border) / (ramp * CELLS)
    if 0 < border < CELLS and abs(off) < 1:
        after = 0.5 + 0.5 * off
        return [(border - 1, 1 - after), (border, after)]
    return [(cell, 1.0)]


def encode_tracks(
    first: Sequence[Seen | None], now: Sequence[Seen | None], *, ramp: float = 0.012
) -> NDArray[np.float32]:
    """Return how each thing has moved since the first frame, (16, TRACK), where it is now.

    For each sub-cell: the way to the right and the logarithm of the distance ratio, scaled.
    """
    grid = np.zeros((GRID, GRID, 2, 2, 2), np.float32)
    for then, thing in zip(first, now, strict=True):
        if then is None or thing is None:
            continue
        moved = np.array([4 * (thing.cx - then.cx), 2 * np.log(thing.distance / then.distance)])
        for column, share_x in _shares(thing.cx, ramp):
            for row, share_y in _shares(thing.cy, ramp):
                grid[row // 2, column // 2, row % 2, column % 2] += share_x * share_y * moved
    return grid.reshape(GRID * GRID, TRACK)


def encode(
    things: Sequence[Seen | None],
    rng: np.random.Generator | None = None,
    *,
    ramp: float = 0.012,
    unsure: float = 1.0,
) -> NDArray[np.float32]:
    """Return the features of one frame, (16, CODE).

    Args:
        things: What is there; None is left out.
        rng: Where given, blur the features as a vision tower would.
        ramp: Half width, as a share of the image, of the soft border between sub-cells.
        unsure: Strength of the blur.
    """
    grid = np.zeros((GRID, GRID, 2, 2, FEATURES), np.float32)
    for thing in things:
        if thing is None:
            continue
        feature = np.zeros(FEATURES, np.float32)
        cx, cy, distance = thing.cx, thing.cy, thing.distance
        colour, shape = np.zeros(len(COLOURS)), np.zeros(len(SHAPES))
        colour[_COLOUR_OF[thing.colour]] = shape[_SHAPE_OF[thing.shape]] = 1.0
        if rng is not None:
            cx += unsure * 0.006 * rng.standard_normal()
            cy += unsure * 0.006 * rng.standard_normal()
            distance += unsure * 0.05 * rng.standard_normal()
            if rng.random() < 0.25 * unsure:
                mix = 0.4 * rng.random()
                shape = (1 - mix) * shape + mix * np.eye(len(SHAPES))[rng.integers(len(SHAPES))]
            if rng.random() < 0.15 * unsure:
                mix = 0.4 * rng.random()
                other = np.eye(len(COLOURS))[rng.integers(len(COLOURS))]
                colour = (1 - mix) * colour + mix * other
        feature[0] = 1.0
        feature[_COLOUR_AT:_SHAPE_AT] = colour
        feature[_SHAPE_AT:_X_AT] = shape
        feature[_X_AT:_D_AT] = _bins(cx, X_BINS)
        feature[_D_AT:_Y_AT] = _bins((distance - 0.9) / 2.2, D_BINS)
        feature[_Y_AT:] = (2 * cy - 0.6, 2 * thing.w)
        for column, share_x in _shares(cx, ramp):
            for row, share_y in _shares(cy, ramp):
                cell = grid[row // 2, column // 2, row % 2, column % 2]
                cell += share_x * share_y * feature
    code = np.ones((GRID * GRID, CODE), np.float32)
    code[:, :-1] = grid.reshape(GRID * GRID, -1)
    if rng is not None:
        sigma = unsure * rng.uniform(0.0, 0.12)
        code += sigma * rng.standard_normal(code.shape).astype(np.float32)
    return code
