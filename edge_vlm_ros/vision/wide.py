"""Images of 16 bits a channel to 8 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import BadImageError

if TYPE_CHECKING:
    Wide: TypeAlias = NDArray[np.unsignedinteger[Any]]
    Bytes: TypeAlias = NDArray[np.uint8]

DIM_BELOW = 2**14
"""Sensors of 10, 12 and 14 bits (thermal cameras, many industrial ones) are often published in the
lowest bits of 16: by the encoding's own scale such an image is nearly black."""


def narrow(wide: Wide, range16: tuple[int, int], what: str) -> Bytes:
    """Scale 16-bit values to 8 bits, rounded.

    Args:
        wide: 16-bit values of any shape and byte order; left unchanged.
        range16: The values that become 0 and 255, what lies outside is clipped; (0, 0) = 0 and
            65535, value / 257, as cv_bridge does.
        what: Names the image in messages.

    Returns:
        uint8, of the same shape.

    Raises:
        BadImageError: The range is empty; or none is given and only the lowest 14 bits are used,
            so that the picture would be nearly black.
    """
    if range16 == (0, 0):
        brightest = int(wide.max(initial=0))
        if 0 < brightest < DIM_BELOW:
            raise BadImageError(
                f'{what} has no value above {brightest} of 65535 (a sensor of 14 bits or fewer?) '
                'and would be nearly black: say which values are black and white, with '
                'cameras.<name>.range_16bit ([0, 16383] for 14 bits, [0, 65535] for an image '
                'that is truly so dark)'
            )
        return ((wide.astype(np.uint32) + 128) // 257).astype(np.uint8)
    low, high = range16
    if not 0 <= low < high <= 65535:
        raise BadImageError(f'range_16bit is two rising numbers from 0 to 65535, not {range16}')
    inside = np.clip(wide, low, high).astype(np.uint32) - low
    span = high - low
    return ((inside * 255 + span // 2) // span).astype(np.uint8)
