"""Blocks that run the real length, and others (`block_kv`) that do so after a history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.engines.sophgo.caches import LayerCache
from edge_vlm_ros.engines.sophgo.expect import expect_dynamic, input_of
from edge_vlm_ros.engines.sophgo.images import SplicedImages
from edge_vlm_ros.engines.sophgo.layers import DecoderShapes, expect_block
from edge_vlm_ros.engines.sophgo.nets import AddressMode, Nets
from edge_vlm_ros.engines.sophgo.prefill.dynamic import DynamicBlocks
from edge_vlm_ros.engines.sophgo.prefill.form import Run, first_block
from edge_vlm_ros.engines.sophgo.runtime import Runtime
from edge_vlm_ros.engines.sophgo.tensors import DeviceTensor


@dataclass(frozen=True, slots=True)
class ChunkPrefill:
    """Blocks that run the real length, and others (`block_kv`) that do so after a history.

    Attributes:
        rows: Tokens of the longest chunk.
        history: Cache rows that a chunk may stand after.
    """

    rows: int
    history: int
    is_fixed = False

    @classmethod
    def read(cls, nets: Nets, shapes: DecoderShapes) -> ChunkPrefill | None:
        """Know itself by a net `block_kv`; see `PrefillForm.read`."""
        block = first_block(nets, shapes)
        with_history = nets.get(f'block_kv_{shapes.first}')
        if with_history is None:
            return None
        expect_dynamic(block)
        expect_dynamic(with_history)
        if with_history.address_mode not in {AddressMode.BASIC, AddressMode.IO_ALONE}:
            raise ModelFileError(
                f'net {with_history.name}: address mode {with_history.address_mode.value}: the '
                'history has no place to be copied to; compile with --addr_mode basic'
            )
        return cls(input_of(block, 0).shape[1], input_of(with_history, 2).shape[1])

    def check_layer(self, nets: Nets, index: int, shapes: DecoderShapes) -> None:
        """Check `block_<index>` and `block_kv_<index>`."""
        expect_block(nets[f'block_{index}'], shapes, self.rows, [])
        if f'block_kv_{index}' not in nets:
            raise ModelFileError(f'expected a net block_kv_{index}, found none')
        past = (shapes.kv(self.history), shapes.half)
        expect_block(nets[f'block_kv_{index}'], shapes, self.rows, [past, past])

    def own_values(self, shapes: DecoderShapes) -> int:
        """Count what the blocks take; they take no mask."""
        return DynamicBlocks.own_values(shapes, self.rows)

    def describe(self) -> str:
        """Say what it is."""
        return f'chunks of up to {self.rows} after up to {self.history} (dynamic, block_kv)'

    def start(
        self, runtime: Runtime, shapes: DecoderShapes, caches: Sequence[LayerCache]
    ) -> ChunkRunner:
        """Bind its nets."""
        return ChunkRunner(runtime, shapes, self, caches)


class ChunkRunner:
    """Runs blocks of the real length; those after a history are given it where they read it.

    The history has to be copied: these nets read it where they were compiled to, whatever memory
    they are given (found on the chip emulator, tpu_mlir 1.30.2: with any other address the result
    is wrong without a word, for history_k and history_v alone).
    """

    may_step = False

    def __init__(
        self,
        runtime: Runtime,
        shapes: DecoderShapes,
        form: ChunkPrefill,
        caches: Sequence[LayerCache],
    ) -> None:
        self._form = form
        self._shapes = shapes
        self._caches = caches
        self.images = SplicedImages.start(runtime, shapes, form.rows)
        self._blocks = DynamicBlocks(runtime, shapes, form.rows, caches, self.images)
        self._histories = [
            runtime.compiled_inputs(f'block_kv_{i}')[2:4] for i in range(len(caches))
        ]

    @property
    def hidden(self) -> DeviceTensor:
        """Where the embeddings of a piece are to be written."""
        return self._blocks.buffers[0]

    @property
    def history(self) -> int:
        """The last row that a piece may begin after."""
        return self._form.history

    def room(self, held: int) -> int:
        """Return how many tokens one piece may have after `held`."""
        if held > self._form.history:
            return 0
        return min(self._form.rows, self._shapes.context - held)

    def run(self, run: Run) -> DeviceTensor:
        """Run a piece; see `PrefillRunner`."""
        if not run.held:
            return self._blocks.run('block', run, lambda _: [])
        return self._blocks.run('block_kv', run, lambda layer: self._show(layer, run.held))

    def _show(self, layer: int, held: int) -> list[DeviceTensor]:
        """Copy a layer's held rows to where its net reads them."""
        past = self._shapes.kv(held)
        cache = self._caches[layer]
        shown = []
        for target, rows in zip(self._histories[layer], (cache.keys, cache.values), strict=True):
            target.copy_from(rows, 0, 0, held * self._shapes.row_size)
            shown.append(target.shorter(past, target.size))
        return shown
