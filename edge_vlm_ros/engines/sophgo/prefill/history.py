"""Blocks of one size, after a history that is read from the cache where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.engines.checks import check_stop
from edge_vlm_ros.engines.sophgo.caches import LayerCache
from edge_vlm_ros.engines.sophgo.expect import input_of
from edge_vlm_ros.engines.sophgo.images import SplicedImages
from edge_vlm_ros.engines.sophgo.layers import DecoderShapes, expect_block
from edge_vlm_ros.engines.sophgo.masks import history_mask
from edge_vlm_ros.engines.sophgo.nets import Nets
from edge_vlm_ros.engines.sophgo.prefill.form import Positions, Run, first_block
from edge_vlm_ros.engines.sophgo.runtime import Launch, Runtime
from edge_vlm_ros.engines.sophgo.tensors import DeviceTensor


@dataclass(frozen=True, slots=True)
class HistoryPrefill:
    """Blocks of one size with a history: a chunk costs the same wherever it stands.

    Attributes:
        rows: Tokens of one chunk.
        history: Cache rows that a chunk may stand after.
    """

    rows: int
    history: int
    is_fixed = True

    @classmethod
    def read(cls, nets: Nets, shapes: DecoderShapes) -> HistoryPrefill | None:
        """Know itself by five inputs; see `PrefillForm.read`."""
        block = first_block(nets, shapes)
        if len(block.inputs) != 5:
            return None
        if not shapes.blocks_alias:
            raise ModelFileError(
                f'net {block.name}: address mode {block.address_mode.value}: keys may be written '
                "over the history behind the runtime's back; compile the block nets with "
                '--addr_mode basic'
            )
        return cls(input_of(block, 0).shape[1], input_of(block, 3).shape[1])

    def check_layer(self, nets: Nets, index: int, shapes: DecoderShapes) -> None:
        """Check `block_<index>`."""
        past = (shapes.kv(self.history), shapes.half)
        mask = ((1, 1, self.rows, self.history + self.rows), shapes.half)
        expect_block(nets[f'block_{index}'], shapes, self.rows, [mask, past, past])

    def own_values(self, shapes: DecoderShapes) -> int:
        """Count hidden states, mask, and the way round for K and V."""
        detour = 2 * prod(shapes.kv(self.rows))
        return self.rows * (shapes.hidden + self.history + self.rows) + detour

    def describe(self) -> str:
        """Say what it is."""
        return f'chunks of {self.rows} after up to {self.history} (static, with history)'

    def start(
        self, runtime: Runtime, shapes: DecoderShapes, caches: Sequence[LayerCache]
    ) -> HistoryRunner:
        """Bind its nets."""
        return HistoryRunner(runtime, shapes, self, caches)


class ShownMask:
    """Which rows of the mask on the chip are those of a history of a length."""

    def __init__(self) -> None:
        self._held = -1
        self._rows = 0

    def lacking(self, held: int, tokens: int) -> range:
        """Give the rows to send before so many tokens run after so many held ones."""
        if held != self._held:
            self._held, self._rows = held, 0
        return range(min(self._rows, tokens), tokens)

    def note(self, tokens: int) -> None:
        """Take it that the rows of so many tokens are there now."""
        self._rows = max(self._rows, tokens)


class HistoryRunner:
    """Runs blocks whose history is the cache itself.

    K and V of a chunk are written straight to their rows; what the blocks write after the chunk's
    last token is overwritten or hidden later. Only where those rows would lie past the cache's end
    do they take a way round: over memory of their own.
    """

    may_step = True

    def __init__(
        self,
        runtime: Runtime,
        shapes: DecoderShapes,
        form: HistoryPrefill,
        caches: Sequence[LayerCache],
    ) -> None:
        self._form = form
        self._shapes = shapes
        self._caches = caches
        self.images = SplicedImages.start(runtime, shapes, form.rows)
        self.hidden = runtime.allocate((1, form.rows, shapes.hidden), shapes.half)
        self._positions = Positions(runtime, shapes)
        mask_shape = (1, 1, form.rows, form.history + form.rows)
        self._mask = runtime.allocate(mask_shape, shapes.half)
        self._shown = ShownMask()
        self._kv = shapes.kv(form.rows)
        self._detour = [runtime.allocate(self._kv, shapes.half) for _ in range(2)]
        past = shapes.kv(form.history)
        self._launches = [
            Launch(
                runtime,
                f'block_{i}',
                [
                    *(self.hidden, self._positions.tensor, self._mask),
                    *(cache.keys.view(past), cache.values.view(past)),
                ],
                [self.hidden, *self._detour],
            )
            for i, cache in enumerate(caches)
        ]

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
        self._positions.send(run.positions)
        self._show(run)
        fits = run.held + self._form.rows <= self._shapes.context
        layers = zip(self._launches, self._caches, strict=True)
        for layer, (launch, cache) in enumerate(layers):
            check_stop(run.should_stop)
            if fits:
                self._run_in_place(launch, cache, run.held)
            else:
                self._run_round(launch, cache, run)
            self.images.add_after(layer, self.hidden)
        return self.hidden

    def _show(self, run: Run) -> None:
        """Send the mask's rows of the new tokens; nobody reads what the others give."""
        form = self._form
        rows = self._shown.lacking(run.held, run.tokens)
        if rows:
            mask = history_mask(run.held, rows, form.rows, form.history, self._shapes.half)
            self._mask.write(mask.reshape(-1), rows.start * (form.history + form.rows))
        self._shown.note(run.tokens)

    def _run_in_place(self, launch: Launch, cache: LayerCache, held: int) -> None:
        offset = held * self._shapes.row_size
        launch.bind_output(1, cache.keys.view(self._kv, offset))
        launch.bind_output(2, cache.values.view(self._kv, offset))
        launch.run()

    def _run_round(self, launch: Launch, cache: LayerCache, run: Run) -> None:
        keys, values = self._detour
        launch.bind_output(1, keys)
        launch.bind_output(2, values)
        launch.run()
        row = self._shapes.row_size
        cache.keys.copy_from(keys, 0, run.held * row, run.tokens * row)
        cache.values.copy_from(values, 0, run.held * row, run.tokens * row)
