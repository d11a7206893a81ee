"""The backend on axengine's public `run` alone: any version, on the chip and on cards.

The caches live in host memory. Each run copies what its group takes to the chip (for
InternVL3-2B 73.6 MB a token), which is what the backend in place is there to avoid.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import ModelFiles
from edge_vlm_ros.engines.axera.backend import OnFile, nothing
from edge_vlm_ros.engines.axera.deepstack import Deepstack
from edge_vlm_ros.engines.axera.graphs import (
    DecodeGroup,
    LayerTensors,
    PrefillGroup,
    StackShapes,
    check_same,
    layer_tensors,
    logits_place,
)
from edge_vlm_ros.engines.axera.masks import DecodeMask, PrefillMask
from edge_vlm_ros.engines.axera.runtime import BFLOAT16, OpenSession, Session
from edge_vlm_ros.engines.base import StopCheck, never
from edge_vlm_ros.engines.bf16 import widen_bf16
from edge_vlm_ros.engines.checks import check_stop


@dataclass(frozen=True, slots=True)
class _Caches:
    """K and V of all layers, (layers, capacity, kv_width) each, of one slot.

    Zeroed: a NaN in a hidden row would spread, as 0 x NaN is NaN.
    """

    keys: NDArray[np.uint16]
    values: NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of all layers.

    Attributes:
        group: The shape group's number.
        history: Cache rows it takes.
        hidden: What the first layer takes, (1, chunk, hidden).
        mask: As the group takes it, but for the shape.
        positions: (tokens,) or (3, tokens).
        first_row: Of the cache, where the new rows go.
        deepstack: What is added between layers; None = nothing is.
    """

    group: int
    history: int
    hidden: NDArray[np.uint16]
    mask: NDArray[np.uint16]
    positions: NDArray[np.uint32]
    first_row: int
    deepstack: Deepstack | None


class PortableBackend:
    """Decoder layers and head through `Session.run`; see `LayerBackend`. One thread calls all.

    Args:
        open_session: Opens a file on the chip.
        files: With 'layers.<i>' for each layer, and 'post'.
        shapes: What the files hold; fewer layers than the files have run as if there were no more.
        on_file: Called after each file is loaded.

    Raises:
        ModelFileError: A file is missing, refused by the driver, or of another build.
        DeviceError: The chip has no memory left.
    """

    name = 'portable'

    def __init__(
        self,
        open_session: OpenSession,
        files: ModelFiles,
        shapes: StackShapes,
        on_file: OnFile = nothing,
    ) -> None:
        self._shapes = shapes
        self.takes_chunks = True
        """Whether prefill groups may be run: on some cards they do not see their inputs."""
        self._layers: list[Session] = []
        with ExitStack() as opening:
            for i in range(shapes.layers):
                layer = open_session(files.weights[f'layers.{i}'])
                opening.callback(layer.close)
                self._layers.append(layer)
                check_same(layer, self._layers[0])
                on_file()
            self._post = open_session(files.weights['post'])
            opening.callback(self._post.close)
            on_file()
            self._closing = opening.pop_all()
        first = self._layers[0]
        self._tensors = [layer_tensors(first, g) for g in range(len(first.groups))]
        self._prefill_masks = {
            group.index: PrefillMask(group.chunk, group.history) for group in shapes.prefill
        }
        self._decode_masks = {group.index: DecodeMask(group.capacity) for group in shapes.decode}
        self._slots: dict[int, _Caches] = {}
        self.select(0)
        self._kept: NDArray[np.uint16] = np.zeros(shapes.hidden, np.uint16)
        self._logits = np.zeros(shapes.vocab, np.float32)

    def offer_slots(self, wanted: int) -> int:
        """Offer what is wanted, 2 if nothing is said: caches are in host memory."""
        return wanted or 2

    def select(self, slot: int) -> None:
        """Have the calls after this one use the caches of a slot; see `LayerBackend.select`."""
        if slot not in self._slots:
            shapes = self._shapes
            rows = (shapes.layers, shapes.capacity, shapes.kv_width)
            self._slots[slot] = _Caches(np.zeros(rows, np.uint16), np.zeros(rows, np.uint16))
        caches = self._slots[slot]
        self._keys, self._values = caches.keys, caches.values

    def prefill(  # noqa: PLR0913, PLR0917 (what a chunk is, and where it goes)
        self,
        group: PrefillGroup,
        embeds: NDArray[np.uint16],
        positions: NDArray[np.uint32],
        first_row: int,
        should_stop: StopCheck,
        deepstack: Deepstack | None = None,
    ) -> None:
        """Run one chunk through all layers; see `LayerBackend.prefill`."""
        tokens = len(embeds)
        mask = self._prefill_masks[group.index]
        mask.update(first_row, tokens)
        hidden: NDArray[np.uint16] = np.zeros((1, group.chunk, self._shapes.hidden), np.uint16)
        hidden[0, :tokens] = embeds
        run = _Run(group.index, group.history, hidden, mask.bits, positions, first_row, deepstack)
        self._run_layers(run, should_stop)

    def step(
        self,
        group: DecodeGroup,
        embed: NDArray[np.uint16],
        position: NDArray[np.uint32],
        row: int,
        deepstack: Deepstack | None = None,
    ) -> None:
        """Run one token through all layers; see `LayerBackend.step`."""
        mask = self._decode_masks[group.index]
        mask.update(row)
        run = _Run(
            group.index, group.capacity, embed[None, None], mask.bits, position, row, deepstack
        )
        self._run_layers(run, never)

    def head(self) -> NDArray[np.float32]:
        """Run final norm and LM head on the kept hidden state; see `LayerBackend.head`."""
        wide = self._post.groups[0].inputs[0]
        place = logits_place(self._post)
        scores = self._post.run(0, {wide.name: self._kept.reshape(wide.shape)})[place]
        if self._post.groups[0].outputs[place].dtype == BFLOAT16:
            widen_bf16(scores, self._logits)
        else:
            self._logits[:] = scores.ravel()
        return self._logits

    def close(self) -> None:
        """Free the chip's memory; safe to call twice."""
        self._closing.close()

    def _run_layers(self, run: _Run, should_stop: StopCheck) -> None:
        tensors = self._tensors[run.group]
        tokens = run.positions.shape[-1]
        written = slice(run.first_row, run.first_row + tokens)
        feeds: dict[str, NDArray[Any]] = {
            tensors.indices.name: _padded(run.positions, tensors),
            tensors.mask.name: run.mask.reshape(tensors.mask.shape),
        }
        if not run.history:
            dummy = np.zeros(tensors.k_cache.shape, np.uint16)
            feeds |= {tensors.k_cache.name: dummy, tensors.v_cache.name: dummy}
        hidden = run.hidden
        for i, layer in enumerate(self._layers):
            check_stop(should_stop)
            feeds[tensors.hidden.name] = hidden
            if run.history:
                feeds[tensors.k_cache.name] = self._keys[i, None, : run.history]
                feeds[tensors.v_cache.name] = self._values[i, None, : run.history]
            results = layer.run(run.group, feeds)
            # Rows of padding stay out: nothing is known of them but that they do not count.
            self._keys[i, written] = results[tensors.k_rows][0, :tokens]
            self._values[i, written] = results[tensors.v_rows][0, :tokens]
            hidden = results[tensors.output]
            # Nor do they go on to the next layer: NaN there would spread through hidden columns.
            hidden[0, tokens:] = 0
            if run.deepstack is not None and i < len(run.deepstack):
                run.deepstack.add(i, hidden[0, run.deepstack.tokens])
        self._kept[:] = hidden[0, tokens - 1]


def _padded(positions: NDArray[np.uint32], tensors: LayerTensors) -> NDArray[np.uint32]:
    """Fill up with 0, as the fixed-length scripts do: what stands there is of no consequence."""
    *leading, chunk = tensors.indices.shape
    rows = int(np.prod(leading))
    if positions.ndim > 1:  # a group of one row takes the first axis
        positions = positions[:rows]
    padded = np.zeros((rows, chunk), np.uint32)
    padded[:, : positions.shape[-1]] = positions
    return padded.reshape(tensors.indices.shape)
