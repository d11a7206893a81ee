"""Sessions on the chip: libax_sys and libax_engine driven call by call as the package does.

One buffer for each tensor's place, as large as the largest group wants, allocated once, neither
cleared nor freed; a run copies and flushes every input, and copies every output.
"""

from __future__ import annotations

import atexit
import ctypes as c
import importlib
import mmap
import os
from enum import Enum
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from support.axera.stub.compute import Stub

from axengine import _abi, _environment
from axengine._base_session import Session, check_feed, node_bytes, raw_bytes
from axengine._node import NodeArg
from axengine._python_library import PythonEngine, PythonSys

for _name in _environment.needs():
    importlib.import_module(_name)

_DTYPES = {
    1: np.dtype(np.uint8),
    2: np.dtype(np.uint16),
    3: np.dtype(np.float32),
    4: np.dtype(np.int16),
    5: np.dtype(np.int8),
    6: np.dtype(np.int32),
    7: np.dtype(np.uint32),
    9: np.dtype(ml_dtypes.bfloat16),
}
_ALIGN = 128

stub: Stub | None = None
"""The C stub's hooks, where it is driven."""


class ChipType(Enum):
    """AX630C and AX620E; AX650; M57H."""

    MC20E = 0
    MC50 = 1
    M57H = 2


class ModelType(Enum):
    """How many of the cores a file is for; of the AX630C 0 is half and 1 is full."""

    SINGLE = 0
    DUAL = 1
    TRIPLE = 2


class VNPUType(Enum):
    """How the cores are shared; 0 = not."""

    DISABLED = 0
    ENABLED = 1
    BIG_LITTLE = 2
    LITTLE_BIG = 3


def _libraries() -> tuple[Any, Any]:
    folder = _environment.library_folder()
    if folder is None:
        return PythonSys(), PythonEngine()
    sys_library = c.CDLL(str(folder / 'libax_sys.so'))
    engine_library = c.CDLL(str(folder / 'libax_engine.so'))
    if hasattr(engine_library, 'ax_stub_set_compute'):
        # The C stub has memory and counters; what a run computes it asks Python for. Kept, for
        # it holds the functions that C calls.
        global stub  # noqa: PLW0603 (there is one library in a process)
        stub = Stub(folder)
        stub.compute()
    return _abi.declare(sys_library, 'AX_SYS'), _abi.declare(engine_library, 'AX_ENGINE')


sys_lib, engine_lib = _libraries()


def _chip_type() -> ChipType:
    if not hasattr(engine_lib, 'AX_ENGINE_SetAffinity'):
        return ChipType.M57H
    has_ops = hasattr(engine_lib, 'AX_ENGINE_GetTotalOps')
    return ChipType.MC20E if has_ops else ChipType.MC50


def _vnpu_type() -> VNPUType:
    attribute = (_abi.NpuAttr * 1)()
    if engine_lib.AX_ENGINE_GetVNPUAttr(attribute):
        raise RuntimeError('Failed to get VNPU attribute.')
    return VNPUType(attribute[0].eHardMode)


def _initialize_engine() -> None:
    if sys_lib.AX_SYS_Init():
        raise RuntimeError('Failed to initialize ax sys.')
    attribute = (_abi.NpuAttr * 1)()
    if engine_lib.AX_ENGINE_GetVNPUAttr(attribute):
        attribute[0].eHardMode = VNPUType.DISABLED.value
    if engine_lib.AX_ENGINE_Init(attribute):
        raise RuntimeError('Failed to initialize ax sys engine.')
    print(f'[INFO] Chip type: {_chip_type()}')
    print(f'[INFO] VNPU type: {_vnpu_type()}')
    print(f'[INFO] Engine version: {engine_lib.AX_ENGINE_GetVersion().decode()}')


def _finalize_engine() -> None:
    engine_lib.AX_ENGINE_Deinit()
    sys_lib.AX_SYS_Deinit()


_held: dict[int, tuple[Any, Any]] = {}
"""Every buffer that was allocated, by physical address."""
_handles: set[int] = set()


def end_for_tests() -> None:
    """Free what sessions left behind, as the end of a process would, and end the engine.

    Several tests in one process drive one C library; the package has no such function.
    """
    atexit.unregister(_finalize_engine)
    for handle in _handles:
        engine_lib.AX_ENGINE_DestroyHandle(handle)
    for phy, vir in _held.values():
        sys_lib.AX_SYS_MemFree(phy[0], vir[0])
    _finalize_engine()
    if stub is not None:
        stub.compute_nothing()


_initialize_engine()
atexit.register(_finalize_engine)


class AXEngineSession(Session):
    """One model on the chip. Not for several threads."""

    def __init__(self, source: str | bytes | os.PathLike[str]) -> None:
        super().__init__()
        self._chip_type = _chip_type()
        self._handle = (c.c_void_p * 1)()
        self._context = (c.c_void_p * 1)()
        self._io = (_abi.Io * 1)()
        self._map(source)
        self._load()
        found = (c.c_uint32 * 1)()
        if engine_lib.AX_ENGINE_GetGroupIOInfoCount(self._handle[0], found):
            raise RuntimeError('Failed to get model shape group.')
        self._shape_count = found[0]
        self._info = [self._group_info(i) for i in range(self._shape_count)]
        self._inputs = [
            _nodes(info[0].contents.pInputs, info[0].contents.nInputSize) for info in self._info
        ]
        self._outputs = [
            _nodes(info[0].contents.pOutputs, info[0].contents.nOutputSize) for info in self._info
        ]
        self._io_inputs_pool: list[tuple[Any, Any]] = []
        self._io_outputs_pool: list[tuple[Any, Any]] = []
        inputs = self._allocate('pInputs', len(self._inputs[0]), self._io_inputs_pool, 'input')
        outputs = self._allocate(
            'pOutputs', len(self._outputs[0]), self._io_outputs_pool, 'output'
        )
        self._io_buffers = (inputs, outputs)

    def __del__(self) -> None:
        self._unload()

    def run(
        self,
        output_names: list[str] | None,
        input_feed: dict[str, NDArray[Any]],
        run_options: object = None,
        shape_group: int = 0,
    ) -> list[NDArray[Any]]:
        """Run a group."""
        del run_options
        self._check_names(output_names, input_feed)
        ranks = self._ranks(output_names, shape_group)
        for name, array in input_feed.items():
            self._feed(name, array, shape_group)
        if self._execute(shape_group):
            raise RuntimeError('Failed to run model.')
        return [self._fetch(i, self.get_outputs(shape_group)[i]) for i in ranks]

    def _map(self, source: str | bytes | os.PathLike[str]) -> None:
        if isinstance(source, bytes):  # and no name: loading fails, as in the package
            self._bytes = np.frombuffer(source, np.uint8)
        elif isinstance(source, (str, os.PathLike)):
            self._model_name = Path(source).stem
            with Path(source).open('rb') as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._bytes = np.frombuffer(mapped, np.uint8)
        else:
            raise TypeError(f"Unable to load model from type '{type(source)}'")

    def _load(self) -> None:
        place, size = self._bytes.ctypes.data, len(self._bytes)
        model_type = (c.c_int * 1)()
        if engine_lib.AX_ENGINE_GetModelType(place, size, model_type):
            raise RuntimeError('Failed to get model type.')
        print(f'[INFO] Model type: {model_type[0]}')
        self._check_mode(model_type[0])
        extra = (_abi.HandleExtra * 1)()
        extra[0].pName = self._model_name.encode()
        if engine_lib.AX_ENGINE_CreateHandleV2(
            self._handle, place, size, extra
        ) or engine_lib.AX_ENGINE_CreateContextV2(self._handle[0], self._context):
            raise RuntimeError('Failed to load model.')
        _handles.add(int(self._handle[0] or 0))
        version = engine_lib.AX_ENGINE_GetModelToolsVersion(self._handle[0])
        print(f'[INFO] Compiler version: {version.decode()}')

    def _check_mode(self, cores: int) -> None:
        """Refuse files of more cores than the mode gives one program, as the package does."""
        mode = _vnpu_type()
        if self._chip_type is ChipType.MC20E:
            is_allowed = mode is not VNPUType.ENABLED or cores == 0
        else:
            most = {VNPUType.DISABLED: 2, VNPUType.ENABLED: 0}.get(mode, 1)
            is_allowed = cores <= most
        if not is_allowed:
            raise ValueError(
                f"Model type '{ModelType(cores)}' is not allowed when vnpu is inited as {mode}."
            )

    def _group_info(self, number: int) -> Any:
        info = (c.POINTER(_abi.IoInfo) * 1)()
        if self._shape_count == 1:
            failed = engine_lib.AX_ENGINE_GetIOInfo(self._handle[0], info)
        else:
            failed = engine_lib.AX_ENGINE_GetGroupIOInfo(self._handle[0], number, info)
        if failed:
            raise RuntimeError(f'Failed to get model the {number}th shape.')
        return info

    def _allocate(self, side: str, number: int, pool: list[tuple[Any, Any]], what: str) -> Any:
        buffers = (_abi.IoBuffer * number)()
        setattr(self._io[0], side, c.cast(buffers, c.POINTER(_abi.IoBuffer)))
        setattr(self._io[0], f'n{side[1:-1]}Size', number)
        for i, buffer in enumerate(buffers):
            size = max(getattr(info[0].contents, side)[i].nSize for info in self._info)
            phy, vir = (c.c_uint64 * 1)(), (c.c_void_p * 1)()
            pool.append((phy, vir))
            if sys_lib.AX_SYS_MemAllocCached(phy, vir, size, _ALIGN, b'PyEngine'):
                raise RuntimeError(f'Failed to allocate memory for {what}.')
            _held[phy[0]] = (phy, vir)
            buffer.phyAddr, buffer.pVirAddr, buffer.nSize = phy[0], vir[0], size
        return buffers

    def _feed(self, name: str, array: NDArray[Any], shape_group: int) -> None:
        for i, node in enumerate(self.get_inputs(shape_group)):
            if node.name == name:
                check_feed(node, array)
                raw = raw_bytes(array)
                buffer = self._io[0].pInputs[i]
                c.memmove(buffer.pVirAddr, raw.ctypes.data, raw.nbytes)
                sys_lib.AX_SYS_MflushCache(buffer.phyAddr, buffer.pVirAddr, buffer.nSize)
                break

    def _execute(self, shape_group: int) -> int:
        handle, context = self._handle[0], self._context[0]
        if self._shape_count > 1:
            code = engine_lib.AX_ENGINE_RunGroupIOSync(handle, context, shape_group, self._io)
        else:
            code = engine_lib.AX_ENGINE_RunSyncV2(handle, context, self._io)
        return int(code)

    def _fetch(self, place: int, node: NodeArg) -> NDArray[Any]:
        buffer = self._io[0].pOutputs[place]
        sys_lib.AX_SYS_MinvalidateCache(buffer.phyAddr, buffer.pVirAddr, buffer.nSize)
        raw = c.string_at(buffer.pVirAddr, node_bytes(node))
        fetched: NDArray[Any] = np.frombuffer(raw, node.dtype).reshape(node.shape).copy()
        return fetched

    def _unload(self) -> None:
        engine_lib.AX_ENGINE_DestroyHandle(self._handle[0])
        self._handle[0] = None


def _nodes(metas: Any, number: int) -> list[NodeArg]:
    nodes = []
    for meta in metas[:number]:
        if meta.eDataType not in _DTYPES:
            raise ValueError(
                f"Unsupported data type '<cdata 'AX_ENGINE_DATA_TYPE_T' {meta.eDataType}>'."
            )
        shape = meta.pShape[: meta.nShapeSize]
        nodes.append(NodeArg(meta.pName.decode(), _DTYPES[meta.eDataType], shape))
    return nodes
