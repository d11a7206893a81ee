"""How new K and V rows reach the caches, and how the next run reads them from there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import numpy as np

from edge_vlm_ros.engines.axera.chip import CachePair, Chip, ChipBinding
from edge_vlm_ros.engines.axera.graphs import DecodeGroup, PrefillGroup, StackShapes
from edge_vlm_ros.engines.axera.library import failed

_CACHE_LINE = 64
BF16_BYTES = 2


class Stage:
    """One shape group of all layers, bound to the caches of one slot.

    Args:
        chip: Where.
        group: What a run takes.
        bindings: One a layer; K_cache_out and V_cache_out are bound to the scratch.
        caches: Of each layer.
        scratch: What all layers share.
        history: What the group's K_cache and V_cache are bound to, where not to the caches.
    """

    def __init__(  # noqa: PLR0913, PLR0917 (all that a run touches)
        self,
        chip: Chip,
        group: PrefillGroup | DecodeGroup,
        bindings: Sequence[ChipBinding],
        caches: Sequence[CachePair],
        scratch: CachePair,
        history: CachePair | None = None,
    ) -> None:
        self.group, self.history = group, history
        self.aim = chip.aim(bindings, caches, scratch)
        self.calls: tuple[Callable[[], int], ...] = tuple(binding.call for binding in bindings)
        """Of each layer, in order; each gives 0 or an error code."""
        self.caches = tuple(caches)
        self.files = tuple(binding.what for binding in bindings)
        """What the layers are called, for messages."""


BeforeLayer: TypeAlias = Callable[[int], None]
"""Called with the number of each layer before it runs; what it raises ends the run."""


class RowWriter(Protocol):
    """Runs all layers so that their new rows come to lie in their caches.

    Attributes:
        copies_history: Whether prefill groups read their history from memory of their own, into
            which it is copied before each layer's run, and not from the layer's caches.
    """

    copies_history: bool

    def prefill(self, stage: Stage, row: int, tokens: int, before_layer: BeforeLayer) -> None:
        """Run a chunk; cache rows [row, row + tokens) hold the new keys and values afterwards.

        Raises:
            CancelledError: `before_layer` gave it up.
            DeviceError: The chip failed.
        """
        ...

    def step(self, stage: Stage, row: int, before_layer: BeforeLayer | None = None) -> None:
        """Run one token; cache row `row` holds its keys and values afterwards.

        Raises:
            DeviceError: The chip failed.
        """
        ...


RowWriterType: TypeAlias = Callable[[CachePair, StackShapes], RowWriter]
"""`DirectRows` or `CopiedRows`."""


class CopiedRows:
    """The chip writes to a scratch that all layers share; the rows are copied from there.

    Only addresses that never change are bound, so this works wherever buffers may be shared.

    Args:
        scratch: As large as the largest K_cache_out.
        shapes: Of the set.
    """

    name = 'copied rows'
    copies_history = False

    def __init__(self, scratch: CachePair, shapes: StackShapes) -> None:
        self._row_bytes = shapes.kv_width * BF16_BYTES
        self._scratch = scratch

    def prefill(self, stage: Stage, row: int, tokens: int, before_layer: BeforeLayer) -> None:
        """Run and copy a chunk; see `RowWriter.prefill`."""
        at, nbytes = row * self._row_bytes, tokens * self._row_bytes
        keys, values = self._scratch.keys, self._scratch.values
        for i, call in enumerate(stage.calls):
            before_layer(i)
            if stage.history is not None:
                self._copy_history(stage.history, stage.caches[i])
            code = call()
            if code:
                raise failed('the run', code, stage.files[i])
            stage.caches[i].keys.take(keys, 0, at, nbytes)
            stage.caches[i].values.take(values, 0, at, nbytes)

    def step(self, stage: Stage, row: int, before_layer: BeforeLayer | None = None) -> None:
        """Run and copy one token; see `RowWriter.step`."""
        self.prefill(stage, row, 1, before_layer or _nothing)

    @staticmethod
    def _copy_history(history: CachePair, caches: CachePair) -> None:
        history.keys.take(caches.keys, 0, 0, history.keys.nbytes)
        history.values.take(caches.values, 0, 0, history.values.nbytes)


class CopiedHistories(CopiedRows):
    """As `CopiedRows`, and a chunk's history is copied on the card to memory of exactly its size.

    For cards on which prefill groups do not see what lies in larger buffers.
    """

    name = 'copied rows and histories'
    copies_history = True


class DirectRows:
    """The chip writes each row where the next step reads it: no byte of it passes the processor.

    The runs' output addresses are moved to the row beforehand, for all layers at once. A decode
    run reads the cache while it writes row `row`, which its mask hides, so old and new bytes do
    equally well as long as both are finite. A prefill run writes its padding too; where that would
    run past the buffer, or into rows that the same run reads, rows are copied instead.

    Whether a driver follows moved addresses is not documented: `self_test` finds out.

    Args:
        scratch: As large as the largest K_cache_out.
        shapes: Of the set.
    """

    name = 'rows written in place'
    copies_history = False

    def __init__(self, scratch: CachePair, shapes: StackShapes) -> None:
        self._copied = CopiedRows(scratch, shapes)
        self._row_bytes = shapes.kv_width * BF16_BYTES
        self._capacity = shapes.capacity

    def prefill(self, stage: Stage, row: int, tokens: int, before_layer: BeforeLayer) -> None:
        """Run a chunk, outputs in the caches where they fit; see `RowWriter.prefill`."""
        group = stage.group
        assert isinstance(group, PrefillGroup), group
        if group.history > row or row + group.chunk > self._capacity:
            stage.aim.at_scratch()
            self._copied.prefill(stage, row, tokens, before_layer)
            return
        stage.aim.at_caches(row * self._row_bytes)
        _run(stage, before_layer)

    def step(self, stage: Stage, row: int, before_layer: BeforeLayer | None = None) -> None:
        """Run one token, outputs in the caches; see `RowWriter.step`.

        This loop is what a token costs the host besides its head: nothing in it is Python but the
        loop itself.
        """
        stage.aim.at_caches(row * self._row_bytes)
        if before_layer is not None:
            _run(stage, before_layer)
            return
        for i, call in enumerate(stage.calls):
            code = call()
            if code:
                raise failed('the run', code, stage.files[i])


def _run(stage: Stage, before_layer: BeforeLayer) -> None:
    for i, call in enumerate(stage.calls):
        before_layer(i)
        code = call()
        if code:
            raise failed('the run', code, stage.files[i])


def _nothing(layer: int) -> None:
    del layer


def takes_direct_rows(shapes: StackShapes) -> bool:
    """Return whether every row has cache lines of its own, which two writers must not share."""
    return shapes.kv_width * BF16_BYTES % _CACHE_LINE == 0


def bf16(*shape: int) -> int:
    """Give the bytes of a bfloat16 tensor."""
    return int(np.prod(shape)) * BF16_BYTES
