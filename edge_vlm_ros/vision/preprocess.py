"""Frame to vision tower input in one call: resize or tile, then normalise into one array."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_vlm_ros.vision.tiles import cut_tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_vlm_ros.core import RgbImage
    from edge_vlm_ros.vision.canvas import Canvas
    from edge_vlm_ros.vision.normalise import Normaliser
    from edge_vlm_ros.vision.resize import Resizer
    from edge_vlm_ros.vision.tiles import TileGrid


def pixels_for_tile(
    image: RgbImage, tile_px: int, normalise: Normaliser, resize: Resizer
) -> NDArray[np.float32]:
    """Squash an image into one square tile.

    Args:
        image: uint8, (H, W, 3), RGB; left unchanged.
        tile_px: Side of the tile.
        normalise: With the family's mean and deviation.
        resize: `resize_exact` or `resize_fast`.

    Returns:
        float32, (1, 3, tile_px, tile_px).

    Raises:
        BadImageError: A side is 0.
    """
    pixels = np.empty((1, 3, tile_px, tile_px), np.float32)
    normalise(resize(image, tile_px, tile_px), out=pixels[0])
    return pixels


def pixels_for_grid(
    image: RgbImage, grid: TileGrid, tile_px: int, normalise: Normaliser, resize: Resizer
) -> NDArray[np.float32]:
    """Cut an image into the tiles of a grid, the thumbnail last.

    Args:
        image: uint8, (H, W, 3), RGB; left unchanged.
        grid: As `dynamic_tiles` chose it.
        tile_px: Side of a tile.
        normalise: With the family's mean and deviation.
        resize: `resize_exact` or `resize_fast`.

    Returns:
        float32, (grid.tiles, 3, tile_px, tile_px).

    Raises:
        BadImageError: A side is 0.
    """
    pixels = np.empty((grid.tiles, 3, tile_px, tile_px), np.float32)
    for tile, out in zip(cut_tiles(image, grid, tile_px, resize), pixels, strict=True):
        normalise(tile, out=out)
    return pixels


def pixels_for_canvas(
    image: RgbImage,
    canvas: Canvas,
    normalise: Normaliser,
    resize: Resizer,
    out: NDArray[np.float32],
) -> None:
    """Lay an image on a canvas, black around it, and cut the canvas into tiles.

    Args:
        image: uint8, (H, W, 3), RGB; left unchanged.
        canvas: As `choose_canvas` chose it.
        normalise: With the family's mean and deviation; black is normalised too.
        resize: `resize_exact_bilinear` or `resize_fast`.
        out: Where to write the tiles, row by row: float32, (rows * columns, 3, tile_px, tile_px),
            C-contiguous.

    Raises:
        BadImageError: A side is 0.

    Source: huggingface/transformers, models/mllama/image_processing_mllama.py: pad, then rescale
        and normalise, then split_to_tiles.
    """
    tile_px = out.shape[-1]
    filled = np.zeros((canvas.rows * tile_px, canvas.columns * tile_px, 3), np.uint8)
    resized = resize(image, canvas.width_px, canvas.height_px)
    filled[: canvas.height_px, : canvas.width_px] = resized
    by_row = filled.reshape(canvas.rows, tile_px, canvas.columns, tile_px, 3).swapaxes(1, 2)
    tiles = by_row.reshape(-1, tile_px, tile_px, 3)
    for tile, plane in zip(tiles, out, strict=True):
        normalise(tile, out=plane)
