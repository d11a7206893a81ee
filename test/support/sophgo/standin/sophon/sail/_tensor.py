"""`sail.Handle` and `sail.Tensor`, as a build for PCIe cards has them."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sophon import _ledger
from sophon._counters import MisuseError
from sophon.sail import _options
from sophon.sail._abi import DeviceMemory
from sophon.sail._arrays import (
    FROM_DATA,
    OLD_UPDATES,
    UPDATES,
    as_bits,
    as_overload,
    fits,
    reinterpreted,
)
from sophon.sail._library import Block, Device, Library
from sophon.sail._types import DataTypeError, Dtype, MemoryError, SailTensorError  # noqa: A004

_GARBAGE: Final = b'\x5a\xd1\x7f\x7f'  # what memory_set writes before 3.10.7: a dead local


class Handle:
    """A chip. Every handle of one chip shares the emulated device."""

    def __init__(self, dev_id: int) -> None:
        self.device: Device = Library.of_this_process().device(dev_id)
        _ledger.note(_ledger.SYS, id(self))

    def __del__(self) -> None:
        if hasattr(self, 'device'):
            _ledger.strike(_ledger.SYS, id(self))

    def get_device_id(self) -> int:
        """Return the chip's number."""
        return self.device.number

    def get_sn(self) -> str:
        """Return the serial number; the emulator has none."""
        return 'Error'

    def get_target(self) -> str:
        """Return the chip's name: 'BM1684X' or 'BM1688'."""
        return self.device.chip_name


class Tensor:
    """Device memory, host memory or both, with a shape and a type.

    See the module `sophon.sail` for the constructors. Byte counts are 32-bit on the device.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._sys: NDArray[Any] | None = None
        self._block: Block | None = None
        self._offset = 0  # bytes into the block
        self._owns_sys = self._owns_dev = False
        self._room: int | None = None  # bytes of memory, where the shape says less
        constructors: dict[str, Callable[..., None]] = {
            'allocate': self._allocate,
            'data': self._from_data,
            'view': self._view,
        }
        constructors[_constructor_of(args, kwargs)](*args, **kwargs)

    # -- construction ---------------------------------------------------------------------------

    def _allocate(
        self,
        handle: Handle,
        shape: Sequence[int],
        dtype: Dtype,
        own_sys_data: bool = False,  # noqa: FBT001, FBT002, the binding's own signature
        own_dev_data: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        if not isinstance(dtype, Dtype):
            raise TypeError('__init__(): incompatible constructor arguments: dtype')
        self._device = handle.device
        self._shape = [int(n) for n in shape]
        self._dtype = dtype
        self._owns_sys, self._owns_dev = own_sys_data, own_dev_data
        if not _is_valid(self._shape):
            return
        if own_dev_data:
            self._take_memory()
        if own_sys_data:
            self._sys = np.empty(self._shape, dtype.host)

    def _take_memory(self) -> None:
        self._block, free = self._device.allocate(self.nbytes())
        self._free = weakref.finalize(self, free)

    def _from_data(
        self,
        handle: Handle,
        data: NDArray[Any],
        own_sys_data: bool = True,  # noqa: FBT001, FBT002, the binding's own signature
        own_dev_data: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        array = as_overload(data, tuple(FROM_DATA))
        if array.ndim < 1:
            raise SailTensorError('invalid argument')
        dtype = FROM_DATA[array.dtype]
        self._allocate(handle, array.shape, dtype, own_sys_data, own_dev_data)
        if self._sys is not None:
            self._sys[...] = array
        elif self._block is not None:
            self._device.to_device(self.memory(), np.ascontiguousarray(array))

    def _view(
        self,
        src: Tensor,
        shape: Sequence[int],
        offset: int,
        no_copy: bool = True,  # noqa: FBT001, FBT002, the binding's own signature
    ) -> None:
        self._shape = [int(n) for n in shape]
        if not _is_valid(self._shape):
            raise SailTensorError('invalid shape')
        if not src.is_dev_data_valid():
            raise SailTensorError('invalid Tensor')
        self._device, self._dtype = src._device, src._dtype
        if offset < 0:
            raise TypeError('__init__(): incompatible constructor arguments: offset')
        start = offset * self.element_size()
        if start + self.nbytes() > src.nbytes():
            raise SailTensorError('size out of range')
        if not no_copy:
            raise SailTensorError('not supported')
        self._block, self._offset = src._block, src._offset + start
        if src._sys is not None:
            flat = src._sys.reshape(-1)[offset : offset + self.size()]
            self._sys = flat.reshape(self._shape)

    # -- questions ------------------------------------------------------------------------------

    def shape(self) -> list[int]:
        """Return the dimensions."""
        return list(self._shape)

    def dtype(self) -> Dtype:
        """Return the element type."""
        return self._dtype

    def size(self) -> int:
        """Return the number of elements."""
        return math.prod(self._shape)

    def element_size(self) -> int:
        """Return the bytes of an element."""
        return self._dtype.host.itemsize

    def nbytes(self) -> int:
        """Return the bytes of all elements."""
        return self.size() * self.element_size()

    def device_id(self) -> int:
        """Return the number of the chip."""
        return self._device.number

    def own_sys_data(self) -> bool:
        """Return whether it owns host memory."""
        return self._owns_sys

    def own_dev_data(self) -> bool:
        """Return whether it owns device memory."""
        return self._owns_dev

    def is_dev_data_valid(self) -> bool:
        """Return whether it has device memory."""
        return self._block is not None

    def is_sys_data_valid(self) -> bool:
        """Return whether it has host memory."""
        return self._sys is not None

    def room(self) -> int:
        """Return the bytes of its device memory. Not in the real binding."""
        return self.nbytes() if self._room is None else self._room

    def memory(self, offset: int = 0, size: int | None = None) -> DeviceMemory:
        """Return its device memory, or a part of it in bytes. Not in the real binding.

        Raises:
            MisuseError: Its memory was freed.
        """
        if self._block is None:
            raise MisuseError('the tensor has no device memory')
        return self._block.range(self._offset + offset, self.nbytes() if size is None else size)

    # -- data -----------------------------------------------------------------------------------

    def reshape(self, shape: Sequence[int]) -> None:
        """Change the shape; memory of its own is allocated again where the size changes.

        Foreign memory (a view's, a net's) stays what it is, so a tensor may say less than it has:
        dynamic nets want that. Source: sophon-sail, src/tensor.cpp, Tensor_CC::reset.

        Raises:
            MisuseError: More than there is.
        """
        if not _is_valid(shape):
            raise SailTensorError('invalid argument')
        size = math.prod(shape) * self.element_size()
        grown = size != self.nbytes()
        if self._block is not None and not self._owns_dev and size > self.room():
            raise MisuseError('reshape of a tensor over foreign memory beyond its size')
        if not self._owns_dev:
            self._room = self.room()
        self._shape = [int(n) for n in shape]
        if grown and self._owns_dev:
            self._free()
            self._take_memory()
        if self._sys is not None:
            self._sys = (
                np.empty(self._shape, self._dtype.host)
                if grown
                else self._sys.reshape(self._shape)
            )

    def update_data(self, data: NDArray[Any]) -> None:
        """Copy an array of the very same shape into host memory, else into device memory."""
        old = _options.is_old_release()
        array = as_overload(data, OLD_UPDATES if old else UPDATES)
        if list(array.shape) != self._shape:
            raise SailTensorError('invalid argument')
        if old:
            array = reinterpreted(array, self._dtype)
        elif not fits(array.dtype, self._dtype):
            raise SailTensorError('Wrong dtype of input array!')
        array = np.ascontiguousarray(array).view(self._dtype.host)
        if self._sys is not None:
            self._sys[...] = array
        elif self._block is not None:
            self._device.to_device(self.memory(), array)
        else:
            raise SailTensorError('invalid Tensor')

    def asnumpy(self, shape: Sequence[int] | None = None) -> NDArray[Any]:
        """Return a copy of host memory where it has some, else of device memory."""
        if self._sys is not None:
            result: NDArray[Any] = self._sys.copy()
        elif self._block is not None:
            result = np.empty(self._shape, self._dtype.host)
            self._device.to_host(self.memory(), result)
        else:
            raise SailTensorError('invalid Tensor')
        return result if shape is None else result.reshape(list(shape))

    def sync_s2d(self, *args: Any) -> None:
        """Copy host to device: (), (bytes), or (src, offset_src, offset_dst, len) in elements."""
        if len(args) == 4:
            self._sync_from_host_of(*args)
        elif self._sys is not None:
            data = self._sys.reshape(-1).view(np.uint8)[: self._bytes_asked(args)]
            self._device.to_device(self.memory(), data)

    def sync_d2s(self, *args: Any) -> None:
        """Copy device to host: (), (bytes), or (src, offset_src, offset_dst, len) in elements."""
        if len(args) == 4:
            self._sync_from_device_of(*args)
        elif self._sys is not None:
            data = self._sys.reshape(-1).view(np.uint8)[: self._bytes_asked(args)]
            self._device.to_host(self.memory(), data)

    def sync_d2d(self, src: Tensor, offset_src: int, offset_dst: int, len: int) -> None:  # noqa: A002
        """Copy elements of another tensor on the device."""
        if self._dtype is not src._dtype:
            raise SailTensorError('mismatch Tensor')
        if self._block is None or src._block is None:
            raise SailTensorError('invalid Tensor')
        if not _in_bounds(src, offset_src, len) or not _in_bounds(self, offset_dst, len):
            raise SailTensorError('size out of range')
        width = self.element_size()
        self._device.on_device(
            self.memory(offset_dst * width, len * width),
            src.memory(offset_src * width, len * width),
        )

    def memory_set(self, c: Any) -> None:
        """Fill host and device memory with one number."""
        value = np.asarray(c)
        if value.size != 1:
            raise MisuseError('memory_set of more than one number reads only the first')
        if _options.is_old_release():
            pattern = _GARBAGE[: self.element_size()]
        else:
            pattern = as_bits(value.reshape(()), self._dtype).tobytes()
        if self._sys is not None:
            self._sys[...] = np.frombuffer(pattern, self._dtype.host)[0]
        if self._block is not None:
            self._device.fill(self.memory(), pattern)

    def zeros(self) -> None:
        """Fill with 0."""
        self.memory_set(0)

    def ones(self) -> None:
        """Fill with 1."""
        self.memory_set(1)

    def _bytes_asked(self, args: tuple[Any, ...]) -> int:
        size = int(args[0]) if args else self.nbytes()
        if not 0 <= size <= self.nbytes():
            raise MisuseError(f'a copy of {size} bytes, the tensor has {self.nbytes()}')
        return size

    def _sync_from_host_of(
        self, src: Tensor, offset_src: int, offset_dst: int, count: int
    ) -> None:
        self._check_copy(src, offset_src, offset_dst, count)
        if src._sys is None or self._block is None:
            raise MemoryError('Do not found device memory!')
        width = self.element_size()
        data = src._sys.reshape(-1)[offset_src : offset_src + count]
        self._device.to_device(self.memory(offset_dst * width, count * width), data)

    def _sync_from_device_of(
        self, src: Tensor, offset_src: int, offset_dst: int, count: int
    ) -> None:
        self._check_copy(src, offset_src, offset_dst, count)
        if src._block is None:
            raise MemoryError('Data is not on the device!')
        if self._sys is None:
            raise MemoryError('Do not found system memory!')
        width = self.element_size()
        data = self._sys.reshape(-1)[offset_dst : offset_dst + count]
        self._device.to_host(src.memory(offset_src * width, count * width), data)

    def _check_copy(self, src: Tensor, offset_src: int, offset_dst: int, count: int) -> None:
        if self._dtype is not src._dtype:
            raise DataTypeError('Dtype not match!')
        if not _in_bounds(src, offset_src, count):
            raise MemoryError('Source data out of bounds!')
        if not _in_bounds(self, offset_dst, count):
            raise MemoryError('Destination data out of bounds!')

    def __len__(self) -> int:
        return self.size()


class OwnTensor(Tensor):
    """A tensor over memory that belongs to a net; to the caller it is a `Tensor`."""

    def __init__(self, device: Device, shape: Sequence[int], dtype: Dtype, block: Block) -> None:
        self._sys, self._block, self._offset = None, block, 0
        self._owns_sys = self._owns_dev = False
        self._room = None
        self._device, self._shape, self._dtype = device, list(shape), dtype


def _constructor_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return which overload the binding would take.

    Raises:
        TypeError: No overload takes these arguments.
    """
    first = args[0] if args else kwargs.get('handle', kwargs.get('src'))
    if isinstance(first, Tensor):
        return 'view'
    if isinstance(first, Handle):
        has_dtype = 'dtype' in kwargs or (len(args) > 2 and isinstance(args[2], Dtype))
        return 'allocate' if has_dtype else 'data'
    raise TypeError('__init__(): incompatible constructor arguments')


def _is_valid(shape: Sequence[int]) -> bool:
    return len(shape) > 0 and all(n > 0 for n in shape)


def _in_bounds(tensor: Tensor, offset: int, count: int) -> bool:
    """Return whether elements lie within a tensor.

    Raises:
        MisuseError: A negative number; the binding adds it up without a look.
    """
    if offset < 0 or count < 0:
        raise MisuseError(f'a copy of {count} elements at {offset}')
    return offset + count <= tensor.size()
