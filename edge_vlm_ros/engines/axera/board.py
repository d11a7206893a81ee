"""The chip on the board that this program runs on, as the backend in place drives it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.engines.axera.chip import (
    KEYS_OUT,
    VALUES_OUT,
    CachePair,
    ChipBinding,
    ChipBlock,
)
from edge_vlm_ros.engines.axera.chip_memory import free_chip_bytes
from edge_vlm_ros.engines.axera.library import IoBuffer, Library
from edge_vlm_ros.engines.axera.memory import Block
from edge_vlm_ros.engines.axera.model import Binding, Model


class Board:
    """The chip through the vendor's C library; see `Chip`.

    Args:
        library: The vendor's.
    """

    def __init__(self, library: Library) -> None:
        self._library = library

    def attach(self) -> None:
        """Do nothing: any thread may call."""

    def free_bytes(self) -> int | None:
        """Read how much of its memory is free; None = not reported."""
        return free_chip_bytes(self._library.cmm_info)

    def block(self, nbytes: int, what: str, padding: int = 0) -> Block:
        """Allocate a block; see `Chip.block`."""
        return Block(self._library, nbytes, what, padding)

    def open(self, path: Path) -> Model:
        """Open a model file; see `Chip.open`."""
        return Model(self._library, path)

    def aim(
        self, bindings: Sequence[ChipBinding], caches: Sequence[CachePair], scratch: CachePair
    ) -> OutputAim:
        """Prepare to move where bindings write their rows; see `Chip.aim`."""
        return OutputAim(bindings, caches, scratch)


class OutputAim:
    """Moves the output buffers of all layers of a shape group in one write.

    A run is handed structures with the addresses of its tensors. Those of all layers are gathered
    in one array, in which numpy writes what changes.

    Args:
        bindings: Of `Board`, one a layer.
        caches: Of each layer.
        scratch: What their outputs are bound to.
    """

    def __init__(
        self, bindings: Sequence[ChipBinding], caches: Sequence[CachePair], scratch: CachePair
    ) -> None:
        ours = [binding for binding in bindings if isinstance(binding, Binding)]
        assert len(ours) == len(bindings), 'bindings of another chip'
        count = sum(binding.outputs for binding in ours)
        self._buffers = (IoBuffer * count)()
        words = np.frombuffer(memoryview(self._buffers).cast('B'), np.uint64).reshape(count, -1)
        self._addresses: NDArray[np.uint64] = words[:, :2]  # phy, vir: an IoBuffer's first two
        places: list[int] = []
        first = 0
        for binding in ours:
            places += [first + binding.place(name) for name in (KEYS_OUT, VALUES_OUT)]
            first = binding.gather(self._buffers, first)
        self._places = np.array(places)
        self._caches = _addresses(caches)
        self._scratch = _addresses([scratch] * len(ours))
        self._is_at_scratch = True

    def at_caches(self, offset: int) -> None:
        """Have each layer write to its own caches, from byte `offset` on."""
        self._is_at_scratch = False
        self._addresses[self._places] = self._caches + np.uint64(offset)

    def at_scratch(self) -> None:
        """Have each layer write to the scratch."""
        if not self._is_at_scratch:
            self._is_at_scratch = True
            self._addresses[self._places] = self._scratch


def _addresses(pairs: Sequence[CachePair]) -> NDArray[np.uint64]:
    """List the addresses of K and V blocks, for the chip and for the processor."""
    blocks: list[ChipBlock] = [block for pair in pairs for block in (pair.keys, pair.values)]
    return np.array([(block.phy, block.vir) for block in blocks], np.uint64)
