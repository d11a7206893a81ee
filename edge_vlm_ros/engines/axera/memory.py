"""Chip memory (CMM) that the processor sees through a cache of its own."""

from __future__ import annotations

import ctypes
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edge_vlm_ros.core import DeviceError
from edge_vlm_ros.engines.axera.chip import ChipBlock
from edge_vlm_ros.engines.axera.library import Library, failed

_ALIGN = 128
_LINE = 64  # of the processor's cache; what a driver does with less than a line is not documented
_OWNER = b'edge_vlm_ros'


class Block:
    """One block of chip memory. The chip sees what was flushed, we see what was invalidated.

    Caches move whole lines, so two writers (chip and processor) never share a line: what the
    processor writes begins and ends at a line, or lies beside bytes that only it writes.

    Args:
        library: Allocates and frees.
        nbytes: Size; what it holds at first is left over from others and may be NaN.
        what: For messages.
        padding: Bytes after it that the chip may touch and that mean nothing.

    Raises:
        DeviceError: The chip has no memory left.
    """

    def __init__(self, library: Library, nbytes: int, what: str, padding: int = 0) -> None:
        room = -(-(nbytes + padding) // _ALIGN) * _ALIGN
        phy, vir = ctypes.c_uint64(), ctypes.c_void_p()
        token = (ctypes.c_int8 * (len(_OWNER) + 1))(*_OWNER)
        allocate = library.function('AX_SYS_MemAllocCached')
        code = allocate(ctypes.byref(phy), ctypes.byref(vir), room, _ALIGN, token)
        if code or not vir.value:
            raise DeviceError(
                f'the chip has no {room} bytes of memory left for {what}: stop other programs '
                'that use the NPU, or choose a smaller model '
                f'({failed("AX_SYS_MemAllocCached", code)})'
            )
        self.phy: int = phy.value
        """Address for the chip."""
        self.vir: int = vir.value
        """Address for the processor."""
        self.nbytes = nbytes
        """Bytes asked for."""
        self.room = room
        """Bytes that the chip may touch."""
        self._flush = library.function('AX_SYS_MflushCache')
        self._invalidate = library.function('AX_SYS_MinvalidateCache')
        self._free = library.function('AX_SYS_MemFree')
        buffer = (ctypes.c_uint8 * nbytes).from_address(vir.value)
        self.bytes: NDArray[np.uint8] = np.ctypeslib.as_array(buffer)
        """What the processor sees; not to be used after `close`."""
        self._is_open = True

    def view(self, dtype: DTypeLike, *shape: int) -> NDArray[Any]:
        """See its first bytes as an array; not to be used after `close`."""
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        assert count <= self.nbytes, (shape, self.nbytes)
        return cast('NDArray[Any]', self.bytes[:count].view(dtype).reshape(shape))

    def flush(self, offset: int, nbytes: int) -> None:
        """Show the chip what the processor wrote to bytes [offset, offset + nbytes).

        Raises:
            DeviceError: The driver failed.
        """
        start, size = self._lines(offset, nbytes)
        code = self._flush(self.phy + start, self.vir + start, size)
        if code:
            raise failed('AX_SYS_MflushCache', code)

    def invalidate(self, offset: int, nbytes: int) -> None:
        """Show the processor what the chip wrote to bytes [offset, offset + nbytes).

        Raises:
            DeviceError: The driver failed.
        """
        start, size = self._lines(offset, nbytes)
        code = self._invalidate(self.phy + start, self.vir + start, size)
        if code:
            raise failed('AX_SYS_MinvalidateCache', code)

    def take(self, source: ChipBlock, start: int, at: int, nbytes: int) -> None:
        """Copy what the chip has in a block, through the processor; see `ChipBlock.take`."""
        source.invalidate(start, nbytes)
        bits = source.view(np.uint8, source.nbytes)
        self.bytes[at : at + nbytes] = bits[start : start + nbytes]
        self.flush(at, nbytes)

    def _lines(self, offset: int, nbytes: int) -> tuple[int, int]:
        """Give start and bytes of the whole lines that hold a range."""
        assert 0 <= offset <= offset + nbytes <= self.nbytes, (offset, nbytes, self.nbytes)
        start = offset // _LINE * _LINE
        return start, -(-(offset + nbytes) // _LINE) * _LINE - start

    def clear(self) -> None:
        """Fill it with zeros, on the chip too."""
        self.bytes[:] = 0
        self.flush(0, self.nbytes)

    def close(self) -> None:
        """Free it; safe to call twice.

        Raises:
            DeviceError: The driver failed.
        """
        if not self._is_open:
            return
        self._is_open = False
        code = self._free(self.phy, self.vir)
        if code:
            raise failed('AX_SYS_MemFree', code)
