"""Qwen2-VL's patches: how large an image is made, and how it is cut for the vision tower.

Source: huggingface/transformers, models/qwen2_vl/image_processing_qwen2_vl.py (smart_resize and
the flattening) and video_processing_qwen2_vl.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, sqrt
from typing import TYPE_CHECKING

import numpy as np

from edge_vlm_ros.core import BadImageError, BadRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from edge_vlm_ros.core import RgbImage
    from edge_vlm_ros.vision.normalise import Normaliser

MAX_ASPECT_RATIO = 200
"""Longer images are refused, as by the published processor."""


@dataclass(frozen=True, slots=True)
class Patching:
    """How a model was trained to see images of any size.

    Attributes:
        patch_px: Side of a patch.
        merge: Patches along either side of the block that becomes one token.
        frames: Frames that one patch reaches over in time.
        min_pixels: Smaller images are enlarged.
        max_pixels: Larger images are shrunk.

    Raises:
        BadRequestError: `patch_px`, `merge` or `frames` is below 1, or no image size is within the
            bounds.
    """

    patch_px: int = 14
    merge: int = 2
    frames: int = 2
    min_pixels: int = 56 * 56
    max_pixels: int = 1280 * 28 * 28

    def __post_init__(self) -> None:
        if min(self.patch_px, self.merge, self.frames) < 1 or self.max_pixels < self.unit_px**2:
            raise BadRequestError(
                f'patches are of at least 1 px and an image holds one block of them: met patches '
                f'of {self.patch_px} px, {self.merge} along a block, max_pixels {self.max_pixels}'
            )
        if not 0 < self.min_pixels <= self.max_pixels:
            raise BadRequestError(
                f'min_pixels is from 1 to max_pixels; met {self.min_pixels} and {self.max_pixels}'
            )

    @property
    def unit_px(self) -> int:
        """Both sides of a resized image are multiples of this: 28."""
        return self.patch_px * self.merge

    @property
    def row_length(self) -> int:
        """Values of one patch: 1176."""
        return 3 * self.frames * self.patch_px**2


def smart_size(width_px: int, height_px: int, patching: Patching) -> tuple[int, int]:
    """Return the width and height nearest to an image's own that the vision tower takes.

    Both are multiples of `unit_px` (halves are rounded to even), the area is within the bounds
    unless one multiple steps over both, and the aspect ratio is kept as nearly as that
    allows.

    Args:
        width_px: Of the image; at least 1.
        height_px: Of the image; at least 1.
        patching: The model's rule.

    Raises:
        BadImageError: A side is 0, or more than 200 times the other.
    """
    short, long = sorted((width_px, height_px))
    if short < 1 or long > MAX_ASPECT_RATIO * short:
        raise BadImageError(
            f'an image of {width_px}x{height_px} px: sides are at least 1 px, '
            f'one at most {MAX_ASPECT_RATIO} times the other'
        )
    unit, area = patching.unit_px, width_px * height_px
    width, height = (max(round(side / unit), 1) * unit for side in (width_px, height_px))
    if width * height > patching.max_pixels:
        shrink = sqrt(area / patching.max_pixels)
        return _multiple(width_px / shrink, unit, floor), _multiple(
            height_px / shrink, unit, floor
        )
    if width * height < patching.min_pixels:
        grow = sqrt(patching.min_pixels / area)
        return _multiple(width_px * grow, unit, ceil), _multiple(height_px * grow, unit, ceil)
    return width, height


def _multiple(size: float, unit: int, to_whole: Callable[[float], int]) -> int:
    return max(to_whole(size / unit), 1) * unit


def cut_patches(
    frames: Sequence[RgbImage], patching: Patching, normalise: Normaliser
) -> NDArray[np.float32]:
    """Normalise a moment and cut it into patches.

    Args:
        frames: uint8, (H, W, 3), RGB, of one size that `smart_size` gave; at most
            `patching.frames`, oldest first. The last one stands for those that are missing: an
            image that stands alone is shown as a moment in which nothing moves.
        patching: The model's rule.
        normalise: With the family's mean and deviation.

    Returns:
        float32, (patches, 1176). Patches come block by block (`patch_places`); inside one, values
        are ordered by channel, frame, row, column.
    """
    assert 0 < len(frames) <= patching.frames, len(frames)
    merge, side = patching.merge, patching.patch_px
    rows, columns = (size // patching.unit_px for size in frames[0].shape[:2])
    count = rows * columns * merge**2
    patches = np.empty((count, 3, patching.frames, side**2), np.float32)
    for place, frame in enumerate(frames):
        # Bytes are put in order before they become floats: a quarter to move.
        blocks = frame.reshape(rows, merge, side, columns, merge, side, 3)
        ordered = blocks.transpose(0, 3, 1, 4, 2, 5, 6).reshape(count, side**2, 3)
        patches[:, :, place] = normalise(ordered).swapaxes(0, 1)
    patches[:, :, len(frames) :] = patches[:, :, len(frames) - 1, None]
    return patches.reshape(count, patching.row_length)


def table_places(
    rows: int, columns: int, side: int, merge: int = 2
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return where each patch lies in a square table of position embeddings (Qwen3-VL).

    The table is stretched over the image, corner to corner, so a patch lies between four of its
    embeddings, or on fewer.

    Args:
        rows: Of patches; a multiple of `merge`.
        columns: Likewise.
        side: Of the table: it has side * side embeddings, row by row.
        merge: Patches along either side of a block.

    Returns:
        int32, (rows * columns, 4): numbers of the embeddings upper left, upper right, lower left
        and lower right of each patch, in the order of `patch_places`; float32, of the same shape:
        the part of each, together 1.
    """
    places = patch_places(rows, columns, merge)
    top, bottom, down = (line[places[:, 0]] for line in _between(rows, side))
    left, right, across = (line[places[:, 1]] for line in _between(columns, side))
    corners = [top * side + left, top * side + right, bottom * side + left, bottom * side + right]
    weights = [(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across]
    return np.stack(corners, 1).astype(np.int32), np.stack(weights, 1).astype(np.float32)


def _between(count: int, side: int) -> tuple[NDArray[np.float32], ...]:
    """Spread `count` places over `side`: those before and after each, and how far it is past."""
    at = np.arange(count, dtype=np.float32) * np.float32(side - 1) / np.float32(max(count - 1, 1))
    before = np.floor(at)
    return before, np.minimum(before + 1, side - 1), at - before


def patch_places(rows: int, columns: int, merge: int = 2) -> NDArray[np.int32]:
    """Return where each patch lies in its image: what the vision tower turns into its positions.

    Args:
        rows: Of patches; a multiple of `merge`.
        columns: Likewise.
        merge: Patches along either side of a block.

    Returns:
        int32, (rows * columns, 2): row and column. Blocks come row by row, and so do the patches
        inside a block: every `merge`^2 neighbours become one token.
    """
    places = np.indices((rows, columns), np.int32)
    blocks = places.reshape(2, rows // merge, merge, columns // merge, merge)
    return np.ascontiguousarray(blocks.transpose(1, 3, 2, 4, 0)).reshape(-1, 2)
