"""Chip memory that all layers of a set share."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.engines.axera.chip import CachePair, Chip, ChipBlock
from edge_vlm_ros.engines.axera.graphs import StackShapes
from edge_vlm_ros.engines.axera.masks import DecodeMask, Mask, PrefillMask
from edge_vlm_ros.engines.axera.rows import bf16

_INDEX_BYTES = 4


class StepInputs:
    """Mask and indices of one shape group, on the chip.

    Args:
        rule: What its mask shows.
        mask: A block of its own.
        indices: Likewise.
        position_rows: Of this group: 1, or 3 for M-RoPE.
    """

    def __init__(
        self, rule: Mask, mask: ChipBlock, indices: ChipBlock, position_rows: int
    ) -> None:
        self.mask, self.indices = mask, indices
        self._rule = rule
        self._bits: NDArray[np.uint16] = mask.view(np.uint16, *rule.bits.shape)
        self._entry_bytes = bf16(*rule.bits.shape[1:])
        tokens = indices.nbytes // (_INDEX_BYTES * position_rows)
        self._positions: NDArray[np.uint32] = indices.view(np.uint32, position_rows, tokens)
        self._bits[...] = rule.bits
        mask.flush(0, mask.nbytes)

    def write(self, positions: NDArray[np.uint32], held: int) -> None:
        """Set both for tokens after `held` rows; only what changed in the mask is written.

        Args:
            positions: (tokens,), or (3, tokens), of which a group of one row takes the first.
            held: Rows that the caches hold.
        """
        tokens = positions.shape[-1]
        if positions.ndim > 1:
            positions = positions[: len(self._positions)]
        self._positions[:, :tokens] = positions
        self._positions[:, tokens:] = 0
        self.indices.flush(0, self.indices.nbytes)
        changed = self._rule.update(held, tokens)
        if changed:
            first, last = changed.start, changed.stop
            self._bits[first:last] = self._rule.bits[first:last]
            self.mask.flush(first * self._entry_bytes, len(changed) * self._entry_bytes)


class StackMemory:
    """The shared blocks: hidden states, masks, indices, scratch rows, dummies.

    Args:
        chip: Allocates.
        shapes: Of the set.
        closing: Gets what frees them.
        padding: Bytes that the driver wants after a tensor.

    Raises:
        DeviceError: The chip has no memory left.
    """

    def __init__(
        self, chip: Chip, shapes: StackShapes, closing: ExitStack, padding: int = 0
    ) -> None:
        self._chip, self._closing, self._padding = chip, closing, padding
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
        self.inputs = {
            group.index: self._inputs(
                PrefillMask(group.chunk, group.history), group.chunk, shapes.position_rows
            )
            for group in shapes.prefill
        } | {
            group.index: self._inputs(DecodeMask(group.capacity), 1, shapes.step_rows)
            for group in shapes.decode
        }
        """By group number."""

    def block(self, nbytes: int, what: str, closing: ExitStack | None = None) -> ChipBlock:
        """Allocate a block that is freed with the others, or by `closing`."""
        block = self._chip.block(nbytes, what, self._padding)
        (closing or self._closing).callback(block.close)
        return block

    def _inputs(self, rule: Mask, tokens: int, position_rows: int) -> StepInputs:
        mask = self.block(rule.bits.nbytes, 'attention masks')
        indices = self.block(_INDEX_BYTES * position_rows * tokens, 'indices')
        return StepInputs(rule, mask, indices, position_rows)
