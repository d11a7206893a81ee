"""One axmodel file in the vendor's C library: its tensors, its memory, its runs."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge_vlm_ros.core import DeviceError, EdgeVlmError, ModelFileError, require_regular
from edge_vlm_ros.engines.axera.chip import (
    ChipBlock,
    Group,
    Tensor,
    block_of,
    padding_of,
)
from edge_vlm_ros.engines.axera.chip_memory import cannot_load
from edge_vlm_ros.engines.axera.library import (
    HandleExtra,
    Io,
    IoBuffer,
    IoInfo,
    IoMeta,
    Library,
    failed,
)

# AX_ENGINE_DATA_TYPE_T. bfloat16 is handled as bit patterns, as everywhere in the package.
_DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.uint8),
    2: np.dtype(np.uint16),
    3: np.dtype(np.float32),
    4: np.dtype(np.int16),
    5: np.dtype(np.int8),
    6: np.dtype(np.int32),
    7: np.dtype(np.uint32),
    9: np.dtype(np.uint16),
}


class Model:
    """A model file, opened on the chip.

    Args:
        library: Opens it.
        path: The file; mapped, and kept mapped while it is open.

    Raises:
        ModelFileError: The file is missing, empty, or the driver refuses it.
        DeviceError: The chip is full or busy; also where that cannot be told from a damaged file.
    """

    def __init__(self, library: Library, path: Path) -> None:
        library.before_file()
        self.path = path
        self._library = library
        with ExitStack() as opening:
            content = _mapped(path)
            opening.callback(content.close)
            self._handle = self._open(content)
            opening.callback(self._destroy)
            try:
                self._context = ctypes.c_void_p()
                library.call('AX_ENGINE_CreateContextV2', self._handle, self._context)
                self.groups = self._describe()
                """Tensors, by group number."""
            except DeviceError as error:
                raise self._cannot_load(error) from error
            library.loaded.add(path)
            self._closing = opening.pop_all()

    @property
    def padding(self) -> int:
        """Most bytes that the driver wants after a tensor."""
        return padding_of(self.groups)

    def bind(self, group: int, memory: Mapping[str, ChipBlock]) -> Binding:
        """Bind a shape group; see `ChipModel.bind`."""
        return Binding(self, group, memory)

    def prepared(self, group: int, io: Io) -> Callable[[], int]:
        """Prepare a run: called, it waits for its end and gives 0 or an error code.

        Nothing is converted at the call: of a step's 28 runs that is much of what they cost.
        """
        place = ctypes.byref(io)
        if len(self.groups) == 1:
            run = self._library.bare('AX_ENGINE_RunSyncV2')
            return partial(run, self._handle, self._context, place)
        run = self._library.bare('AX_ENGINE_RunGroupIOSync')
        return partial(run, self._handle, self._context, ctypes.c_uint32(group), place)

    def close(self) -> None:
        """Give its memory on the chip back; safe to call twice.

        Raises:
            DeviceError: The driver failed.
        """
        self._closing.close()

    def _open(self, content: mmap.mmap) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        extra = HandleExtra(name=os.fsencode(self.path.stem))
        # ctypes takes the address of writable memory only. The array is let go at once: a map
        # that somebody looks at cannot be closed.
        address = np.frombuffer(content, np.uint8).ctypes.data
        create = self._library.function('AX_ENGINE_CreateHandleV2')
        code = create(ctypes.byref(handle), address, len(content), ctypes.byref(extra))
        if code or not handle.value:
            raise self._cannot_load(failed('AX_ENGINE_CreateHandleV2', code))
        return handle

    def _cannot_load(self, error: DeviceError) -> EdgeVlmError:
        library = self._library
        is_first = not library.loaded
        return cannot_load(self.path, error.message, is_first=is_first, cmm_info=library.cmm_info)

    def _destroy(self) -> None:
        self._library.call('AX_ENGINE_DestroyHandle', self._handle)

    def _describe(self) -> tuple[Group, ...]:
        count = ctypes.c_uint32()
        self._library.call('AX_ENGINE_GetGroupIOInfoCount', self._handle, ctypes.byref(count))
        return tuple(self._group(i, count.value) for i in range(count.value))

    def _group(self, number: int, count: int) -> Group:
        info = ctypes.POINTER(IoInfo)()
        if count == 1:
            self._library.call('AX_ENGINE_GetIOInfo', self._handle, ctypes.byref(info))
        else:
            self._library.call(
                'AX_ENGINE_GetGroupIOInfo', self._handle, number, ctypes.byref(info)
            )
        if ctypes.cast(info, ctypes.c_void_p).value is None:
            raise ModelFileError(f'{self.path}: shape group {number} has no tensors')
        found = info.contents
        return Group(
            tuple(_tensor(self.path, found.inputs[i], number) for i in range(found.input_count)),
            tuple(_tensor(self.path, found.outputs[i], number) for i in range(found.output_count)),
        )


def _mapped(path: Path) -> mmap.mmap:
    require_regular(path, 1 << 40)
    try:
        with path.open('rb') as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: the file is empty
        raise ModelFileError(f'{path}: cannot be read: {error}') from error


def _tensor(path: Path, meta: IoMeta, group: int) -> Tensor:
    name = meta.name.decode('utf-8', 'backslashreplace')
    shape = tuple(meta.shape[i] for i in range(meta.rank))
    dtype = _DTYPES.get(meta.data_type)
    if dtype is None:
        raise ModelFileError(f'{path}: tensor {name} is of the unknown data type {meta.data_type}')
    tensor = Tensor(name.removesuffix(f'_{group}') if group else name, shape, dtype, meta.size)
    if tensor.nbytes < tensor.filled:
        raise ModelFileError(f'{path}: tensor {name} of shape {list(shape)} has {meta.size} bytes')
    return tensor


class Binding:
    """A shape group of a model, with the memory that its tensors are bound to; see `ChipBinding`.

    Args:
        model: Open as long as this is used.
        group: Its number.
        memory: By tensor name; each tensor begins where its block begins.

    Raises:
        ModelFileError: A tensor has no block, or one that is too small.
    """

    def __init__(self, model: Model, group: int, memory: Mapping[str, ChipBlock]) -> None:
        self.what = model.path.name
        tensors = model.groups[group]
        places = [
            [(tensor, block_of(tensor, memory, model.path, group)) for tensor in side]
            for side in (tensors.inputs, tensors.outputs)
        ]
        self._inputs, self._outputs = map(_buffers, places)
        self._names = [tensor.name for tensor in tensors.outputs]
        self._io = Io(
            inputs=self._inputs,
            input_count=len(self._inputs),
            outputs=self._outputs,
            output_count=len(self._outputs),
        )
        self.call: Callable[[], int] = model.prepared(group, self._io)

    def run(self) -> None:
        """Run it and wait for its end; see `ChipBinding.run`."""
        code = self.call()
        if code:
            raise failed('the run', code, self.what)

    def output(self, name: str) -> IoBuffer:
        """Give the buffer of an output; the next run writes where it then points."""
        buffer: IoBuffer = self._outputs[self._names.index(name)]
        return buffer

    def gather(self, buffers: Any, first: int) -> int:
        """Keep the buffers of its outputs in an array of many bindings' from now on.

        Args:
            buffers: The array.
            first: Place of its first output there.

        Returns:
            The place after its last one.
        """
        for i, buffer in enumerate(self._outputs):
            buffers[first + i] = buffer
        stop = first + len(self._names)
        address = ctypes.addressof(buffers) + first * ctypes.sizeof(IoBuffer)
        self._outputs = (IoBuffer * len(self._names)).from_address(address)
        self._io.outputs = self._outputs
        return stop

    def place(self, output: str) -> int:
        """Find an output among its outputs."""
        return self._names.index(output)

    @property
    def outputs(self) -> int:
        """How many outputs it has."""
        return len(self._names)


def _buffers(places: list[tuple[Tensor, ChipBlock]]) -> Any:
    buffers = (IoBuffer * len(places))()
    for buffer, (tensor, block) in zip(buffers, places, strict=True):
        buffer.phy, buffer.vir, buffer.size = block.phy, block.vir, tensor.nbytes
    return buffers
