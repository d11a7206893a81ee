"""Sessions on a card: libaxcl_rt driven call by call as the package does.

One IO for all groups, one buffer for each tensor's place, as large as the largest group wants,
neither cleared nor shared; a run copies every input to the card and every output back.
"""

from __future__ import annotations

import atexit
import ctypes as c
import os
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from axengine import _environment
from axengine._base_session import Session, check_feed, node_bytes, raw_bytes
from axengine._card_library import TO_DEVICE, TO_HOST, DeviceList, Dims, open_library
from axengine._node import NodeArg

_DTYPES = {
    3: np.dtype(np.int8),
    4: np.dtype(np.uint8),
    5: np.dtype(np.int16),
    6: np.dtype(np.uint16),
    7: np.dtype(np.int32),
    8: np.dtype(np.uint32),
    14: np.dtype(ml_dtypes.bfloat16),
    15: np.dtype(np.float32),
}
_NORMAL_PAGES = 2

all_sessions: list[AXCLRTSession] = []

_folder = _environment.library_folder()
assert _folder is not None
lib, stub = open_library(_folder)
_is_engine_on = False


def _finalize() -> None:
    for session in all_sessions:
        session._unload()
    if _is_engine_on:
        lib.axclrtEngineFinalize()
    lib.axclFinalize()


def end_for_tests() -> None:
    """End as the package does at exit: several tests in one process drive one C library."""
    atexit.unregister(_finalize)
    _finalize()
    stub.compute_nothing()


if lib.axclInit(None):
    raise RuntimeError('Failed to initialize axcl runtime.')
atexit.register(_finalize)


class AXCLRTSession(Session):
    """One model on one card."""

    def __init__(self, source: str | os.PathLike[str], provider_options: Any) -> None:
        super().__init__()
        self._io: Any = None
        self._model_id: Any = None
        index = (provider_options or [{}])[0].get('device_id', 0)
        found = DeviceList()
        code = lib.axclrtGetDeviceList(found)
        if code or not found.num:
            raise RuntimeError(
                f'Get AXCL device failed 0x{code:08x}, find total {found.num} device.'
            )
        if index >= found.num:
            raise RuntimeError(f'Device index {index} is out of range, total {found.num} device.')
        if lib.axclrtSetDevice(found.devices[index]):
            raise RuntimeError('Set AXCL device failed.')
        self._start_engine()
        self.soc_name = lib.axclrtGetSocName().decode()
        print(f'[INFO] SOC Name: {self.soc_name}')
        self._thread_context = c.c_void_p()
        if lib.axclrtGetCurrentContext(self._thread_context):
            raise RuntimeError('axclrtGetCurrentContext failed')
        self._model_id, self._context_id = [0], c.c_uint64()
        self._load(source)
        self._info = c.c_void_p()
        lib.axclrtEngineGetIOInfo(self._model_id[0], self._info)
        count = c.c_int32()
        lib.axclrtEngineGetShapeGroupsCount(self._info, count)
        self._shape_count = count.value
        self._inputs = [self._nodes('Input', group) for group in range(count.value)]
        self._outputs = [self._nodes('Output', group) for group in range(count.value)]
        self._prepare_io()
        all_sessions.append(self)

    def __del__(self) -> None:
        self._unload()
        all_sessions.remove(self)

    def run(
        self,
        output_names: list[str] | None,
        input_feed: dict[str, NDArray[Any]],
        run_options: object = None,
        shape_group: int = 0,
    ) -> list[NDArray[Any]]:
        """Run a group: every input goes to the card, every output comes back."""
        del run_options
        self._check_names(output_names, input_feed)
        if lib.axclrtSetCurrentContext(self._thread_context):
            raise RuntimeError('axclrtSetCurrentContext failed')
        ranks = self._ranks(output_names, shape_group)
        for name, array in input_feed.items():
            for i, node in enumerate(self.get_inputs(shape_group)):
                if node.name == name:
                    check_feed(node, array)
                    raw = raw_bytes(array)
                    address = self._address('Input', i)
                    if lib.axclrtMemcpy(address, raw.ctypes.data, raw.nbytes, TO_DEVICE):
                        raise RuntimeError(f'axclrtMemcpy failed for input {i}.')
        code = lib.axclrtEngineExecute(self._model_id[0], self._context_id, shape_group, self._io)
        if code:
            raise RuntimeError(f'axclrtEngineExecute failed 0x{code & 0xFFFFFFFF:08x}')
        return [self._fetch(i, self.get_outputs(shape_group)[i]) for i in ranks]

    def _start_engine(self) -> None:
        global _is_engine_on  # noqa: PLW0603 (there is one library in a process)
        if lib.axclrtEngineInit(0) == 0:
            _is_engine_on = True
            return
        kind = c.c_int()
        if lib.axclrtEngineGetVNpuKind(kind):
            raise RuntimeError('axclrtEngineInit failed')
        # The package stumbles over the attribute that it wants to print.
        raise AttributeError("cdata 'axclrtEngineVNpuKind *' has no attribute 'value'")

    def _load(self, source: str | os.PathLike[str]) -> None:
        model = c.c_uint64()
        # A str only: the package calls str.encode on what it is given.
        if lib.axclrtEngineLoadFromFile(source.encode('utf-8'), model):  # type: ignore[union-attr]
            raise RuntimeError('axclrtEngineLoadFromFile failed.')
        self._model_id[0] = model.value
        if lib.axclrtEngineCreateContext(model, self._context_id):
            raise RuntimeError('axclrtEngineCreateContext failed')

    def _count(self, side: str) -> int:
        return int(getattr(lib, f'axclrtEngineGetNum{side}s')(self._info))

    def _nodes(self, side: str, group: int) -> list[NodeArg]:
        nodes = []
        for i in range(self._count(side)):
            name = getattr(lib, f'axclrtEngineGet{side}NameByIndex')(self._info, i).decode()
            kind, dims = c.c_int(), Dims()
            getattr(lib, f'axclrtEngineGet{side}DataType')(self._info, i, kind)
            getattr(lib, f'axclrtEngineGet{side}Dims')(self._info, group, i, dims)
            nodes.append(NodeArg(name, _DTYPES[kind.value], dims.dims[: dims.dimCount]))
        return nodes

    def _prepare_io(self) -> None:
        self._io = c.c_void_p()
        lib.axclrtEngineCreateIO(self._info, self._io)
        for side in ('Input', 'Output'):
            size_of = getattr(lib, f'axclrtEngineGet{side}SizeByIndex')
            for i in range(self._count(side)):
                size = max(size_of(self._info, g, i) for g in range(self._shape_count))
                address = c.c_void_p()
                if lib.axclrtMalloc(address, size, _NORMAL_PAGES):
                    what = f'{side.lower()} {i}'
                    raise RuntimeError(f'axclrtMalloc failed 0xffffffff for {what}.')
                getattr(lib, f'axclrtEngineSet{side}BufferByIndex')(self._io, i, address, size)

    def _address(self, side: str, place: int) -> c.c_void_p:
        address, size = c.c_void_p(), c.c_uint64()
        getattr(lib, f'axclrtEngineGet{side}BufferByIndex')(self._io, place, address, size)
        return address

    def _fetch(self, place: int, node: NodeArg) -> NDArray[Any]:
        fetched = np.zeros(node.shape, node.dtype)
        address = self._address('Output', place)
        if lib.axclrtMemcpy(fetched.ctypes.data, address, node_bytes(node), TO_HOST):
            raise RuntimeError(f'axclrtMemcpy failed for output {place}.')
        return fetched

    def _unload(self) -> None:
        if self._io is not None:
            for side in ('Input', 'Output'):
                for i in range(self._count(side)):
                    lib.axclrtFree(self._address(side, i))
            lib.axclrtEngineDestroyIO(self._io)
            self._io = None
        if self._model_id[0]:
            lib.axclrtEngineUnload(self._model_id[0])
            self._model_id[0] = 0
