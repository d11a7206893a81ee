"""Llama 3.2 Vision's canvases: which grid of tiles an image is laid on, and how large it is there.

Unlike InternVL's tiling the image keeps its aspect ratio, the rest of the canvas is padding, and
there is no thumbnail.

Free of OpenCV: engines ask here for the aspect ratio id and mask that a grid stands for.

Source: huggingface/transformers, models/mllama/image_processing_mllama.py:
get_all_supported_aspect_ratios, get_optimal_tiled_canvas, get_image_size_fit_to_canvas,
convert_aspect_ratios_to_ids, build_aspect_ratio_mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import floor
from typing import TYPE_CHECKING

import numpy as np

from edge_vlm_ros.core import BadImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Canvas:
    """Where an image lies: in the upper left corner of a grid of tiles.

    Attributes:
        rows: Of tiles.
        columns: Of tiles.
        width_px: Of the resized image.
        height_px: Of the resized image.
    """

    rows: int
    columns: int
    width_px: int
    height_px: int


@lru_cache(maxsize=16)
def supported_grids(max_tiles: int) -> tuple[tuple[int, int], ...]:
    """Return all grids (rows, columns) of at most `max_tiles` tiles, in the order of their ids."""
    sides = range(1, max_tiles + 1)
    return tuple(
        (rows, columns) for rows in sides for columns in sides if rows * columns <= max_tiles
    )


def aspect_ratio_id(rows: int, columns: int, max_tiles: int) -> int:
    """Return the id that the vision tower knows a grid by: from 1; 0 would be no image.

    Args:
        rows: Of tiles.
        columns: Of tiles.
        max_tiles: Most tiles that the vision tower takes (4 in the published models).

    Raises:
        BadImageError: The vision tower has no such grid.
    """
    grids = supported_grids(max_tiles)
    if (rows, columns) not in grids:
        raise BadImageError(f'{rows} rows of {columns} tiles: the model takes {max_tiles} tiles')
    return grids.index((rows, columns)) + 1


def aspect_ratio_mask(rows: int, columns: int, max_tiles: int) -> NDArray[np.int32]:
    """Return which tiles hold the image: int32, (max_tiles,), ones, then zeros for padding.

    The arguments are those of `aspect_ratio_id`.
    """
    return (np.arange(max_tiles) < rows * columns).astype(np.int32)


def choose_canvas(width_px: int, height_px: int, tile_px: int, max_tiles: int) -> Canvas:
    """Choose the grid on which an image is shrunk least or, if it fits in some, enlarged least.

    Of equally good grids the one with the fewest tiles is taken, of those the first. The image is
    then resized to fit, but never enlarged beyond one tile.

    Args:
        width_px: Of the image; at least 1.
        height_px: Of the image; at least 1.
        tile_px: Side of a tile.
        max_tiles: Most tiles.

    Raises:
        BadImageError: A side is 0.
    """
    if min(width_px, height_px) < 1:
        raise BadImageError(f'an image of {width_px}x{height_px} px cannot be tiled')
    grids = supported_grids(max_tiles)
    scales = [
        min(rows * tile_px / height_px, columns * tile_px / width_px) for rows, columns in grids
    ]
    enlarging = [scale for scale in scales if scale >= 1]
    wanted = min(enlarging) if enlarging else max(scales)
    best = [grid for grid, scale in zip(grids, scales, strict=True) if scale == wanted]
    rows, columns = min(best, key=lambda grid: grid[0] * grid[1])
    width, height = _fit(width_px, height_px, columns * tile_px, rows * tile_px, tile_px)
    return Canvas(rows, columns, width, height)


def _fit(
    width_px: int, height_px: int, canvas_width: int, canvas_height: int, tile_px: int
) -> tuple[int, int]:
    """Return width and height in the canvas, aspect ratio kept, rounded down, at least 1."""
    target_width = min(max(width_px, tile_px), canvas_width)
    target_height = min(max(height_px, tile_px), canvas_height)
    scale_width, scale_height = target_width / width_px, target_height / height_px
    if scale_width < scale_height:
        return target_width, min(floor(height_px * scale_width) or 1, target_height)
    return min(floor(width_px * scale_height) or 1, target_width), target_height
