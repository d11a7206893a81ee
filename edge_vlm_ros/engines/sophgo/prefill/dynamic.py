"""Blocks that run the prompt's real length, from an empty cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from edge_vlm_ros.engines.checks import check_stop
from edge_vlm_ros.engines.sophgo.caches import LayerCache
from edge_vlm_ros.engines.sophgo.expect import input_of
from edge_vlm_ros.engines.sophgo.images import SplicedImages
from edge_vlm_ros.engines.sophgo.layers import DecoderShapes, expect_block
from edge_vlm_ros.engines.sophgo.masks import causal_mask
from edge_vlm_ros.engines.sophgo.nets import DType, Nets
from edge_vlm_ros.engines.sophgo.prefill.form import Run, first_block
from edge_vlm_ros.engines.sophgo.runtime import Runtime
from edge_vlm_ros.engines.sophgo.tensors import DeviceTensor


@dataclass(frozen=True, slots=True)
class DynamicPrefill:
    """Blocks that run the prompt's real length; it begins an empty cache.

    Attributes:
        rows: Tokens of the longest run.
        takes_mask: Files before May 2026; later ones have the causal mask inside.
    """

    rows: int
    takes_mask: bool
    is_fixed = False

    @classmethod
    def read(cls, nets: Nets, shapes: DecoderShapes) -> DynamicPrefill | None:
        """Know itself by two or three inputs of any size; see `PrefillForm.read`."""
        block = first_block(nets, shapes)
        if not block.is_dynamic or len(block.inputs) not in {2, 3}:
            return None
        return cls(input_of(block, 0).shape[1], takes_mask=len(block.inputs) == 3)

    def check_layer(self, nets: Nets, index: int, shapes: DecoderShapes) -> None:
        """Check `block_<index>`."""
        mask = ((1, 1, self.rows, self.rows), shapes.half)
        more = [mask] if self.takes_mask else []
        expect_block(nets[f'block_{index}'], shapes, self.rows, more)

    def own_values(self, shapes: DecoderShapes) -> int:
        """Count what the blocks take and, where the nets take one, the mask."""
        mask = self.rows * self.rows if self.takes_mask else 0
        return DynamicBlocks.own_values(shapes, self.rows) + mask

    def describe(self) -> str:
        """Say what it is."""
        return f'up to {self.rows} tokens from an empty cache (dynamic), then token by token'

    def start(
        self, runtime: Runtime, shapes: DecoderShapes, caches: Sequence[LayerCache]
    ) -> DynamicRunner:
        """Bind its nets."""
        return DynamicRunner(runtime, shapes, self, caches)


class DynamicBlocks:
    """Runs nets at a piece's real length.

    The hidden state goes back and forth between two buffers: a net that works on the real length
    may still read its input while it writes its output. The memory of every tensor is as large as
    the net's largest sizes; so K and V are written in place only where as many rows as the longest
    piece has are left in the cache, and over memory of our own at its end.
    """

    @staticmethod
    def own_values(shapes: DecoderShapes, rows: int) -> int:
        """Count hidden states, and the way round for K and V."""
        return 2 * (rows * shapes.hidden + prod(shapes.kv(rows)))

    def __init__(
        self,
        runtime: Runtime,
        shapes: DecoderShapes,
        rows: int,
        caches: Sequence[LayerCache],
        images: SplicedImages,
    ) -> None:
        self._runtime = runtime
        self._images = images
        self._shapes = shapes
        self._rows = rows
        self._caches = caches
        self.buffers = [runtime.allocate((1, rows, shapes.hidden), shapes.half) for _ in range(2)]
        self._positions = runtime.allocate(shapes.position_shape, DType.INT32)
        self._detour = [runtime.allocate(shapes.kv(rows), shapes.half) for _ in range(2)]

    def run(
        self, prefix: str, run: Run, extra: Callable[[int], list[DeviceTensor]]
    ) -> DeviceTensor:
        """Run the nets `<prefix>_<layer>`; `extra` gives a layer's inputs after the positions."""
        shapes, tokens = self._shapes, run.tokens
        self._positions.write(run.positions.reshape(-1))
        at_shape = (*shapes.position_shape[:-1], tokens)
        at = self._positions.shorter(at_shape, self._positions.size)
        hidden = [
            buffer.shorter((1, tokens, shapes.hidden), buffer.size) for buffer in self.buffers
        ]
        for i, cache in enumerate(self._caches):
            check_stop(run.should_stop)
            places = self._places(cache, run)
            inputs = [hidden[i % 2], at, *extra(i)]
            self._runtime.launch(f'{prefix}_{i}', inputs, [hidden[1 - i % 2], *places])
            self._bring_home(cache, run)
            self._images.add_after(i, self.buffers[1 - i % 2])
        return self.buffers[len(self._caches) % 2]

    def _fits(self, held: int) -> bool:
        return held + self._rows <= self._shapes.context

    def _places(self, cache: LayerCache, run: Run) -> list[DeviceTensor]:
        """Say where a layer's new K and V are written."""
        kv = self._shapes.kv(run.tokens)
        room = self._rows * self._shapes.row_size
        if not self._fits(run.held):
            return [tensor.shorter(kv, room) for tensor in self._detour]
        offset = run.held * self._shapes.row_size
        return [tensor.shorter(kv, room, offset) for tensor in (cache.keys, cache.values)]

    def _bring_home(self, cache: LayerCache, run: Run) -> None:
        """Copy new rows that had no room in the cache."""
        if self._fits(run.held):
            return
        row = self._shapes.row_size
        homes = (cache.keys, cache.values)
        for tensor, home in zip(self._detour, homes, strict=True):
            home.copy_from(tensor, 0, run.held * row, run.tokens * row)


class DynamicRunner:
    """Runs blocks of the prompt's real length, from an empty cache."""

    may_step = False
    history = 0

    def __init__(
        self,
        runtime: Runtime,
        shapes: DecoderShapes,
        form: DynamicPrefill,
        caches: Sequence[LayerCache],
    ) -> None:
        self._form = form
        self._half = shapes.half
        self.images = SplicedImages.start(runtime, shapes, form.rows)
        self._blocks = DynamicBlocks(runtime, shapes, form.rows, caches, self.images)
        self._mask: DeviceTensor | None = None
        if form.takes_mask:
            self._mask = runtime.allocate((1, 1, form.rows, form.rows), shapes.half)

    @property
    def hidden(self) -> DeviceTensor:
        """Where the embeddings of a piece are to be written."""
        return self._blocks.buffers[0]

    def room(self, held: int) -> int:
        """Return how many tokens one piece may have."""
        return 0 if held else self._form.rows

    def run(self, run: Run) -> DeviceTensor:
        """Run a piece; see `PrefillRunner`."""
        assert run.held == 0
        masks = self._masks(run.tokens)
        return self._blocks.run('block', run, lambda _: masks)

    def _masks(self, tokens: int) -> list[DeviceTensor]:
        """Send the causal mask of this length, where the nets take one."""
        if self._mask is None:
            return []
        self._mask.write(causal_mask(tokens, self._half))
        return [self._mask.shorter((1, 1, tokens, tokens), self._mask.size)]
