"""What the binding makes of the arrays that it is given."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sophon._counters import MisuseError
from sophon.sail._types import Dtype, SailTensorError

# The overloads of the binding, in its order: an array of another type takes the first, float32.
FROM_DATA: Final[dict[np.dtype[Any], Dtype]] = {
    np.dtype(np.float32): Dtype.BM_FLOAT32,
    np.dtype(np.int8): Dtype.BM_INT8,
    np.dtype(np.uint8): Dtype.BM_UINT8,
    np.dtype(np.int32): Dtype.BM_INT32,
}
UPDATES: Final = tuple(
    np.dtype(t) for t in (np.float32, np.int8, np.uint8, np.int32, np.uint32, np.int16, np.uint16)
)
OLD_UPDATES: Final = tuple(
    np.dtype(t) for t in (np.float32, np.int8, np.uint8, np.int32, np.uint16)
)
_HALF: Final = (Dtype.BM_FLOAT16, Dtype.BM_BFLOAT16)


def as_overload(data: Any, overloads: tuple[np.dtype[Any], ...]) -> NDArray[Any]:
    """Return what the binding hands on: an exact type as it is, anything else as float32."""
    if isinstance(data, np.ndarray) and data.dtype in overloads:
        return data
    return np.asarray(data, np.float32)


def fits(given: np.dtype[Any], dtype: Dtype) -> bool:
    """Return whether releases from 3.10.7 on accept an array; half types look at the size only."""
    return given.itemsize == 2 if dtype in _HALF else given == dtype.host


def reinterpreted(array: NDArray[Any], dtype: Dtype) -> NDArray[Any]:
    """Store the bits of whatever comes, as releases from 3.9.4 to 3.10.2 do.

    Raises:
        SailTensorError: It is larger than the tensor.
    """
    if array.itemsize > dtype.host.itemsize:
        raise SailTensorError('size out of range')
    if array.itemsize < dtype.host.itemsize:
        raise MisuseError(f'{array.dtype} leaves a part of a {dtype.name} tensor unwritten')
    return np.ascontiguousarray(array).view(dtype.host)


def as_bits(value: NDArray[Any], dtype: Dtype) -> NDArray[Any]:
    """Return one number as an element of the type, in its host form."""
    if dtype is Dtype.BM_BFLOAT16:
        bits = value.astype(np.float32).reshape(1).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    if dtype is Dtype.BM_FLOAT16:
        return value.astype(np.float16).reshape(1).view(np.uint16)
    return value.astype(dtype.host).reshape(1)
