"""Whether a scene has changed: two small grids of samples, compared tile by tile.

A camera sends thirty frames a second and most show what the last one showed. A look costs a few
thousand samples (0.03 ms of a 1080p image), a frame through a vision tower a large part of a
second; so a look decides.

What it sees: an object of a hundredth of the picture, a colour that changes, a lamp that goes on;
a sensor's noise (sigma about 5 of 255) does not count. What it misses: what lies between the
samples (about 30 px at 1080p) or differs by less than the threshold. So whoever relies on it looks
at a whole frame once in a while all the same.

Loads OpenCV for image files only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import RawImage
from edge_vlm_ros.vision.message_bytes import bytes_of
from edge_vlm_ros.vision.raw_layout import check_layout, encoding_of

if TYPE_CHECKING:
    from edge_vlm_ros.core import CompressedImage

ROWS, COLUMNS = 36, 64
"""Samples of an image at most, spread evenly."""

TILE = 4
"""Samples along one side of a tile, about: 16 are enough to tell an object from noise."""

THRESHOLD = 12.0
"""Mean difference within a tile that counts as a change, of 255. Noise of sigma 5 in both pictures
differs by 5.6 on average and by 12 in no tile of a million; an object of a hundredth of the
picture covers at least 6 of some tile's 16 samples, and is seen from a contrast of 30 on."""


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnail:
    """Samples of one image, to be compared with another's.

    Attributes:
        samples: uint8, (rows, columns, channels); rows at most `ROWS`, columns `COLUMNS`. The
            channels are those that the encoding has in memory: red, green, blue; or two pixels'
            luma and their colour; or the four pixels of a Bayer pattern.
        form: Encoding and size: images of different forms show different things.
    """

    samples: NDArray[np.uint8] = field(repr=False)
    form: tuple[object, ...]


def thumbnail(image: RawImage | CompressedImage) -> Thumbnail:
    """Take samples of an image; of a raw one straight from its bytes, unconverted.

    Args:
        image: As it came; not kept.

    Raises:
        BadImageError: It cannot be decoded, as far as a look at its samples tells; see
            `decode_image`.
    """
    if isinstance(image, RawImage):
        form = (image.encoding, image.width, image.height, image.range16)
        return Thumbnail(_raw_samples(image), form)
    from edge_vlm_ros.vision.compressed import decode_small

    small = decode_small(image)
    rows, columns = _places(small.shape[0], ROWS), _places(small.shape[1], COLUMNS)
    return Thumbnail(np.ascontiguousarray(small[rows, columns]), small.shape)


def has_changed(
    before: Thumbnail | None, now: Thumbnail | None, threshold: float = THRESHOLD
) -> bool:
    """Return whether two images of one camera show different things.

    Args:
        before: Of the one; None = it could not be sampled, which counts as a change.
        now: Of the other; likewise.
        threshold: Mean difference of a tile's samples, in one channel, of 255.
    """
    if before is None or now is None or before.form != now.form:
        return True
    difference = np.abs(before.samples.astype(np.int16) - now.samples)
    rows, columns = _borders(difference.shape[0]), _borders(difference.shape[1])
    sums = np.add.reduceat(np.add.reduceat(difference, rows, 0, np.int32), columns, 1)
    heights = np.diff(rows, append=difference.shape[0])
    widths = np.diff(columns, append=difference.shape[1])
    counts = np.multiply.outer(heights, widths)[..., np.newaxis]
    return bool((sums > threshold * counts).any())


def _borders(samples: int) -> NDArray[np.intp]:
    """Return where the tiles along one side begin."""
    tiles = max(1, samples // TILE)
    return np.arange(tiles) * samples // tiles


def _places(pixels: int, most: int) -> slice:
    """Return evenly spread places along one side, as many as fit in `most`, in its middle."""
    step = -(-pixels // most)
    number = -(-pixels // step)
    return slice((pixels - 1 - (number - 1) * step) // 2, None, step)


def _raw_samples(image: RawImage) -> NDArray[np.uint8]:
    """Take the samples of a raw image, (rows, columns, channels)."""
    layout = check_layout(image)
    name = encoding_of(image)
    data = bytes_of(image.data)
    rows = np.ndarray(
        (layout.rows(image.height), image.width * layout.pixel_bytes),
        np.uint8,
        buffer=data,
        strides=(image.step, 1),
    )
    luma = rows[: image.height]
    if layout.is_planar:
        colour = _units(rows[image.height :], 2)
        down, along = _places(len(colour), ROWS), _places(colour.shape[1], COLUMNS)
        parts = [luma[0::2, 0::2][down, along, np.newaxis], colour[down, along]]
    elif layout.is_paired:
        units = _units(luma, 4)
        parts = [units[_places(len(units), ROWS), _places(units.shape[1], COLUMNS)]]
    else:
        wide = name.startswith('16') or name.endswith('16')
        units = _units(luma, layout.pixel_bytes)
        is_bayer = name.startswith('bayer') and image.width > 1 and image.height > 1
        parts = [_narrow(part, image, wide=wide) for part in _pixels(units, is_bayer=is_bayer)]
    return np.concatenate(parts, axis=2)


def _units(rows: NDArray[np.uint8], nbytes: int) -> NDArray[np.uint8]:
    """View rows of bytes as (rows, units, bytes of a unit)."""
    shape = (rows.shape[0], rows.shape[1] // nbytes, nbytes)
    strides = (rows.strides[0], nbytes, 1)
    return np.lib.stride_tricks.as_strided(rows, shape, strides, writeable=False)


def _pixels(units: NDArray[np.uint8], *, is_bayer: bool) -> list[NDArray[np.uint8]]:
    """Take samples of pixels; of a Bayer pattern all four that make one colour."""
    planes = [units]
    if is_bayer:
        high, wide = units.shape[0] // 2 * 2, units.shape[1] // 2 * 2
        planes = [units[y:high:2, x:wide:2] for y in (0, 1) for x in (0, 1)]
    down, along = _places(planes[0].shape[0], ROWS), _places(planes[0].shape[1], COLUMNS)
    return [plane[down, along] for plane in planes]


def _narrow(samples: NDArray[np.uint8], image: RawImage, *, wide: bool) -> NDArray[np.uint8]:
    """Return samples of 8 bits a channel; of 16 bits, from the values that are shown as black."""
    if not wide:
        return samples[..., :3]
    order = '>u2' if image.is_bigendian else '<u2'
    values: NDArray[np.int32] = np.ascontiguousarray(samples).view(order)[..., :3].astype(np.int32)
    low, high = image.range16 if image.range16 != (0, 0) else (0, 65535)
    inside = (np.clip(values, low, high) - low) * 255 // max(1, high - low)
    return np.asarray(inside, np.uint8)
