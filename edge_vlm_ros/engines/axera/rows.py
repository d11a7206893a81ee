"""Two ways for new K and V rows to reach the caches that the next run reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edge_vlm_ros.engines.axera.graphs import DecodeGroup, PrefillGroup, StackShapes
from edge_vlm_ros.engines.axera.library import IoBuffer
from edge_vlm_ros.engines.axera.memory import Block
from edge_vlm_ros.engines.axera.model import Binding

_CACHE_LINE = 64
BF16_BYTES = 2


@dataclass(frozen=True, slots=True)
class CachePair:
    """K and V blocks: a layer's caches, or the scratch that all layers share."""

    keys: Block
    values: Block


class LayerRun:
    """One shape group of one layer.

    Args:
        binding: Its tensors, K_cache_out and V_cache_out bound to the scratch.
        caches: The layer's own.
        group: What the run takes.
    """

    __slots__ = ('caches', 'group', 'keys_out', 'run', 'values_out')

    def __init__(
        self, binding: Binding, caches: CachePair, group: PrefillGroup | DecodeGroup
    ) -> None:
        self.run = binding.run
        self.keys_out: IoBuffer = binding.output('K_cache_out')
        self.values_out: IoBuffer = binding.output('V_cache_out')
        self.caches = caches
        self.group = group


class RowWriter(Protocol):
    """Runs a layer so that its new rows come to lie in its caches."""

    def run(self, layer: LayerRun, row: int, tokens: int) -> None:
        """Run; cache rows [row, row + tokens) hold the new keys and values afterwards.

        Raises:
            DeviceError: The chip failed.
        """
        ...


class CopiedRows:
    """The chip writes to a scratch that all layers share; the processor copies the rows.

    Only addresses that never change are bound, so this works wherever buffers may be shared.

    Args:
        scratch: As large as the largest K_cache_out.
        shapes: Of the set.
    """

    name = 'copied rows'

    def __init__(self, scratch: CachePair, shapes: StackShapes) -> None:
        self._row_bytes = shapes.kv_width * BF16_BYTES
        self._scratch = scratch

    def run(self, layer: LayerRun, row: int, tokens: int) -> None:
        """Run and copy; see `RowWriter.run`."""
        layer.run()
        self._copy(self._scratch.keys, layer.caches.keys, row, tokens)
        self._copy(self._scratch.values, layer.caches.values, row, tokens)

    def _copy(self, source: Block, cache: Block, row: int, tokens: int) -> None:
        start, nbytes = row * self._row_bytes, tokens * self._row_bytes
        source.invalidate(0, nbytes)
        cache.bytes[start : start + nbytes] = source.bytes[:nbytes]
        cache.flush(start, nbytes)


class DirectRows:
    """The chip writes each row where the next step reads it: no byte of it passes the processor.

    The run's output pointers are moved to the row before each run. A decode run reads the cache
    while it writes row `row`, which its mask hides, so old and new bytes do equally well as long
    as both are finite. A prefill run writes its padding too; where that would run past the
    buffer, or into rows that the same run reads, rows are copied instead.

    Whether a driver follows moved pointers is not documented: `self_test` finds out.

    Args:
        scratch: As large as the largest K_cache_out.
        shapes: Of the set.
    """

    name = 'rows written in place'

    def __init__(self, scratch: CachePair, shapes: StackShapes) -> None:
        self._copied = CopiedRows(scratch, shapes)
        self._scratch = scratch
        self._row_bytes = shapes.kv_width * BF16_BYTES
        self._capacity = shapes.capacity

    def run(self, layer: LayerRun, row: int, tokens: int) -> None:
        """Run with outputs in the caches where they fit; see `RowWriter.run`."""
        group = layer.group
        if isinstance(group, DecodeGroup) or self._fits(group, row):
            start = row * self._row_bytes
            _aim(layer.keys_out, layer.caches.keys, start)
            _aim(layer.values_out, layer.caches.values, start)
            layer.run()
            return
        _aim(layer.keys_out, self._scratch.keys, 0)
        _aim(layer.values_out, self._scratch.values, 0)
        self._copied.run(layer, row, tokens)

    def _fits(self, group: PrefillGroup, row: int) -> bool:
        return group.history <= row and row + group.chunk <= self._capacity


def _aim(buffer: IoBuffer, block: Block, offset: int) -> None:
    buffer.phy = block.phy + offset
    buffer.vir = block.vir + offset


def takes_direct_rows(shapes: StackShapes) -> bool:
    """Return whether every row has cache lines of its own, which two writers must not share."""
    return shapes.kv_width * BF16_BYTES % _CACHE_LINE == 0


def bf16(*shape: int) -> int:
    """Give the bytes of a bfloat16 tensor."""
    return int(np.prod(shape)) * BF16_BYTES
