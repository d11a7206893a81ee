"""InternVL's tiling: grids of known sizes, the tie rule, and which pixels land in which tile."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_vlm_ros.core import BadImageError, BadRequestError
from edge_vlm_ros.vision.normalise import Normaliser
from edge_vlm_ros.vision.preprocess import pixels_for_grid, pixels_for_tile
from edge_vlm_ros.vision.resize import resize_exact, resize_fast
from edge_vlm_ros.vision.tiles import TileGrid, Tiling, cut_tiles, dynamic_tiles

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def published_ratio(width, height, *, min_num, max_num, image_size):
    """The grid as the model cards describe it, written out step by step."""
    ratios = {
        (i, j)
        for n in range(min_num, max_num + 1)
        for i in range(1, n + 1)
        for j in range(1, n + 1)
        if min_num <= i * j <= max_num
    }
    best, best_difference = (1, 1), float('inf')
    for ratio in sorted(ratios, key=lambda each: each[0] * each[1]):
        difference = abs(width / height - ratio[0] / ratio[1])
        if difference < best_difference:
            best, best_difference = ratio, difference
        elif (
            difference == best_difference
            and width * height > 0.5 * image_size * image_size * ratio[0] * ratio[1]
        ):
            best = ratio
    return best


def by_pillow(image: Image.Image, width: int, height: int) -> Image.Image:
    """Resize columns, then rows: what one call did before Pillow 13 began to choose the order."""
    return image.resize((width, image.height)).resize((width, height))


def published_tiles(
    image: Image.Image, grid: tuple[int, int], image_size: int
) -> list[np.ndarray]:
    """The tiles as the model cards describe them: resize with Pillow, crop box by box."""
    columns, rows = grid
    filled = by_pillow(image, columns * image_size, rows * image_size)
    tiles = []
    for number in range(columns * rows):
        left, top = number % columns * image_size, number // columns * image_size
        tiles.append(filled.crop((left, top, left + image_size, top + image_size)))
    if len(tiles) > 1:
        tiles.append(by_pillow(image, image_size, image_size))
    return [np.asarray(tile) for tile in tiles]


# Worked out by hand: ratio of the sides, then the nearest of the grids with at most 12 (6) tiles.
@pytest.mark.parametrize(
    ('size', 'max_tiles', 'grid'),
    [
        ((448, 448), 12, (1, 1)),
        (
            (896, 896),
            12,
            (2, 2),
        ),  # tie of 1x1, 2x2, 3x3: more than half of 2x2's pixels, not of 3x3's
        ((640, 640), 12, (2, 2)),  # 409600 > 401408, half of 2x2's pixels
        ((633, 633), 12, (1, 1)),  # 400689 < 401408
        ((1300, 1300), 12, (3, 3)),  # 1690000 > 903168
        ((1920, 1080), 12, (4, 2)),  # 1.78: 2/1 is off by 0.22, 5/3 has 15 tiles; tie 2x1 and 4x2
        ((1280, 720), 12, (4, 2)),
        ((640, 360), 12, (2, 1)),  # the same ratio, too few pixels for 4x2
        ((640, 480), 12, (4, 3)),
        ((320, 240), 12, (4, 3)),  # the ratio alone decides where there is no tie
        ((480, 640), 12, (3, 4)),
        ((1920, 1080), 6, (2, 1)),
        ((640, 480), 6, (3, 2)),  # 1.33: 1/1 is off by 0.33, 3/2 by 0.17
        ((4000, 100), 12, (12, 1)),
        ((100, 4000), 12, (1, 12)),
        ((1920, 1080), 1, (1, 1)),
    ],
)
def test_known_sizes_give_known_grids(size, max_tiles, grid):
    chosen = dynamic_tiles(*size, Tiling(448, max_tiles=max_tiles))
    assert (chosen.columns, chosen.rows) == grid
    assert chosen.has_thumbnail == (grid != (1, 1))
    assert chosen.tiles == grid[0] * grid[1] + (grid != (1, 1))


@given(
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    max_tiles=st.integers(1, 40),
    tile_px=st.sampled_from([112, 336, 448]),
)
def test_law_the_grid_is_the_published_one(width, height, max_tiles, tile_px):
    chosen = dynamic_tiles(width, height, Tiling(tile_px, max_tiles=max_tiles))
    assert (chosen.columns, chosen.rows) == published_ratio(
        width, height, min_num=1, max_num=max_tiles, image_size=tile_px
    )


@given(side=st.integers(1, 4000), max_tiles=st.integers(1, 40))
def test_law_squares_follow_the_tie_rule(side, max_tiles):
    chosen = dynamic_tiles(side, side, Tiling(448, max_tiles=max_tiles))
    assert (chosen.columns, chosen.rows) == published_ratio(
        side, side, min_num=1, max_num=max_tiles, image_size=448
    )


def test_a_least_number_of_tiles_is_kept():
    chosen = dynamic_tiles(500, 500, Tiling(448, min_tiles=3, max_tiles=6))
    assert (chosen.columns, chosen.rows) == (2, 2)


def test_the_thumbnail_can_be_left_out():
    assert dynamic_tiles(640, 480, Tiling(448, use_thumbnail=False)).tiles == 12


@pytest.mark.parametrize(
    'bounds',
    [{'min_tiles': 0}, {'max_tiles': 0}, {'min_tiles': 5, 'max_tiles': 4}, {'tile_px': 0}],
)
def test_tile_bounds_that_leave_no_grid_are_refused(bounds):
    with pytest.raises(BadRequestError, match='tiles'):
        Tiling(**{'tile_px': 448, **bounds})


def test_an_image_of_nothing_is_refused():
    with pytest.raises(BadImageError, match='0x5 px'):
        dynamic_tiles(0, 5, Tiling(448))


@pytest.mark.parametrize('size', [(640, 480), (333, 500), (100, 100), (700, 90)])
@pytest.mark.parametrize('kind', ['scene', 'noise'])
def test_tiles_are_the_published_ones_bit_for_bit(picture, size, kind):
    image = picture(kind, *size)
    grid = dynamic_tiles(*size, Tiling(112))
    tiles = cut_tiles(image, grid, 112, resize_exact)
    expected = published_tiles(Image.fromarray(image), (grid.columns, grid.rows), 112)
    assert tiles.shape == (grid.tiles, 112, 112, 3)
    assert np.array_equal(tiles, np.stack(expected))


def reference_pixels(tile: np.ndarray) -> np.ndarray:
    unit = tile.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    mean, std = (np.array(each, np.float32)[:, None, None] for each in (MEAN, STD))
    return (unit - mean) / std


def test_pixels_of_a_grid_are_the_published_pipeline(picture):
    image = picture('scene', 640, 480)
    grid = dynamic_tiles(640, 480, Tiling(112, max_tiles=6))
    pixels = pixels_for_grid(image, grid, 112, Normaliser(MEAN, STD), resize_exact)
    tiles = published_tiles(Image.fromarray(image), (grid.columns, grid.rows), 112)
    assert pixels.dtype == np.float32
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels, np.stack([reference_pixels(tile) for tile in tiles]))


def test_pixels_of_one_tile_are_the_published_pipeline(picture):
    image = picture('scene', 640, 480)
    pixels = pixels_for_tile(image, 112, Normaliser(MEAN, STD), resize_exact)
    small = np.asarray(by_pillow(Image.fromarray(image), 112, 112))
    assert np.array_equal(pixels, reference_pixels(small)[None])


def test_the_fast_way_fits_the_same_places(picture):
    image = picture('scene', 640, 480)
    grid = TileGrid(2, 1, has_thumbnail=True)
    normaliser = Normaliser(MEAN, STD)
    fast = pixels_for_grid(image, grid, 112, normaliser, resize_fast)
    exact = pixels_for_grid(image, grid, 112, normaliser, resize_exact)
    # 2 of 255 levels, in units of the smallest deviation: swapped tiles would be far above.
    assert np.abs(fast - exact).mean() < 2 / 255 / min(STD)
    assert np.abs(fast[0] - exact[1]).mean() > 10 * np.abs(fast - exact).mean()
