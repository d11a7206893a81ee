"""The data of an image message as bytes, whatever holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import BadImageError

if TYPE_CHECKING:
    from edge_vlm_ros.core import Buffer


def bytes_of(data: Buffer) -> NDArray[np.uint8]:
    """View a message's data as bytes, uint8, (bytes,); copied only when it is a list of numbers.

    Raises:
        BadImageError: It is no buffer, and no list of numbers from 0 to 255 either.
    """
    try:
        view: NDArray[np.uint8] = np.frombuffer(data, np.uint8)  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):
        pass
    else:
        return view
    try:  # an empty buffer, or a plain list of numbers
        return np.frombuffer(bytes(data), np.uint8)
    except (TypeError, ValueError) as error:
        raise BadImageError(f'data is not made of bytes: {error}') from error
