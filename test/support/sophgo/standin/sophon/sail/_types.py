"""Enumerations and exceptions, as sophon-sail's binding layer registers them."""

from __future__ import annotations

from enum import Enum

import numpy as np


class Dtype(Enum):
    """Element types, with the runtime library's numbers."""

    BM_FLOAT32 = 0
    BM_FLOAT16 = 1
    BM_INT8 = 2
    BM_UINT8 = 3
    BM_INT16 = 4
    BM_UINT16 = 5
    BM_INT32 = 6
    BM_UINT32 = 7
    BM_BFLOAT16 = 8

    def __int__(self) -> int:
        return self.value

    @property
    def host(self) -> np.dtype[np.generic]:
        """The NumPy type that `asnumpy` returns: both half types come as uint16."""
        return np.dtype(_HOST[self])


_HOST: dict[Dtype, type[np.generic]] = {
    Dtype.BM_FLOAT32: np.float32,
    Dtype.BM_FLOAT16: np.uint16,
    Dtype.BM_INT8: np.int8,
    Dtype.BM_UINT8: np.uint8,
    Dtype.BM_INT16: np.int16,
    Dtype.BM_UINT16: np.uint16,
    Dtype.BM_INT32: np.int32,
    Dtype.BM_UINT32: np.uint32,
    Dtype.BM_BFLOAT16: np.uint16,
}


class BmrtFlag(Enum):
    """Flags of the runtime; a number does as well (an arithmetic enumeration)."""

    BM_RUNTIME_AUTO = 0
    BM_RUNTIME_SHARE_MEM = 1

    def __int__(self) -> int:
        return self.value

    def __index__(self) -> int:
        return self.value


class LogLevel(Enum):
    """How much the real binding logs."""

    TRACE = 0
    DEBUG = 1
    INFO = 2
    WARN = 3
    ERROR = 4
    CRITICAL = 5
    OFF = 6


# Registered with Python's Exception as their base; `SailRuntimeError` is not registered, so it
# arrives as Python's RuntimeError, and std::out_of_range as IndexError.
class SailDeviceError(Exception):
    """The device cannot be had."""


class SailTensorError(Exception):
    """A tensor that does not fit the call."""


class SailEngineError(Exception):
    """A model that cannot be loaded or launched."""


class MemoryError(Exception):  # noqa: A001, the binding calls it so
    """A copy out of bounds, or memory that is not there."""


class NotSupport(Exception):  # noqa: N818, the binding calls it so
    """A call that this build lacks."""


class DataTypeError(Exception):
    """Two tensors of different types."""
