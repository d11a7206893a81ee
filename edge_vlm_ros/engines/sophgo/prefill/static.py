"""Blocks of one size, from an empty cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_vlm_ros.engines.checks import check_stop
from edge_vlm_ros.engines.sophgo.caches import LayerCache
from edge_vlm_ros.engines.sophgo.expect import input_of
from edge_vlm_ros.engines.sophgo.images import SplicedImages
from edge_vlm_ros.engines.sophgo.layers import DecoderShapes, expect_block
from edge_vlm_ros.engines.sophgo.masks import causal_mask
from edge_vlm_ros.engines.sophgo.nets import Nets
from edge_vlm_ros.engines.sophgo.prefill.form import Positions, Run, first_block, send_mask
from edge_vlm_ros.engines.sophgo.runtime import Launch, Runtime
from edge_vlm_ros.engines.sophgo.tensors import DeviceTensor


@dataclass(frozen=True, slots=True)
class StaticPrefill:
    """Blocks of one size: a prompt costs what the longest one costs, and begins an empty cache.

    Attributes:
        rows: Tokens of one run.
    """

    rows: int
    is_fixed = True

    @classmethod
    def read(cls, nets: Nets, shapes: DecoderShapes) -> StaticPrefill | None:
        """Know itself by three inputs; see `PrefillForm.read`."""
        block = first_block(nets, shapes)
        if len(block.inputs) != 3 or block.is_dynamic:
            return None
        return cls(input_of(block, 0).shape[1])

    def check_layer(self, nets: Nets, index: int, shapes: DecoderShapes) -> None:
        """Check `block_<index>`."""
        mask = ((1, 1, self.rows, self.rows), shapes.half)
        expect_block(nets[f'block_{index}'], shapes, self.rows, [mask])

    def own_values(self, shapes: DecoderShapes) -> int:
        """Count hidden states and mask."""
        return self.rows * (shapes.hidden + self.rows)

    def describe(self) -> str:
        """Say what it is."""
        return f'{self.rows} tokens from an empty cache (static), then token by token'

    def start(
        self, runtime: Runtime, shapes: DecoderShapes, caches: Sequence[LayerCache]
    ) -> StaticRunner:
        """Bind its nets."""
        return StaticRunner(runtime, shapes, self, caches)


class StaticRunner:
    """Runs blocks of one size; the mask is sent once, for all prompts."""

    may_step = True
    history = 0

    def __init__(
        self,
        runtime: Runtime,
        shapes: DecoderShapes,
        form: StaticPrefill,
        caches: Sequence[LayerCache],
    ) -> None:
        self._rows = form.rows
        self.images = SplicedImages.start(runtime, shapes, form.rows)
        self.hidden = runtime.allocate((1, form.rows, shapes.hidden), shapes.half)
        self._positions = Positions(runtime, shapes)
        mask = send_mask(runtime, causal_mask(form.rows, shapes.half), shapes.half)
        kv = shapes.kv(form.rows)
        self._launches = [
            Launch(
                runtime,
                f'block_{i}',
                [self.hidden, self._positions.tensor, mask],
                [self.hidden, cache.keys.view(kv), cache.values.view(kv)],
            )
            for i, cache in enumerate(caches)
        ]

    def room(self, held: int) -> int:
        """Return how many tokens one piece may have."""
        return 0 if held else self._rows

    def run(self, run: Run) -> DeviceTensor:
        """Run a piece; see `PrefillRunner`."""
        assert run.held == 0
        self._positions.send(run.positions)
        for layer, launch in enumerate(self._launches):
            check_stop(run.should_stop)
            launch.run()
            self.images.add_after(layer, self.hidden)
        return self.hidden
