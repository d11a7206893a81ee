"""libax_sys and libax_engine written in Python, on `support.axera.layers`.

Functions take what ctypes would pass on: arrays of one element for results, addresses as int.
Fresh memory is full of 0xFF, not-a-number in bfloat16, as memory of a chip may be. Physical and
virtual addresses differ, but there is one copy: flushes are counted, not needed.
"""

# Functions keep the vendor's names.
# ruff: noqa: N802
from __future__ import annotations

import ctypes as c
import time
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from support.axera.axmodel_file import Axmodel, AxmodelError, Group, Tensor, read_axmodel
from support.axera.layers import Compute, open_compute

from axengine import _abi, _environment

OK: Final = 0
FAILED: Final = -1
_PHYSICAL: Final = 1 << 44
"""Physical address less virtual address."""


@dataclass(slots=True)
class Ledger:
    """What the chip holds and did; for tests.

    Attributes:
        buffers: Bytes by physical address of what is allocated now.
        handles: Models that are loaded now.
        flushed_bytes: Bytes written back for the chip so far.
        invalidated_bytes: Bytes read back from the chip so far.
        runs: Runs so far.
        is_on: Whether the engine is initialised.
    """

    buffers: dict[int, int] = field(default_factory=dict)
    handles: set[int] = field(default_factory=set)
    flushed_bytes: int = 0
    invalidated_bytes: int = 0
    runs: int = 0
    is_on: bool = False

    @property
    def held_bytes(self) -> int:
        """Bytes allocated now."""
        return sum(self.buffers.values())

    def runs_out(self, more_bytes: int) -> bool:
        """Return whether the chip's memory is too small for so much more."""
        return self.held_bytes + more_bytes > _environment.bound('CMM_BYTES')

    def count_run(self) -> bool:
        """Count a run; False = it is to fail."""
        self.runs += 1
        return self.runs <= _environment.bound('RUNS')


LEDGER: Final = Ledger()


def load_model(content: bytes) -> Axmodel | None:
    """Read a model for this chip; None = the chip refuses it."""
    try:
        model = read_axmodel(content)
    except AxmodelError:
        return None
    return model if model.chip in {'any', _environment.chip()} else None


class PythonSys:
    """libax_sys."""

    def __init__(self) -> None:
        self._memory: dict[int, NDArray[np.uint8]] = {}

    def AX_SYS_Init(self) -> int:
        """Start."""
        return OK

    def AX_SYS_Deinit(self) -> int:
        """End."""
        return OK

    def AX_SYS_MemAllocCached(self, phy: Any, vir: Any, size: int, align: int, token: Any) -> int:
        """Allocate `size` bytes, not cleared."""
        del token
        if LEDGER.runs_out(size):
            return FAILED
        block = np.full(size + align, 0xFF, np.uint8)
        address = -(-block.ctypes.data // align) * align
        phy[0], vir[0] = address + _PHYSICAL, address
        self._memory[phy[0]] = block
        LEDGER.buffers[phy[0]] = size
        return OK

    def AX_SYS_MemFree(self, phy: int, vir: Any) -> int:
        """Free what was allocated at an address."""
        if self._memory.pop(int(phy), None) is None or int(vir) != int(phy) - _PHYSICAL:
            return FAILED
        del LEDGER.buffers[int(phy)]
        return OK

    def AX_SYS_MflushCache(self, phy: int, vir: Any, size: int) -> int:
        """Count."""
        del phy, vir
        LEDGER.flushed_bytes += size
        return OK

    def AX_SYS_MinvalidateCache(self, phy: int, vir: Any, size: int) -> int:
        """Count."""
        del phy, vir
        LEDGER.invalidated_bytes += size
        return OK


class _Handle:
    """One loaded model and its tables."""

    def __init__(self, model: Axmodel) -> None:
        self.model = model
        self.compute: Compute = open_compute(model)
        self._kept: list[Any] = []
        self.infos = [self._info(group) for group in model.groups]

    def run(self, number: int, io: _abi.Io) -> None:
        """Run a group on the memory behind the physical addresses."""
        group = self.model.groups[number]
        if group.delay_us:
            time.sleep(group.delay_us * 1e-6)
        inputs = [_tensor_at(io.pInputs[i], t) for i, t in enumerate(group.inputs)]
        results = self.compute(number, inputs)
        for i, result in enumerate(results or ()):
            _tensor_at(io.pOutputs[i], group.outputs[i])[...] = result

    def _info(self, group: Group) -> _abi.IoInfo:
        info = _abi.IoInfo()
        info.pInputs, info.nInputSize = self._metas(group.inputs), len(group.inputs)
        info.pOutputs, info.nOutputSize = self._metas(group.outputs), len(group.outputs)
        return info

    def _metas(self, tensors: tuple[Tensor, ...]) -> Any:
        metas = (_abi.IoMeta * len(tensors))()
        for meta, tensor in zip(metas, tensors, strict=True):
            shape = (c.c_int32 * len(tensor.shape))(*tensor.shape)
            self._kept.append(shape)
            meta.pName, meta.pShape = tensor.name.encode(), c.cast(shape, c.POINTER(c.c_int32))
            meta.nShapeSize, meta.nSize = len(tensor.shape), tensor.nbytes
            is_known = tensor.dtype != 'bf16' or _environment.knows_bf16()
            meta.eDataType = _abi.DATA_TYPES[tensor.dtype] if is_known else 0
        self._kept.append(metas)
        return c.cast(metas, c.POINTER(_abi.IoMeta))


def _tensor_at(buffer: _abi.IoBuffer, tensor: Tensor) -> NDArray[Any]:
    assert tensor.nbytes <= buffer.nSize, (tensor, buffer.nSize)
    raw = memoryview((c.c_ubyte * tensor.nbytes).from_address(buffer.phyAddr - _PHYSICAL))
    found: NDArray[Any] = np.frombuffer(raw, tensor.numpy_dtype).reshape(tensor.shape)
    return found


class PythonEngine:
    """libax_engine. Without SetAffinity or with GetTotalOps it would be another chip's."""

    def __init__(self) -> None:
        self._handles: dict[int, _Handle] = {}
        self._numbers = count(0x1000, 8)
        if _environment.chip() == 'ax630c':
            self.AX_ENGINE_GetTotalOps = lambda: OK

    def AX_ENGINE_SetAffinity(self, handle: Any, cores: int) -> int:
        """Do nothing; its presence tells the chip."""
        del handle, cores
        return OK

    def AX_ENGINE_GetVersion(self) -> bytes:
        """Name a version."""
        return b'2.12.0s (stand-in)'

    def AX_ENGINE_Init(self, attribute: Any) -> int:
        """Start."""
        del attribute
        LEDGER.is_on = True
        return OK

    def AX_ENGINE_GetVNPUAttr(self, attribute: Any) -> int:
        """Tell the mode; fails before `Init`, unless another program had its way."""
        mode = _environment.vnpu_mode()
        if not LEDGER.is_on and not mode:
            return FAILED
        attribute[0].eHardMode = mode
        return OK

    def AX_ENGINE_Deinit(self) -> int:
        """End."""
        LEDGER.is_on = False
        return OK

    def AX_ENGINE_GetModelType(self, data: int, size: int, model_type: Any) -> int:
        """Tell the cores: all of them, whatever the bytes (`CreateHandleV2` looks at them)."""
        del data, size
        model_type[0] = 1 if _environment.chip() == 'ax630c' else 2
        return OK

    def AX_ENGINE_CreateHandleV2(self, handle: Any, data: int, size: int, extra: Any) -> int:
        """Load a model; fails where it is damaged or another chip's."""
        del extra
        model = load_model(c.string_at(data, size))
        if model is None:
            return FAILED
        handle[0] = next(self._numbers)
        self._handles[handle[0]] = _Handle(model)
        LEDGER.handles.add(handle[0])
        return OK

    def AX_ENGINE_CreateContextV2(self, handle: int, context: Any) -> int:
        """Give a context."""
        context[0] = handle + 1
        return OK

    def AX_ENGINE_GetModelToolsVersion(self, handle: int) -> bytes:
        """Name a version."""
        del handle
        return b'4.1 (stand-in)'

    def AX_ENGINE_GetGroupIOInfoCount(self, handle: int, found: Any) -> int:
        """Count the shape groups."""
        found[0] = len(self._handles[handle].infos)
        return OK

    def AX_ENGINE_GetGroupIOInfo(self, handle: int, number: int, info: Any) -> int:
        """Tell of one group."""
        info[0] = c.pointer(self._handles[handle].infos[number])
        return OK

    def AX_ENGINE_GetIOInfo(self, handle: int, info: Any) -> int:
        """Tell of the only group."""
        return self.AX_ENGINE_GetGroupIOInfo(handle, 0, info)

    def AX_ENGINE_RunSyncV2(self, handle: int, context: int, io: Any) -> int:
        """Run the only group."""
        return self.AX_ENGINE_RunGroupIOSync(handle, context, 0, io)

    def AX_ENGINE_RunGroupIOSync(self, handle: int, context: int, number: int, io: Any) -> int:
        """Run one group."""
        if context != handle + 1 or not LEDGER.count_run():
            return FAILED
        self._handles[handle].run(number, io[0])
        return OK

    def AX_ENGINE_DestroyHandle(self, handle: int | None) -> int:
        """Unload; again and None do nothing."""
        if handle is None or self._handles.pop(handle, None) is None:
            return FAILED
        LEDGER.handles.discard(handle)
        return OK
