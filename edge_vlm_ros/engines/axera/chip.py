"""What the backend in place needs of a chip: on its own board or on a card.

`board` drives the chip on the board that this program runs on, `card` one behind PCIe. On both,
what the processor wrote is seen by the chip once it was flushed, and what the chip wrote by the
processor once it was invalidated: on a board these are caches written back and dropped, on a card
copies over PCIe. One thread at a time calls all of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edge_vlm_ros.core import ModelFileError


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a shape group.

    Attributes:
        name: As the file says, without the `_<group>` that some compilers append.
        shape: Sizes.
        dtype: Numpy type; uint16 for bfloat16.
        nbytes: Bytes the driver wants for it: those of its shape, and maybe padding after them.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nbytes: int

    @property
    def filled(self) -> int:
        """Bytes of its shape."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Group:
    """A shape group's tensors, in the order of its buffers."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class ChipBlock(Protocol):
    """One block of the chip's memory.

    Attributes:
        phy: Address for the chip.
        vir: Address for the processor; 0 where it has none.
        nbytes: Bytes asked for.
        room: Bytes that the chip may touch.
    """

    phy: int
    vir: int
    nbytes: int
    room: int

    def view(self, dtype: DTypeLike, *shape: int) -> NDArray[Any]:
        """See its first bytes as an array; not to be used after `close`."""
        ...

    def flush(self, offset: int, nbytes: int) -> None:
        """Show the chip what the processor wrote to bytes [offset, offset + nbytes).

        Raises:
            DeviceError: The driver failed.
        """
        ...

    def invalidate(self, offset: int, nbytes: int) -> None:
        """Show the processor what the chip wrote to bytes [offset, offset + nbytes).

        Raises:
            DeviceError: The driver failed.
        """
        ...

    def take(self, source: ChipBlock, start: int, at: int, nbytes: int) -> None:
        """Copy what the chip has in bytes [start, start + nbytes) of a block to `at` here.

        Raises:
            DeviceError: The driver failed.
        """
        ...

    def clear(self) -> None:
        """Fill it with zeros, for the chip too.

        Raises:
            DeviceError: The driver failed.
        """
        ...

    def close(self) -> None:
        """Free it; safe to call twice.

        Raises:
            DeviceError: The driver failed.
        """
        ...


class ChipBinding(Protocol):
    """A shape group of a model, with the memory that its tensors are bound to.

    Attributes:
        call: Runs it and waits for its end; gives 0, or the driver's error code. Prepared once, so
            that nothing of Python stands between a step's runs.
        what: For messages.
    """

    call: Callable[[], int]
    what: str

    def run(self) -> None:
        """Run it and wait for its end.

        Raises:
            DeviceError: The chip failed.
        """
        ...


class ChipModel(Protocol):
    """A model file, opened on the chip.

    Attributes:
        path: The file.
        groups: Tensors, by group number.
    """

    path: Path
    groups: tuple[Group, ...]

    @property
    def padding(self) -> int:
        """Most bytes that the driver wants after a tensor."""
        ...

    def bind(self, group: int, memory: Mapping[str, ChipBlock]) -> ChipBinding:
        """Bind a shape group; usable until the model is closed.

        Args:
            group: Its number.
            memory: By tensor name; each tensor begins where its block begins.

        Raises:
            ModelFileError: A tensor has no block, or one that is too small.
            DeviceError: The driver failed.
        """
        ...

    def close(self) -> None:
        """Give its memory on the chip back; safe to call twice.

        Raises:
            DeviceError: The driver failed.
        """
        ...


@dataclass(frozen=True, slots=True)
class CachePair:
    """K and V blocks: a layer's caches, or the scratch that all layers share."""

    keys: ChipBlock
    values: ChipBlock


KEYS_OUT, VALUES_OUT = 'K_cache_out', 'V_cache_out'


class Aim(Protocol):
    """Says where the next runs of many layers write their new K and V rows."""

    def at_caches(self, offset: int) -> None:
        """Have each layer write to its own caches, from byte `offset` on.

        Raises:
            DeviceError: The driver failed.
        """
        ...

    def at_scratch(self) -> None:
        """Have each layer write to the scratch, as bindings are made.

        Raises:
            DeviceError: The driver failed.
        """
        ...


class Chip(Protocol):
    """Opens models and allocates memory."""

    def attach(self) -> None:
        """Have the calls of this thread go to it.

        Raises:
            DeviceError: The driver failed.
        """
        ...

    def free_bytes(self) -> int | None:
        """Read how much of its memory is free; None = not reported."""
        ...

    def block(self, nbytes: int, what: str, padding: int = 0) -> ChipBlock:
        """Allocate a block; what it holds at first is left over from others and may be NaN.

        Args:
            nbytes: Size.
            what: For messages.
            padding: Bytes after it that the chip may touch and that mean nothing.

        Raises:
            DeviceError: The chip has no memory left.
        """
        ...

    def open(self, path: Path) -> ChipModel:
        """Open a model file.

        Raises:
            ModelFileError: The file is missing, empty, or the driver refuses it.
            DeviceError: The chip is full or busy; also where that cannot be told from a damaged
                file.
        """
        ...

    def aim(
        self, bindings: Sequence[ChipBinding], caches: Sequence[CachePair], scratch: CachePair
    ) -> Aim:
        """Prepare to move where bindings of this chip write their new K and V rows.

        Args:
            bindings: Of one shape group, one a layer.
            caches: Of each of these layers.
            scratch: What their K_cache_out and V_cache_out are bound to.
        """
        ...


def padding_of(groups: Sequence[Group]) -> int:
    """Give the most bytes that the driver wants after a tensor."""
    tensors = (t for group in groups for t in (*group.inputs, *group.outputs))
    return max((tensor.nbytes - tensor.filled for tensor in tensors), default=0)


def block_of(tensor: Tensor, memory: Mapping[str, ChipBlock], path: Path, group: int) -> ChipBlock:
    """Find the block of a tensor.

    Args:
        tensor: Of a shape group.
        memory: By tensor name.
        path: The model's file, for messages.
        group: The shape group's number, for messages.

    Raises:
        ModelFileError: There is none with room for it.
    """
    block = memory.get(tensor.name)
    if block is None or block.room < tensor.nbytes:
        raise ModelFileError(
            f'{path}: tensor {tensor.name} of group {group} has {tensor.nbytes} bytes, '
            f'expected {block.room if block else "no such one"}'
        )
    return block
