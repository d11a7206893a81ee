"""Preprocessing of a 1080p frame, fast path and exact path, against plain PIL and float code.

The plain code is what model cards show: PIL's bicubic resize, division by 255, subtraction of the
mean, division by the deviation, channels first, a stack of the tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tools.bench.figure import Figure
from tools.bench.timing import pairs_of

ROUNDS = 15
TILE_PX = 448
MAX_TILES = 12
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
Pixels = NDArray[np.float32]


def measure() -> Iterator[Figure]:
    """Time one tile and dynamic tiling; the fast path has the goal."""
    from edge_vlm_ros.vision import (
        Normaliser,
        Tiling,
        dynamic_tiles,
        pixels_for_grid,
        pixels_for_tile,
        resize_exact,
        resize_fast,
    )

    image = _picture()
    normalise = Normaliser(MEAN, STD)
    grid = dynamic_tiles(image.shape[1], image.shape[0], Tiling(TILE_PX, max_tiles=MAX_TILES))
    plain_tile = partial(_plain, image, 1, 1)
    plain_tiles = partial(_plain, image, grid.columns, grid.rows)
    for name, resize, goal in (('fast', resize_fast, 'ratio >= 8'), ('exact', resize_exact, '')):
        one = partial(pixels_for_tile, image, TILE_PX, normalise, resize)
        yield _figure(f'preprocess_1080p_{name}', one, plain_tile, goal)
        many = partial(pixels_for_grid, image, grid, TILE_PX, normalise, resize)
        yield _figure(f'preprocess_1080p_{name}_{grid.tiles}_tiles', many, plain_tiles, '')


def _figure(
    name: str, ours: Callable[[], Pixels], plain: Callable[[], Pixels], goal: str
) -> Figure:
    assert ours().shape == plain().shape, (ours().shape, plain().shape)
    pairs = pairs_of(ours, plain, rounds=ROUNDS)
    return Figure(
        name,
        pairs.value_s * 1e3,
        'ms',
        pairs.baseline_s * 1e3,
        'PIL and float numpy; ratio = times faster',
        pairs.gain,
        goal,
    )


def _picture() -> NDArray[np.uint8]:
    """Make a frame with edges and texture; the same one every time."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (54, 96, 3), dtype=np.uint8)
    fine = rng.integers(0, 32, (1080, 1920, 3), dtype=np.uint8)
    return np.ascontiguousarray(np.kron(coarse, np.ones((20, 20, 1), np.uint8)) // 2 + fine)


def _plain(image: NDArray[np.uint8], columns: int, rows: int) -> Pixels:
    """Do it as the model cards do: resize, cut, normalise, thumbnail last."""
    from PIL import Image

    picture = Image.fromarray(image)
    wide = picture.resize((TILE_PX * columns, TILE_PX * rows), Image.Resampling.BICUBIC)
    tiles = [
        wide.crop((x * TILE_PX, y * TILE_PX, (x + 1) * TILE_PX, (y + 1) * TILE_PX))
        for y in range(rows)
        for x in range(columns)
    ]
    if len(tiles) > 1:
        tiles.append(picture.resize((TILE_PX, TILE_PX), Image.Resampling.BICUBIC))
    mean = np.array(MEAN, np.float32)
    std = np.array(STD, np.float32)
    arrays = [(np.asarray(tile).astype(np.float32) / 255.0 - mean) / std for tile in tiles]
    return np.stack([array.transpose(2, 0, 1) for array in arrays])
