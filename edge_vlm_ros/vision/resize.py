"""Make images smaller or larger: exactly as models were trained, or fast.

Models see in use what they saw in training, and they were trained on Pillow's antialiased bicubic.
`resize_exact` gives the same bytes without Pillow. `resize_fast` is many times faster and close.

How far `resize_fast` is from it, mean over pixels and channels in 8-bit levels, measured on the
pictures of `test/vision/conftest.py` (in brackets: OpenCV's plain linear resize, which aliases):

| picture  | 1080p to 448 | 720p to 448 | 1080p to 112 | 640x480 to 112 |
|----------|--------------|-------------|--------------|----------------|
| scene    | 0.6 (1.5)    | 0.7 (1.2)   | 1.3 (2.9)    | 0.9 (2.3)      |
| text     | 13 (44)      | 16 (32)     | 6.3 (62)     | 12 (53)        |
| noise    | 8.4 (35)     | 14 (28)     | 2.2 (40)     | 5.8 (38)       |
| gradient | 0.1 (0.0)    | 0.1 (0.0)   | 0.6 (0.0)    | 0.5 (0.1)      |

Text (glyphs of 7 px) and noise differ most: bicubic sharpens edges, averaging does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import BadImageError

if TYPE_CHECKING:
    from edge_vlm_ros.core import RgbImage

Doubles: TypeAlias = NDArray[np.float64]

_SUPPORT = {'bicubic': 2.0, 'bilinear': 1.0, 'lanczos': 3.0}
"""Half-width of a kernel, in output pixels when shrinking, else in input pixels."""

_FIXED_POINT_BITS = 22
"""Pillow rounds its weights to this many binary places (Resample.c: PRECISION_BITS)."""

_CHUNK_COLUMNS = 256
"""Columns worked on at a time: the doubles of one chunk stay in the cache."""

_BLOCK_WORK = 2**19
"""Most multiplications of one matrix product. OpenBLAS uses threads from 2^20 on, and on a robot
whose cores are busy waiting for them costs ten times what they save (measured)."""


class Resizer(Protocol):
    """A way to resize: one of the functions below."""

    def __call__(self, image: RgbImage, width_px: int, height_px: int) -> RgbImage:
        """Return the image at another size; the aspect ratio is not kept."""
        ...


def resize_exact(image: RgbImage, width_px: int, height_px: int) -> RgbImage:
    """Resize as Pillow does with BICUBIC, bit for bit.

    Antialiased: when shrinking, the kernel (a = -0.5) is stretched to cover all input pixels.
    Columns first, rounded to 8 bits, then rows; an axis that keeps its size is left alone. That is
    Pillow before 13, which the models were trained with; from 13 on it takes the rows first where
    that is less work, and then pixels may differ: by a rounding, or more beside hard black and
    white edges when one axis grows and the other shrinks.

    Args:
        image: uint8, (H, W, 3); left unchanged.
        width_px: At least 1.
        height_px: At least 1.

    Returns:
        uint8, (height_px, width_px, 3); the image itself where the size is already right.

    Raises:
        BadImageError: A side is 0.

    Source: python-pillow/Pillow, src/libImaging/Resample.c (precompute_coeffs, the 8bpc passes).
    """
    return _resize_as_pillow(image, width_px, height_px, 'bicubic')


def resize_exact_bilinear(image: RgbImage, width_px: int, height_px: int) -> RgbImage:
    """Resize as Pillow does with BILINEAR, bit for bit; else as `resize_exact`.

    Antialiased too: when shrinking, the triangle covers all input pixels.
    """
    return _resize_as_pillow(image, width_px, height_px, 'bilinear')


def resize_exact_lanczos(image: RgbImage, width_px: int, height_px: int) -> RgbImage:
    """Resize as Pillow does with LANCZOS, bit for bit; else as `resize_exact`.

    Antialiased too: when shrinking, three lobes of the sinc cover six output pixels.
    """
    return _resize_as_pillow(image, width_px, height_px, 'lanczos')


def resize_fast(image: RgbImage, width_px: int, height_px: int) -> RgbImage:
    """Resize by whole-number area averaging, then linear: close to bicubic, many times faster.

    Each axis is first shrunk by the largest whole number that divides it and does not go below the
    size asked for; what remains is done with linear interpolation. Where a side has no fitting
    divisor, so that linear interpolation would skip pixels (it looks at two), plain area averaging
    does it all: slower, no aliasing.

    Args:
        image: uint8, (H, W, 3); left unchanged.
        width_px: At least 1.
        height_px: At least 1.

    Returns:
        uint8, (height_px, width_px, 3); the image itself where the size is already right.

    Raises:
        BadImageError: A side is 0.
    """
    height, width = _check_sizes(image, width_px, height_px)
    if (height, width) == (height_px, width_px):
        return image
    reduced = (_reduced_side(width, width_px), _reduced_side(height, height_px))
    if reduced[0] > 2 * width_px or reduced[1] > 2 * height_px:
        area = cv2.resize(image, (width_px, height_px), interpolation=cv2.INTER_AREA)
        return np.asarray(area, np.uint8)
    smaller = image
    # Halving both sides is the one area case with vector code in OpenCV: do all there is of it.
    while smaller.shape[1] % (2 * reduced[0]) == 0 and smaller.shape[0] % (2 * reduced[1]) == 0:
        half = (smaller.shape[1] // 2, smaller.shape[0] // 2)
        smaller = np.asarray(cv2.resize(smaller, half, interpolation=cv2.INTER_AREA), np.uint8)
    left = (smaller.shape[1] // reduced[0], smaller.shape[0] // reduced[1])
    if max(left) > 1:
        # At a factor of 2 linear interpolation meets the middle of two pixels: their mean, with
        # vector code.
        method = cv2.INTER_LINEAR if max(left) == 2 else cv2.INTER_AREA
        smaller = np.asarray(cv2.resize(smaller, reduced, interpolation=method), np.uint8)
    linear = cv2.resize(smaller, (width_px, height_px), interpolation=cv2.INTER_LINEAR)
    return np.asarray(linear, np.uint8)


def _resize_as_pillow(image: RgbImage, width_px: int, height_px: int, kernel: str) -> RgbImage:
    height, width = _check_sizes(image, width_px, height_px)
    if width != width_px:
        # Rows of the transposed image are the image's columns: one function serves both passes.
        columns = np.asarray(cv2.transpose(image), np.uint8)
        turned = _resize_rows(columns, _plan(width, width_px, kernel))
        image = np.asarray(cv2.transpose(turned), np.uint8)
    if height != height_px:
        image = _resize_rows(image, _plan(height, height_px, kernel))
    return image


def _check_sizes(image: RgbImage, width_px: int, height_px: int) -> tuple[int, int]:
    height, width = image.shape[:2]
    if min(height, width) < 1:
        raise BadImageError(f'an image of {width}x{height} px has nothing to resize')
    if min(width_px, height_px) < 1:
        raise BadImageError(f'cannot resize to {width_px}x{height_px} px; each side is at least 1')
    return height, width


def _reduced_side(size: int, target: int) -> int:
    """Return the size after division by the largest whole number that keeps it above target.

    A power of two nearly as large is taken instead: halving is the fast case.
    """
    most = max(size // target, 1)
    largest = next(factor for factor in range(most, 0, -1) if size % factor == 0)
    power = 1 << (most.bit_length() - 1)
    is_near = 4 * power >= 3 * largest
    return size // (power if size % power == 0 and is_near else largest)


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows [start, stop) of the output are `weights` times rows [first, last) of the input."""

    start: int
    stop: int
    first: int
    last: int
    weights: Doubles


def _resize_rows(image: RgbImage, plan: tuple[_Block, ...]) -> RgbImage:
    """Apply a plan to the first axis.

    Sums of whole numbers below 2^53 (here over 2^22) are exact in doubles, in whatever order they
    are added, so the result is that of Pillow's integer arithmetic.
    """
    flat = image.reshape(image.shape[0], -1)
    columns = flat.shape[1]
    rows = plan[-1].stop
    out = np.empty((rows, columns), np.uint8)
    width = min(_CHUNK_COLUMNS, columns)
    source = np.empty((flat.shape[0], width), np.float64)
    target = np.empty((rows, width), np.float64)
    for start in range(0, columns, width):
        used = min(width, columns - start)
        source[:, :used] = flat[:, start : start + used]
        for block in plan:
            np.matmul(
                block.weights,
                source[block.first : block.last, :used],
                out=target[block.start : block.stop, :used],
            )
        # Half up, as `(sum + half) >> bits` does; conversion to uint8 cuts off what is left.
        np.add(target[:, :used], 0.5, out=target[:, :used])
        np.clip(target[:, :used], 0.0, 255.0, out=target[:, :used])
        out[:, start : start + used] = target[:, :used]
    return out.reshape(rows, *image.shape[1:])


@lru_cache(maxsize=32)
def _plan(size: int, target: int, kernel: str) -> tuple[_Block, ...]:
    """Cut the (target, size) weight matrix into blocks along its diagonal."""
    first, last, weights = _weights(size, target, kernel)
    scale = max(size / target, 1.0)
    rows = 1
    while (rows + 1) * (rows + 1 + 2 * _SUPPORT[kernel]) * scale * _CHUNK_COLUMNS <= _BLOCK_WORK:
        rows += 1
    blocks = []
    for start in range(0, target, rows):
        stop = min(start + rows, target)
        low, high = int(first[start]), int(last[start:stop].max())
        matrix = np.zeros((stop - start, high - low))
        for row in range(start, stop):
            taps = int(last[row] - first[row])
            matrix[row - start, first[row] - low : last[row] - low] = weights[row, :taps]
        blocks.append(_Block(start, stop, low, high, matrix))
    return tuple(blocks)


def _weights(
    size: int, target: int, kernel: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], Doubles]:
    """Return for each output pixel its first input pixel, one past its last, and the weights.

    Weights are whole multiples of 2^-22, as in Pillow.
    """
    scale = size / target
    stretch = max(scale, 1.0)
    support = _SUPPORT[kernel] * stretch
    centre = (np.arange(target) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), size)
    taps = np.arange(int((last - first).max()))
    weights = _KERNELS[kernel]((taps + first[:, None] - centre[:, None] + 0.5) * (1.0 / stretch))
    weights[taps >= (last - first)[:, None]] = 0.0
    # One after another as in C: numpy's own sum adds pairwise and may differ in the last bit.
    weights /= np.cumsum(weights, axis=1)[:, -1:]
    unit = float(1 << _FIXED_POINT_BITS)
    return first, last, np.trunc(weights * unit + np.copysign(0.5, weights)) / unit


def _bicubic(x: Doubles) -> Doubles:
    """Keys' cubic kernel with a = -0.5, written as in Pillow."""
    a = -0.5
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < _SUPPORT['bicubic'], far, 0.0))


def _bilinear(x: Doubles) -> Doubles:
    """Return the triangle."""
    return np.maximum(1.0 - np.abs(x), 0.0)


def _lanczos(x: Doubles) -> Doubles:
    """Return the sinc, windowed by one three times as wide, written as in Pillow."""
    return np.where((x >= -3.0) & (x < 3.0), _sinc(x) * _sinc(x / 3), 0.0)


def _sinc(x: Doubles) -> Doubles:
    turned = x * math.pi
    # The C library's sine, as Pillow takes it: numpy's own may differ in the last bit.
    sines = np.array([math.sin(value) for value in turned.flat]).reshape(x.shape)
    is_zero = turned == 0.0
    return np.where(is_zero, 1.0, sines / np.where(is_zero, 1.0, turned))


_KERNELS = {'bicubic': _bicubic, 'bilinear': _bilinear, 'lanczos': _lanczos}
