"""Frame to vision tower input in one call: resize or tile, then normalise into one array."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_vlm_ros.vision.tiles import cut_tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_vlm_ros.core import RgbImage
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
        BadImageError: A side of 0.
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
        BadImageError: A side of 0.
    """
    pixels = np.empty((grid.tiles, 3, tile_px, tile_px), np.float32)
    for tile, out in zip(cut_tiles(image, grid, tile_px, resize), pixels, strict=True):
        normalise(tile, out=out)
    return pixels
