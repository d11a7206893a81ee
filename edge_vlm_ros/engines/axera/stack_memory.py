"""Chip memory that all layers of a set share."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.engines.axera.graphs import DecodeGroup, PrefillGroup, StackShapes
from edge_vlm_ros.engines.axera.library import Library
from edge_vlm_ros.engines.axera.masks import DecodeMask, PrefillMask
from edge_vlm_ros.engines.axera.memory import Block
from edge_vlm_ros.engines.axera.rows import BF16_BYTES, CachePair, bf16

_INDEX_BYTES = 4


class PrefillInputs:
    """Mask and indices of one prefill group.

    Args:
        group: Whose.
        mask: A block of its own.
        indices: Likewise.
        position_rows: 1, or 3 for M-RoPE.
    """

    def __init__(
        self, group: PrefillGroup, mask: Block, indices: Block, position_rows: int
    ) -> None:
        self.mask, self.indices = mask, indices
        self._rule = PrefillMask(group.chunk, group.history)
        self._bits: NDArray[np.uint16] = mask.view(np.uint16, *self._rule.bits.shape)
        self._positions: NDArray[np.uint32] = indices.view(np.uint32, position_rows, group.chunk)
        self._bits[...] = self._rule.bits
        mask.flush(0, mask.nbytes)

    def write(self, positions: NDArray[np.uint32], held: int) -> None:
        """Set both for a chunk behind `held` rows; only what changed in the mask is written."""
        tokens = positions.shape[-1]
        self._positions[:, :tokens] = positions
        self._positions[:, tokens:] = 0
        self.indices.flush(0, self.indices.nbytes)
        rows = self._rule.update(held, tokens)
        if rows:
            self._bits[rows.start : rows.stop] = self._rule.bits[rows.start : rows.stop]
            width = self._bits.shape[1] * BF16_BYTES
            self.mask.flush(rows.start * width, len(rows) * width)


class DecodeInputs:
    """Mask and indices of one decode group.

    Args:
        group: Whose.
        mask: A block of its own.
        indices: Likewise.
        position_rows: 1, or 3 for M-RoPE.
    """

    def __init__(
        self, group: DecodeGroup, mask: Block, indices: Block, position_rows: int
    ) -> None:
        self.mask, self.indices = mask, indices
        self._rule = DecodeMask(group.capacity)
        self._bits: NDArray[np.uint16] = mask.view(np.uint16, len(self._rule.bits))
        self._position: NDArray[np.uint32] = indices.view(np.uint32, position_rows, 1)
        self._bits[...] = self._rule.bits
        mask.flush(0, mask.nbytes)

    def write(self, position: NDArray[np.uint32], row: int) -> None:
        """Set both for a token in cache row `row`; only what changed in the mask is written."""
        self._position[:] = position
        self.indices.flush(0, self.indices.nbytes)
        columns = self._rule.update(row)
        if columns:
            first, last = columns.start, columns.stop
            self._bits[first:last] = self._rule.bits[first:last]
            self.mask.flush(first * BF16_BYTES, (last - first) * BF16_BYTES)


class StackMemory:
    """The shared blocks: hidden states, masks, indices, scratch rows, dummies.

    Args:
        library: Allocates.
        shapes: Of the set.
        closing: Is told how to free them.
        padding: Bytes that the driver wants behind a tensor.

    Raises:
        DeviceError: The chip has no memory left.
    """

    def __init__(
        self, library: Library, shapes: StackShapes, closing: ExitStack, padding: int = 0
    ) -> None:
        self._library, self._closing, self._padding = library, closing, padding
        chunk = max(group.chunk for group in shapes.prefill)
        hidden, row = bf16(shapes.hidden), bf16(shapes.kv_width)
        self.hidden = (
            self.block(chunk * hidden, 'hidden states'),
            self.block(chunk * hidden, 'hidden states'),
        )
        """Layer i reads block i % 2 and writes the other."""
        self.scratch = CachePair(
            self.block(chunk * row, 'new keys'), self.block(chunk * row, 'new values')
        )
        self.dummy = self.block(max(hidden, row), 'dummies')
        """What groups without a history take for their caches: zeros."""
        self.dummy.clear()
        self.prefill = {
            group.index: PrefillInputs(group, *self._inputs(shapes, group.chunk, group.history))
            for group in shapes.prefill
        }
        """By group number."""
        self.decode = {
            group.index: DecodeInputs(group, *self._inputs(shapes, 1, group.capacity))
            for group in shapes.decode
        }
        """By group number."""

    def block(self, nbytes: int, what: str) -> Block:
        """Allocate a block that is freed with the others."""
        block = Block(self._library, nbytes, what, self._padding)
        self._closing.callback(block.close)
        return block

    def _inputs(self, shapes: StackShapes, tokens: int, history: int) -> tuple[Block, Block, int]:
        mask = self.block(bf16(tokens, history + tokens), 'attention masks')
        indices = self.block(_INDEX_BYTES * shapes.position_rows * tokens, 'indices')
        return mask, indices, shapes.position_rows
