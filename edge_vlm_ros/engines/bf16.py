"""bfloat16 as bit patterns in uint16: what numpy has no type for and the chips compute in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_HALF = np.uint32(0x7FFF)
_ONE = np.uint32(1)
_SHIFT = np.uint32(16)
_QUIET = np.uint16(0x0040)
_EXPONENT = np.uint16(0x7F80)
_SIGNLESS = np.uint16(0x7FFF)


def to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round float32 to the nearest bfloat16, ties to even; NaN stays NaN.

    Args:
        values: float32, any shape.

    Returns:
        uint16 bit patterns of the same shape, in memory of their own.
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded: NDArray[np.uint16] = ((bits + _HALF + ((bits >> _SHIFT) & _ONE)) >> _SHIFT).astype(
        np.uint16
    )
    lost = np.isnan(values)
    if lost.any():
        rounded[lost] = (bits[lost] >> _SHIFT).astype(np.uint16) | _QUIET
    return rounded


def from_bf16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Widen bfloat16 bit patterns (uint16, any shape) to float32, in memory of its own."""
    widened: NDArray[np.uint32] = bits.astype(np.uint32) << _SHIFT
    return widened.view(np.float32)


def widen_bf16(bits: NDArray[np.uint16], out: NDArray[np.float32]) -> None:
    """Widen bfloat16 bit patterns into float32 memory of as many elements, which is kept."""
    widened = out.view(np.uint32)
    # In one pass: numpy widens as much at a time as the processor's cache holds.
    np.left_shift(bits.reshape(widened.shape), _SHIFT, out=widened, dtype=np.uint32)


def has_nan(bits: NDArray[np.uint16]) -> bool:
    """Return whether any bfloat16 bit pattern is not a number."""
    return bool(((bits & _SIGNLESS) > _EXPONENT).any())
