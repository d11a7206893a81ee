"""The stub from Python: what computes its runs, its counters, its options."""

from __future__ import annotations

import ctypes
import sys
import traceback
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from support.axera.axmodel_file import Axmodel, Tensor, read_axmodel
from support.axera.layers import Compute, open_compute

_OPEN = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)
_RUN = ctypes.CFUNCTYPE(
    ctypes.c_int32,
    ctypes.c_uint64,
    ctypes.c_uint32,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(ctypes.c_void_p),
)
_CLOSE = ctypes.CFUNCTYPE(None, ctypes.c_uint64)
_UNKNOWN: Final = 2**64 - 1


class _Callbacks(ctypes.Structure):
    _fields_ = (('open', _OPEN), ('run', _RUN), ('close', _CLOSE))


class Stub:
    """The hooks of a built stub.

    Args:
        folder: Of `build_stub` or `build_card_stub`.
        name: The library's file.
    """

    def __init__(self, folder: Path, name: str = 'libax_engine.so') -> None:
        self.library = ctypes.CDLL(str(folder / name))
        self.library.ax_stub_count.argtypes = (ctypes.c_char_p,)
        self.library.ax_stub_count.restype = ctypes.c_uint64
        self.library.ax_stub_set.argtypes = (ctypes.c_char_p, ctypes.c_uint64)
        self.library.ax_stub_set_compute.argtypes = (_Callbacks,)
        self.library.ax_stub_set_compute.restype = None
        self.library.ax_stub_device_memory.argtypes = (ctypes.c_uint64, ctypes.c_uint64)
        self.library.ax_stub_device_memory.restype = ctypes.c_void_p
        self._opened: dict[int, tuple[Axmodel, Compute]] = {}
        self._callbacks = _Callbacks(_OPEN(self._open), _RUN(self._run), _CLOSE(self._close))

    def count(self, name: str) -> int:
        """Read a counter: a vendor function's name (its calls), or one listed in stub.h."""
        value: int = self.library.ax_stub_count(name.encode())
        if value == _UNKNOWN:
            raise KeyError(name)
        return value

    def reset_counts(self) -> None:
        """Let all flows start at zero; levels (blocks, bytes, handles) stay."""
        self.library.ax_stub_reset_counts()

    def set(self, **options: int) -> None:
        """Set options listed in stub.h."""
        for name, value in options.items():
            if self.library.ax_stub_set(name.encode(), value):
                raise KeyError(name)

    def reset_options(self) -> None:
        """Set all options back."""
        self.library.ax_stub_reset_options()

    def compute(self) -> None:
        """Compute the runs of models opened from now on by `support.axera.layers`."""
        self.library.ax_stub_set_compute(self._callbacks)

    def compute_nothing(self) -> None:
        """Let outputs become zeros, without a way through Python: for timing."""
        self.library.ax_stub_set_compute(_Callbacks())

    def device_bytes(self, phy: int, nbytes: int) -> NDArray[np.uint8]:
        """See what the chip sees at a physical address."""
        address = self.library.ax_stub_device_memory(phy, nbytes)
        if not address:
            raise KeyError(hex(phy))
        return _array(address, (nbytes,), np.dtype(np.uint8))

    def _open(self, number: int, data: int, nbytes: int) -> int:
        try:
            model = read_axmodel(ctypes.string_at(data, nbytes))
            self._opened[number] = (model, open_compute(model))
        except ValueError:  # damaged after the header
            return 1
        return 0

    def _run(self, number: int, group: int, inputs: Any, outputs: Any) -> int:
        try:
            model, run = self._opened[number]
            tensors = model.groups[group]
            taken = [_tensor(inputs[i], t) for i, t in enumerate(tensors.inputs)]
            given = [_tensor(outputs[i], t) for i, t in enumerate(tensors.outputs)]
            results = run(group, taken)
            for array, result in zip(given, results or given, strict=True):
                array[...] = result if results else 0
        except Exception:  # noqa: BLE001 (an exception cannot pass through C)
            traceback.print_exc(file=sys.stderr)
            return 1
        return 0

    def _close(self, number: int) -> None:
        self._opened.pop(number, None)


def _tensor(address: int, tensor: Tensor) -> NDArray[Any]:
    return _array(address, tensor.shape, tensor.numpy_dtype)


def _array(address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    nbytes = int(np.prod(shape)) * dtype.itemsize
    buffer = (ctypes.c_uint8 * nbytes).from_address(address)
    found: NDArray[Any] = np.frombuffer(memoryview(buffer), np.uint8).view(dtype)
    return found.reshape(shape)
