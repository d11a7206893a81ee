"""Memory of the chip and of the host, as the binding knows it.

What is guarded here, because the binding does not (sophon-sail 3.9.1 to 3.10.7, `src/bind.cpp`,
`src/tensor.cpp`):

* `update_data` takes int64, float64 and float16 arrays by an overload for float32 and stores the
  wrong bits: arrays of exactly the tensor's type cross this edge, nothing else.
* A view does not keep alive what it looks into: ours do.
* `memory_set` fills with an expired local before 3.10.7: memory is zeroed by copying zeros.
* Tensors that wrap a net's own memory are cached mappings on a SoC: they are filled by explicit
  copies, never through the mapping.
* Sizes and offsets are 32 bit numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import DeviceError
from edge_vlm_ros.engines.sophgo.device import Device, call
from edge_vlm_ros.engines.sophgo.nets import DType, Shape

_MOST_BYTES = 2**31 - 1
_ZEROS = 2**20
"""Elements of the host memory that device memory is zeroed from."""

_DTYPES = {
    'BM_FLOAT32': DType.FLOAT32,
    'BM_FLOAT16': DType.FLOAT16,
    'BM_BFLOAT16': DType.BFLOAT16,
    'BM_INT8': DType.INT8,
    'BM_UINT8': DType.UINT8,
    'BM_INT16': DType.INT16,
    'BM_UINT16': DType.UINT16,
    'BM_INT32': DType.INT32,
    'BM_UINT32': DType.UINT32,
}


class Memory:
    """Where tensors come from, and who frees them at the end.

    Args:
        device: On which.

    Attributes:
        view: The binding's constructor of views: raw tensor, shape, offset in elements. For
            `DeviceTensor` alone.
    """

    def __init__(self, device: Device) -> None:
        sail = device.sail
        self._handle: Any = device.handle
        # One constructor, two overloads: memory of its own, and a view into another tensor's.
        self._make: Any = sail.Tensor
        self.view: Callable[[Any, list[int], int], Any] = sail.Tensor
        self._sail_dtypes = {dtype: getattr(sail.Dtype, name) for name, dtype in _DTYPES.items()}
        self._tensors: list[DeviceTensor] = []
        self._zeros: dict[DType, HostTensor] = {}

    def dtype_of(self, found: Any) -> DType | None:
        """Return what an element type of the binding is; None = none that is known here."""
        return next((ours for ours, theirs in self._sail_dtypes.items() if theirs == found), None)

    def allocate(self, shape: Shape, dtype: DType) -> DeviceTensor:
        """Make device memory, filled with zeros.

        Raises:
            DeviceError: The device has too little free memory.
        """
        nbytes = prod(shape) * dtype.nbytes
        if nbytes > _MOST_BYTES:
            raise DeviceError(f'{nbytes} bytes in one tensor: sophon-sail takes {_MOST_BYTES}')
        raw = self._tensor(f'{nbytes} bytes of device memory', shape, dtype, on_device=True)
        return self.wrap(raw, shape, dtype)

    def allocate_host(self, values: NDArray[Any], dtype: DType) -> HostTensor:
        """Make host memory that device tensors are filled from again and again."""
        raw = self._tensor('host memory', values.shape, dtype, on_device=False)
        call('update_data', raw.update_data, _exact(values, dtype))
        return HostTensor(raw, values.size, dtype)

    def wrap(self, raw: Any, shape: Shape, dtype: DType) -> DeviceTensor:
        """Take a tensor of the binding's, to be let go of with the others."""
        tensor = DeviceTensor(self, raw, shape, dtype)
        self._tensors.append(tensor)
        return tensor

    def zeros(self, dtype: DType) -> HostTensor:
        """Give host memory of zeros, `_ZEROS` elements."""
        if dtype not in self._zeros:
            self._zeros[dtype] = self.allocate_host(np.zeros(_ZEROS, dtype.host), dtype)
        return self._zeros[dtype]

    def release(self) -> None:
        """Let go of all tensors; safe to call twice."""
        for tensor in self._tensors:
            tensor.release()
        self._tensors.clear()
        self._zeros.clear()
        self._handle = None

    def _tensor(self, what: str, shape: Shape, dtype: DType, *, on_device: bool) -> Any:
        kind = self._sail_dtypes[dtype]
        return call(what, self._make, self._handle, list(shape), kind, not on_device, on_device)


class HostTensor:
    """Host memory of the binding's, to copy from."""

    __slots__ = ('dtype', 'raw', 'size')

    def __init__(self, raw: Any, size: int, dtype: DType) -> None:
        self.raw = raw
        self.size = size
        self.dtype = dtype


class DeviceTensor:
    """Device memory: allocated, a net's own, or a view into another tensor.

    Attributes:
        shape: Its sizes.
        dtype: Its type.
        raw: The binding's tensor; None once released.
    """

    __slots__ = ('_memory', '_parent', 'dtype', 'raw', 'shape', 'size')

    def __init__(
        self,
        memory: Memory,
        raw: Any,
        shape: Shape,
        dtype: DType,
        parent: DeviceTensor | None = None,
    ) -> None:
        self._memory = memory
        self._parent = parent
        self.raw = raw
        self.shape = shape
        self.size = prod(shape)
        self.dtype = dtype

    def view(self, shape: Shape, offset: int = 0) -> DeviceTensor:
        """Look at a run of this memory, `offset` elements from its start; nothing is copied."""
        size = prod(shape)
        assert 0 <= offset <= self.size - size, (self.shape, shape, offset)
        raw = self.raw_view(list(shape), offset)
        return DeviceTensor(self._memory, raw, shape, self.dtype, self)

    def raw_view(self, shape: list[int], offset: int) -> Any:
        """Make the binding's tensor of a `view` alone, for `Launch`: without checks and owner."""
        return self._memory.view(self.raw, shape, offset)

    def shorter(self, shape: Shape, room: int, offset: int = 0) -> DeviceTensor:
        """Look at `room` elements of this memory, but say that there are only those of `shape`.

        A dynamic net reads the real sizes from the shapes, and the runtime library ends the
        process where the memory behind them is smaller than the net's largest sizes.

        Source: libsophon, tpu-runtime (the assertion in fill_dynamic_tensor_info); sophon-sail,
        Tensor_CC::reset: a tensor that does not own its memory keeps it when it is reshaped.
        """
        size = prod(shape)
        assert 0 <= offset <= self.size - room, (self.shape, room, offset)
        assert size <= room, (shape, room)
        raw = self.raw_view([room], offset)
        call('reshape', raw.reshape, list(shape))
        return DeviceTensor(self._memory, raw, shape, self.dtype, self)

    def write(self, values: NDArray[Any], offset: int = 0) -> None:
        """Copy an array of exactly this type to the device, `offset` elements from the start.

        Raises:
            DeviceError: The copy failed.
        """
        target = self if values.size == self.size else self.view((values.size,), offset)
        exact = _exact(values, self.dtype).reshape(target.shape)
        call('copy to the device', target.raw.update_data, exact)

    def read(self, count: int = 0, offset: int = 0) -> NDArray[Any]:
        """Copy `count` elements (0 = all) to the host: (count,), in memory of its own.

        Raises:
            DeviceError: The copy failed.
        """
        count = count or self.size
        source = self if count == self.size else self.view((count,), offset)
        values: NDArray[Any] = call('copy from the device', source.raw.asnumpy)
        return np.ascontiguousarray(values).reshape(-1)

    def copy_from_host(self, source: HostTensor, start: int, offset: int, count: int) -> None:
        """Copy `count` elements of kept host memory to the device."""
        assert start + count <= source.size
        assert offset + count <= self.size
        assert source.dtype is self.dtype
        call('copy to the device', self.raw.sync_s2d, source.raw, start, offset, count)

    def copy_from(self, source: DeviceTensor, start: int, offset: int, count: int) -> None:
        """Copy `count` elements from another tensor, on the device."""
        assert start + count <= source.size
        assert offset + count <= self.size
        assert source.dtype is self.dtype
        call('copy on the device', self.raw.sync_d2d, source.raw, start, offset, count)

    def zero(self) -> None:
        """Fill with zeros."""
        zeros = self._memory.zeros(self.dtype)
        for start in range(0, self.size, _ZEROS):
            self.copy_from_host(zeros, 0, start, min(_ZEROS, self.size - start))

    def release(self) -> None:
        """Let go of the memory."""
        self.raw = None


def _exact(values: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """Give the bits that cross the edge, in order and of exactly the right type."""
    if values.dtype == np.float16 and dtype is DType.FLOAT16:
        values = values.view(np.uint16)
    assert values.dtype == dtype.host, (values.dtype, dtype)
    return np.ascontiguousarray(values)
