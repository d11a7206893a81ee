"""InternVL's dynamic tiling: which grid of tiles an image is cut into, and the cutting.

Source: OpenGVLab/InternVL model cards, `dynamic_preprocess` and `find_closest_aspect_ratio`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from edge_vlm_ros.core import BadImageError, BadRequestError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_vlm_ros.core import RgbImage
    from edge_vlm_ros.vision.resize import Resizer


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a model was trained to see large images.

    Attributes:
        tile_px: Side of a tile.
        min_tiles: Fewest tiles, the thumbnail not counted; at least 1.
        max_tiles: Most tiles, the thumbnail not counted; 1 = no tiling.
        use_thumbnail: Whether the whole image follows the tiles.

    Raises:
        BadRequestError: No grid is within the bounds, or `tile_px` is below 1.
    """

    tile_px: int
    min_tiles: int = 1
    max_tiles: int = 12
    use_thumbnail: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.min_tiles <= self.max_tiles or self.tile_px < 1:
            raise BadRequestError(
                f'tiles are from 1 up and of at least 1 px; met min_tiles {self.min_tiles}, '
                f'max_tiles {self.max_tiles}, tile_px {self.tile_px}'
            )


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Columns and rows of tiles.

    Attributes:
        columns: At least 1.
        rows: At least 1.
        has_thumbnail: The whole image follows as one more tile.
    """

    columns: int
    rows: int
    has_thumbnail: bool = False

    @property
    def tiles(self) -> int:
        """How many tiles the vision tower sees, the thumbnail too."""
        return self.columns * self.rows + self.has_thumbnail


def dynamic_tiles(width_px: int, height_px: int, tiling: Tiling) -> TileGrid:
    """Choose the grid whose aspect ratio is nearest to the image's.

    Of two equally near, the larger one is taken if the image has more than half of its pixels,
    else the smaller one. A thumbnail follows where there is more than one tile.

    Args:
        width_px: Of the image; at least 1.
        height_px: Of the image; at least 1.
        tiling: The model's rule.

    Raises:
        BadImageError: A side is 0.
    """
    if min(width_px, height_px) < 1:
        raise BadImageError(f'an image of {width_px}x{height_px} px cannot be tiled')
    aspect = width_px / height_px
    area = width_px * height_px
    best, best_difference = (1, 1), float('inf')
    for columns, rows in _candidates(tiling.min_tiles, tiling.max_tiles):
        difference = abs(aspect - columns / rows)
        is_tie = difference == best_difference
        has_pixels = area > 0.5 * tiling.tile_px * tiling.tile_px * columns * rows
        if difference < best_difference or (is_tie and has_pixels):
            best, best_difference = (columns, rows), difference
    is_many = best[0] * best[1] > 1
    return TileGrid(*best, has_thumbnail=tiling.use_thumbnail and is_many)


def cut_tiles(image: RgbImage, grid: TileGrid, tile_px: int, resize: Resizer) -> NDArray[np.uint8]:
    """Resize an image to fill a grid and cut it into tiles.

    Args:
        image: uint8, (H, W, 3), RGB; left unchanged.
        grid: As `dynamic_tiles` chose it.
        tile_px: Side of a tile.
        resize: `resize_exact` or `resize_fast`.

    Returns:
        uint8, (tiles, tile_px, tile_px, 3); row by row, the thumbnail last.

    Raises:
        BadImageError: A side is 0.
    """
    filled = resize(image, grid.columns * tile_px, grid.rows * tile_px)
    tiles = np.empty((grid.tiles, tile_px, tile_px, 3), np.uint8)
    by_row = filled.reshape(grid.rows, tile_px, grid.columns, tile_px, 3).swapaxes(1, 2)
    count = grid.rows * grid.columns
    tiles[:count].reshape(by_row.shape)[...] = by_row
    if grid.has_thumbnail:
        tiles[count] = resize(image, tile_px, tile_px)
    return tiles


@lru_cache(maxsize=16)
def _candidates(min_tiles: int, max_tiles: int) -> tuple[tuple[int, int], ...]:
    """Return all grids (columns, rows) within the bounds, fewest tiles first.

    The published code orders grids of the same size as a Python set happens to give them; that
    decides only a tie between two of the same size. Here the one with fewer columns comes first.
    """
    sides = range(1, max_tiles + 1)
    grids = ((i, j) for i in sides for j in sides if min_tiles <= i * j <= max_tiles)
    return tuple(sorted(grids, key=lambda grid: (grid[0] * grid[1], grid)))
