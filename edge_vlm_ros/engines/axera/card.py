"""A chip on a card behind PCIe, as the backend in place drives it.

Blocks lie in the card's memory; where the processor looks at one, it has a copy of its own, and
flush and invalidate copy the bytes that are named. What stays on the card is copied there.

Each shape group of a layer has an IO of its own, in which every buffer is said to be as large as
the group's tensor: with one IO of the largest sizes, as the package and the vendor's programs
have it, chunks were seen to run on stale inputs without an error (one laboratory's log; the
sources disagree, so `self_test` tries, with blocks of exactly that size as the last way).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edge_vlm_ros.core import DeviceError, EdgeVlmError, ModelFileError, require_regular
from edge_vlm_ros.engines.axera.card_library import (
    NORMAL_PAGES,
    ON_DEVICE,
    TO_DEVICE,
    TO_HOST,
    CardLibrary,
    IoDims,
)
from edge_vlm_ros.engines.axera.chip import (
    KEYS_OUT,
    VALUES_OUT,
    CachePair,
    ChipBinding,
    ChipBlock,
    Group,
    Tensor,
    block_of,
    padding_of,
)
from edge_vlm_ros.engines.axera.chip_memory import cannot_load, free_card_bytes
from edge_vlm_ros.engines.axera.library import failed

# axclrtEngineDataType. bfloat16 is handled as bit patterns, as everywhere in the package.
_DTYPES: Final[dict[int, np.dtype[Any]]] = {
    3: np.dtype(np.int8),
    4: np.dtype(np.uint8),
    5: np.dtype(np.int16),
    6: np.dtype(np.uint16),
    7: np.dtype(np.int32),
    8: np.dtype(np.uint32),
    14: np.dtype(np.uint16),
    15: np.dtype(np.float32),
}
_ZEROS: Final = np.zeros(1 << 20, np.uint8)


class Card:
    """One card through the vendor's C library; see `Chip`.

    Args:
        library: The vendor's, with this card's context.
        index: Its number in the driver's list.
    """

    def __init__(self, library: CardLibrary, index: int) -> None:
        self._library, self._index = library, index

    def attach(self) -> None:
        """Have the calls of this thread go to it; see `Chip.attach`."""
        self._library.attach()

    def free_bytes(self) -> int | None:
        """Read how much of its memory is free; None = not reported."""
        return free_card_bytes(self._index)

    def block(self, nbytes: int, what: str, padding: int = 0) -> CardBlock:
        """Allocate a block; see `Chip.block`."""
        return CardBlock(self._library, nbytes, what, padding)

    def open(self, path: Path) -> CardModel:
        """Open a model file; see `Chip.open`."""
        return CardModel(self._library, path)

    def aim(
        self, bindings: Sequence[ChipBinding], caches: Sequence[CachePair], scratch: CachePair
    ) -> CardAim:
        """Prepare to move where bindings write their rows; see `Chip.aim`."""
        return CardAim(self._library, bindings, caches, scratch)


class CardBlock:
    """One block of the card's memory; see `ChipBlock`.

    Args:
        library: Allocates and frees.
        nbytes: Size; what it holds at first is left over from others and may be NaN.
        what: For messages.
        padding: Bytes after it that the chip may touch and that mean nothing.

    Raises:
        DeviceError: The card has no memory left.
    """

    vir = 0

    def __init__(self, library: CardLibrary, nbytes: int, what: str, padding: int = 0) -> None:
        room = nbytes + padding
        address = ctypes.c_void_p()
        code = library.function('axclrtMalloc')(ctypes.byref(address), room, NORMAL_PAGES)
        if code or not address.value:
            raise DeviceError(
                f'the card has no {room} bytes of memory left for {what}: stop other programs '
                'that use it (axcl-smi lists them), or choose a smaller model '
                f'({failed("axclrtMalloc", code)})'
            )
        self.phy: int = address.value
        """Address for the chip."""
        self.nbytes = nbytes
        """Bytes asked for."""
        self.room = room
        """Bytes that the chip may touch."""
        self._copy = library.function('axclrtMemcpy')
        self._free = library.function('axclrtFree')
        self._bytes: NDArray[np.uint8] | None = None
        self._host = 0
        self._is_open = True

    def view(self, dtype: DTypeLike, *shape: int) -> NDArray[Any]:
        """See the processor's copy of its first bytes; see `ChipBlock.view`."""
        if self._bytes is None:
            self._bytes = np.zeros(self.nbytes, np.uint8)
            self._host = self._bytes.ctypes.data
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        assert count <= self.nbytes, (shape, self.nbytes)
        return cast('NDArray[Any]', self._bytes[:count].view(dtype).reshape(shape))

    def flush(self, offset: int, nbytes: int) -> None:
        """Copy bytes [offset, offset + nbytes) to the card; see `ChipBlock.flush`."""
        assert self._host, 'nothing was written'
        assert 0 <= offset <= offset + nbytes <= self.nbytes, (offset, nbytes, self.nbytes)
        code = self._copy(self.phy + offset, self._host + offset, nbytes, TO_DEVICE)
        if code:
            raise failed('axclrtMemcpy to the card', code)

    def invalidate(self, offset: int, nbytes: int) -> None:
        """Copy bytes [offset, offset + nbytes) from the card; see `ChipBlock.invalidate`."""
        assert self._host, 'nobody looks'
        assert 0 <= offset <= offset + nbytes <= self.nbytes, (offset, nbytes, self.nbytes)
        code = self._copy(self._host + offset, self.phy + offset, nbytes, TO_HOST)
        if code:
            raise failed('axclrtMemcpy from the card', code)

    def take(self, source: ChipBlock, start: int, at: int, nbytes: int) -> None:
        """Copy from a block to this one on the card itself; see `ChipBlock.take`."""
        code = self._copy(self.phy + at, source.phy + start, nbytes, ON_DEVICE)
        if code:
            raise failed('axclrtMemcpy on the card', code)

    def clear(self) -> None:
        """Fill it with zeros on the card; the processor's copy, too, where there is one."""
        if self._bytes is not None:
            self._bytes[:] = 0
        for at in range(0, self.nbytes, len(_ZEROS)):
            size = min(len(_ZEROS), self.nbytes - at)
            code = self._copy(self.phy + at, _ZEROS.ctypes.data, size, TO_DEVICE)
            if code:
                raise failed('axclrtMemcpy to the card', code)

    def close(self) -> None:
        """Free it; see `ChipBlock.close`."""
        if not self._is_open:
            return
        self._is_open = False
        code = self._free(self.phy)
        if code:
            raise failed('axclrtFree', code)


class CardModel:
    """A model file, opened on the card; see `ChipModel`.

    Args:
        library: Opens it.
        path: The file.

    Raises:
        ModelFileError: The file is missing, empty, or the driver refuses it.
        DeviceError: The card is full or busy; also where that cannot be told from a damaged file.
    """

    def __init__(self, library: CardLibrary, path: Path) -> None:
        library.before_file()
        self.path = path
        self._library = library
        require_regular(path, 1 << 40)
        self.id, self.context = ctypes.c_uint64(), ctypes.c_uint64()
        """The driver's numbers of the model and of the context that runs it."""
        self.info = ctypes.c_void_p()
        with ExitStack() as opening:
            load = library.function('axclrtEngineLoadFromFile')
            code = load(str(path).encode(), ctypes.byref(self.id))
            if code:
                raise self._cannot_load(failed('axclrtEngineLoadFromFile', code))
            opening.callback(self._unload)
            try:
                library.call('axclrtEngineCreateContext', self.id, ctypes.byref(self.context))
                library.call('axclrtEngineGetIOInfo', self.id, ctypes.byref(self.info))
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

    def bind(self, group: int, memory: Mapping[str, ChipBlock]) -> CardBinding:
        """Bind a shape group; see `ChipModel.bind`."""
        return CardBinding(self._library, self, group, memory, self._closing)

    def close(self) -> None:
        """Give its memory on the card back, its bindings first; safe to call twice."""
        self._closing.close()

    def _cannot_load(self, error: DeviceError) -> EdgeVlmError:
        is_first = not self._library.loaded
        return cannot_load(self.path, error.message, is_first=is_first, cmm_info=None)

    def _unload(self) -> None:
        self._library.call('axclrtEngineUnload', self.id)

    def _describe(self) -> tuple[Group, ...]:
        count = ctypes.c_int32()
        name = 'axclrtEngineGetShapeGroupsCount'
        self._library.call(name, self.info, ctypes.byref(count))
        groups = range(count.value)
        return tuple(Group(self._side('Input', g), self._side('Output', g)) for g in groups)

    def _side(self, side: str, group: int) -> tuple[Tensor, ...]:
        count = self._library.function(f'axclrtEngineGetNum{side}s')(self.info)
        return tuple(self._tensor(side, group, index) for index in range(count))

    def _tensor(self, side: str, group: int, index: int) -> Tensor:
        """Read a tensor; the runtime has names and types of the file, not of a group."""
        library, info = self._library, self.info
        told = library.function(f'axclrtEngineGet{side}NameByIndex')(info, index) or b''
        name = told.decode('utf-8', 'backslashreplace')
        data_type, dims = ctypes.c_int(), IoDims()
        library.call(f'axclrtEngineGet{side}DataType', info, index, ctypes.byref(data_type))
        library.call(f'axclrtEngineGet{side}Dims', info, group, index, ctypes.byref(dims))
        dtype = _DTYPES.get(data_type.value)
        if dtype is None:
            raise ModelFileError(
                f'{self.path}: tensor {name} is of the unknown data type {data_type.value}'
            )
        shape = tuple(dims.dims[: dims.count])
        nbytes = library.function(f'axclrtEngineGet{side}SizeByIndex')(info, group, index)
        tensor = Tensor(name, shape, dtype, nbytes)
        if nbytes < tensor.filled:
            raise ModelFileError(
                f'{self.path}: tensor {name} of shape {list(shape)} has {nbytes} bytes'
            )
        return tensor


class CardBinding:
    """A shape group of a model, with an IO of its own; see `ChipBinding`.

    Args:
        library: The vendor's.
        model: Open as long as this is used.
        group: Its number.
        memory: By tensor name; each tensor begins where its block begins.
        closing: The model's; gets what frees the IO.

    Raises:
        ModelFileError: A tensor has no block, or one that is too small.
        DeviceError: The driver failed.
    """

    def __init__(
        self,
        library: CardLibrary,
        model: CardModel,
        group: int,
        memory: Mapping[str, ChipBlock],
        closing: ExitStack,
    ) -> None:
        self.what = model.path.name
        tensors = model.groups[group]
        io = ctypes.c_void_p()
        library.call('axclrtEngineCreateIO', model.info, ctypes.byref(io))
        closing.callback(library.call, 'axclrtEngineDestroyIO', io)
        for side, listed in (('Input', tensors.inputs), ('Output', tensors.outputs)):
            for index, tensor in enumerate(listed):
                block = block_of(tensor, memory, model.path, group)
                name = f'axclrtEngineSet{side}BufferByIndex'
                library.call(name, io, index, block.phy, tensor.nbytes)
        self._places = {tensor.name: i for i, tensor in enumerate(tensors.outputs)}
        self._sizes = {tensor.name: tensor.nbytes for tensor in tensors.outputs}
        self._io = io
        number = ctypes.c_uint32(group)
        execute = library.bare('axclrtEngineExecute')
        self.call: Callable[[], int] = partial(execute, model.id, model.context, number, io)

    def run(self) -> None:
        """Run it and wait for its end; see `ChipBinding.run`."""
        code = self.call()
        if code:
            raise failed('the run', code, self.what)

    def place(self, output: str) -> tuple[ctypes.c_void_p, int, int]:
        """Say what moves an output: its IO, its place there, its bytes."""
        return self._io, self._places[output], self._sizes[output]


class CardAim:
    """Says where all layers of a shape group write their rows; see `Aim`.

    Args:
        library: The vendor's.
        bindings: Of `Card`, one a layer.
        caches: Of each layer.
        scratch: What their outputs are bound to.
    """

    def __init__(
        self,
        library: CardLibrary,
        bindings: Sequence[ChipBinding],
        caches: Sequence[CachePair],
        scratch: CachePair,
    ) -> None:
        ours = [binding for binding in bindings if isinstance(binding, CardBinding)]
        assert len(ours) == len(bindings), 'bindings of another chip'
        places = [binding.place(name) for binding in ours for name in (KEYS_OUT, VALUES_OUT)]
        blocks = [block for pair in caches for block in (pair.keys, pair.values)]
        self._set = library.function('axclrtEngineSetOutputBufferByIndex')
        self._caches = [(*p, block.phy) for p, block in zip(places, blocks, strict=True)]
        shared = [scratch.keys.phy, scratch.values.phy] * len(ours)
        self._scratch = [(*p, address) for p, address in zip(places, shared, strict=True)]
        self._is_at_scratch = True

    def at_caches(self, offset: int) -> None:
        """Have each layer write to its own caches, from byte `offset` on; see `Aim`."""
        self._is_at_scratch = False
        self._move(self._caches, offset)

    def at_scratch(self) -> None:
        """Have each layer write to the scratch; see `Aim`."""
        if not self._is_at_scratch:
            self._move(self._scratch, 0)
            self._is_at_scratch = True

    def _move(self, places: list[tuple[ctypes.c_void_p, int, int, int]], offset: int) -> None:
        move = self._set
        for io, place, size, address in places:
            code = move(io, place, address + offset, size)
            if code:
                raise failed('axclrtEngineSetOutputBufferByIndex', code)
