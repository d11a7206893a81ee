"""The backend that leaves the caches on the chip and moves only what is new.

Memory of one set (bytes of InternVL3-2B):

    a layer of its own    K cache, V cache (1.3 MB each), zeroed once; for each slot that is used
    all layers together   two hidden states (0.4 MB each): layer i reads one and writes the other,
                          which layer i + 1 reads; a mask and indices for each shape group (5 MB);
                          scratch rows of K and V; dummies

A cache input of any group is the first rows of that layer's cache block, so prefill and decode
groups see the same rows without a copy. A decode step writes one embedding row, its position and
one element of the mask, flushes these, and runs every layer; see `rows` for where new K and V go.
Rows past those that count are stale but finite, and hidden by the masks.

A slot of the cache is a set of caches and the bindings that name them: to turn to another one
moves no byte.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import DeviceError, ModelFileError, ModelFiles
from edge_vlm_ros.engines.axera.backend import OnFile, nothing
from edge_vlm_ros.engines.axera.chip import CachePair, Chip, ChipBinding, ChipBlock, ChipModel
from edge_vlm_ros.engines.axera.deepstack import Deepstack
from edge_vlm_ros.engines.axera.graphs import DecodeGroup, PrefillGroup, StackShapes
from edge_vlm_ros.engines.axera.memory_guard import KEPT_FREE
from edge_vlm_ros.engines.axera.rows import BeforeLayer, RowWriterType, Stage, bf16
from edge_vlm_ros.engines.axera.stack_memory import StackMemory
from edge_vlm_ros.engines.base import StopCheck, never
from edge_vlm_ros.engines.bf16 import widen_bf16
from edge_vlm_ros.engines.checks import check_stop


class InPlaceBackend:
    """Decoder layers and head, driven beneath axengine; see `LayerBackend`.

    One thread calls all of it.

    Args:
        chip: The board's own, or a card.
        files: With 'layers.<i>' for each layer, and 'post'.
        shapes: What the files hold; fewer layers than the files have run as if there were no more.
        rows: How new K and V rows reach the caches.
        on_file: Called after each file is loaded.

    Raises:
        ModelFileError: A file is missing, refused by the driver, or does not fit the others.
        DeviceError: The chip has no memory left, or failed.
    """

    name = 'in place'
    takes_chunks = True

    def __init__(
        self,
        chip: Chip,
        files: ModelFiles,
        shapes: StackShapes,
        rows: RowWriterType,
        on_file: OnFile = nothing,
    ) -> None:
        self._chip, self._shapes = chip, shapes
        self._row_bytes = bf16(shapes.hidden)
        self._is_kept = False
        self._groups: tuple[PrefillGroup | DecodeGroup, ...] = (*shapes.prefill, *shapes.decode)
        self._models: list[ChipModel] = []
        self._unused: dict[tuple[int, int, str], ChipBlock] = {}
        self.takes_slots = True
        """Whether a driver follows the addresses of a second slot; the trial at load says so."""
        chip.attach()
        with ExitStack() as opening:
            self._opening = opening
            model = self._open_model(files, 'layers.0')
            self._memory = StackMemory(chip, shapes, opening, model.padding)
            self._rows = rows(self._memory.scratch, shapes)
            self._histories = self._make_histories() if self._rows.copies_history else {}
            slot = _Slot()
            for i in range(shapes.layers):
                self._add_layer(model if i == 0 else self._open_model(files, f'layers.{i}'))
                self._bind_layer(slot, i, opening)
                on_file()
            self._stages = self._ready(slot)
            self._slots = {0: self._stages}
            self._head = self._open_head(files)
            on_file()
            self._opening = opening.pop_all()
        first, last = self._memory.hidden[0], self._memory.hidden[shapes.layers % 2]
        chunk = first.nbytes // self._row_bytes
        self._embeds: NDArray[np.uint16] = first.view(np.uint16, chunk, shapes.hidden)
        self._embed = self._embeds[0]
        self._first, self._last = first, last

    def offer_slots(self, wanted: int) -> int:
        """Offer what is wanted if slots work here; unasked a second one only where it is small.

        Small is a slot where the chip's free memory holds two and what stays free anyway: other
        programs want some, too.
        """
        if not self.takes_slots:
            return 1
        free = self._chip.free_bytes() or 0
        return wanted or (2 if free >= 2 * self.slot_bytes + KEPT_FREE else 1)

    @property
    def slot_bytes(self) -> int:
        """Chip memory of one slot."""
        shapes = self._shapes
        return 2 * shapes.layers * bf16(shapes.capacity, shapes.kv_width)

    def select(self, slot: int) -> None:
        """Have the calls after this one use the caches of a slot; see `LayerBackend.select`."""
        self._chip.attach()
        if slot not in self._slots:
            with ExitStack() as taking:
                taken = _Slot()
                for number in range(len(self._models)):
                    self._bind_layer(taken, number, taking)
                self._slots[slot] = self._ready(taken)
                self._opening.callback(taking.pop_all().close)
        self._stages = self._slots[slot]

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
        self._is_kept = False
        self._chip.attach()
        self._embeds[:tokens] = embeds
        self._embeds[tokens : group.chunk] = 0
        self._first.flush(0, group.chunk * self._row_bytes)
        self._memory.inputs[group.index].write(positions, first_row)
        before_layer = self._between(should_stop, deepstack)
        self._rows.prefill(self._stages[group.index], first_row, tokens, before_layer)
        self._keep(tokens - 1)

    def step(
        self,
        group: DecodeGroup,
        embed: NDArray[np.uint16],
        position: NDArray[np.uint32],
        row: int,
        deepstack: Deepstack | None = None,
    ) -> None:
        """Run one token through all layers; see `LayerBackend.step`."""
        self._is_kept = False
        self._chip.attach()
        self._embed[:] = embed
        self._first.flush(0, self._row_bytes)
        self._memory.inputs[group.index].write(position, row)
        before_layer = None if deepstack is None else self._between(never, deepstack)
        self._rows.step(self._stages[group.index], row, before_layer)
        self._is_kept = True

    def head(self) -> NDArray[np.float32]:
        """Run final norm and LM head on the kept hidden state; see `LayerBackend.head`.

        Raises:
            DeviceError: The chip failed, or nothing is kept since a run failed or was given up.
        """
        if not self._is_kept:
            raise DeviceError('no hidden state is kept: the last chunk or step did not end')
        self._chip.attach()
        return self._head.run()

    def close(self) -> None:
        """Free the chip's memory; safe to call twice."""
        self._is_kept = False
        try:
            self._chip.attach()
        finally:
            self._opening.close()

    def _between(self, should_stop: StopCheck, deepstack: Deepstack | None) -> BeforeLayer:
        """Say what is done before each layer: asked whether to stop, and added to its input."""
        layers = 0 if deepstack is None else len(deepstack)

        def before_layer(layer: int) -> None:
            check_stop(should_stop)
            if deepstack is not None and 0 < layer <= layers:
                self._add(layer, deepstack)

        return before_layer

    def _add(self, layer: int, deepstack: Deepstack) -> None:
        """Add to what the layer before gave, where `layer` reads it."""
        block, rows = self._memory.hidden[layer % 2], deepstack.tokens
        start, nbytes = rows.start * self._row_bytes, (rows.stop - rows.start) * self._row_bytes
        block.invalidate(start, nbytes)
        hidden = block.view(np.uint16, block.nbytes // self._row_bytes, self._shapes.hidden)
        deepstack.add(layer - 1, hidden[rows])
        block.flush(start, nbytes)

    def _keep(self, row: int) -> None:
        """Move a chunk's last hidden state to where the head reads, and a step would leave it."""
        if row:
            self._last.take(self._last, row * self._row_bytes, 0, self._row_bytes)
        self._is_kept = True

    def _open_model(self, files: ModelFiles, part: str) -> ChipModel:
        model = self._chip.open(files.weights[part])
        self._opening.callback(model.close)
        return model

    def _ready(self, slot: _Slot) -> dict[int, Stage]:
        """Give the stages of a slot whose layers are all bound, by group number."""
        chip, scratch, histories = self._chip, self._memory.scratch, self._histories
        return {
            g.index: Stage(
                chip, g, slot.bindings[g.index], slot.caches, scratch, histories.get(g.index)
            )
            for g in self._groups
        }

    def _make_histories(self) -> dict[int, CachePair]:
        """Make what each prefill group that takes a history reads it from, for all layers."""
        made: dict[int, CachePair] = {}
        for group in self._shapes.prefill:
            if group.history:
                rows = bf16(group.history, self._shapes.kv_width)
                keys, values = (self._memory.block(rows, f'history {what}') for what in 'KV')
                made[group.index] = CachePair(keys, values)
        return made

    def _add_layer(self, model: ChipModel) -> None:
        if len(model.groups) != len(self._groups):
            raise ModelFileError(
                f'{model.path}: has {len(model.groups)} shape groups, the first layer has '
                f'{len(self._groups)}: it comes from another build'
            )
        for group in self._groups:
            _check_sizes(model, group, self._shapes)
        self._models.append(model)

    def _bind_layer(self, slot: _Slot, number: int, taking: ExitStack) -> None:
        """Make a layer's caches for one slot, freed by `taking`, and bind its groups to them."""
        model = self._models[number]
        rows = bf16(self._shapes.capacity, self._shapes.kv_width)
        caches = CachePair(
            self._memory.block(rows, f'keys of layer {number}', taking),
            self._memory.block(rows, f'values of layer {number}', taking),
        )
        caches.keys.clear()
        caches.values.clear()
        slot.caches.append(caches)
        for group in self._groups:
            memory = self._layer_memory(caches, group, number, model)
            slot.bindings[group.index].append(model.bind(group.index, memory))

    def _layer_memory(
        self, caches: CachePair, group: PrefillGroup | DecodeGroup, number: int, model: ChipModel
    ) -> dict[str, ChipBlock]:
        memory = self._memory
        is_first = isinstance(group, PrefillGroup) and group.history == 0
        shared = memory.inputs[group.index]
        seen = self._histories.get(group.index, caches)
        bound: dict[str, ChipBlock] = {
            'K_cache': memory.dummy if is_first else seen.keys,
            'V_cache': memory.dummy if is_first else seen.values,
            'indices': shared.indices,
            'mask': shared.mask,
            'input': memory.hidden[number % 2],
            'K_cache_out': memory.scratch.keys,
            'V_cache_out': memory.scratch.values,
            'output': memory.hidden[(number + 1) % 2],
        }
        for tensor in model.groups[group.index].outputs:
            if tensor.name not in bound:
                place = (number, group.index, tensor.name)
                if place not in self._unused:
                    what = f'{tensor.name} (unused)'
                    self._unused[place] = memory.block(tensor.nbytes, what)
                bound[tensor.name] = self._unused[place]
        return bound

    def _open_head(self, files: ModelFiles) -> _Head:
        model = self._open_model(files, 'post')
        memory: dict[str, ChipBlock] = {'input': self._memory.hidden[self._shapes.layers % 2]}
        for tensor in model.groups[0].outputs:
            memory[tensor.name] = self._memory.block(tensor.nbytes, 'logits')
        return _Head(model, memory, self._shapes.vocab)


class _Slot:
    """What one slot of the cache is made of, while its layers are bound.

    Attributes:
        caches: Of each layer.
        bindings: Of each layer, by group number.
    """

    def __init__(self) -> None:
        self.caches: list[CachePair] = []
        self.bindings: defaultdict[int, list[ChipBinding]] = defaultdict(list)


class _Head:
    """Final norm and LM head.

    Args:
        model: The file.
        memory: By tensor name.
        vocab: Logits.
    """

    def __init__(self, model: ChipModel, memory: dict[str, ChipBlock], vocab: int) -> None:
        outputs = model.groups[0].outputs  # builds with top-k give ids as well
        tensor = next((tensor for tensor in outputs if tensor.name == 'output'), outputs[0])
        if tensor.filled != vocab * tensor.dtype.itemsize:
            raise ModelFileError(f'{model.path}: has {tensor.shape} logits, expected {vocab}')
        self._binding = model.bind(0, memory)
        self._block = memory[tensor.name]
        self._given = self._block.view(tensor.dtype, vocab)
        self._is_bf16 = tensor.dtype == np.uint16
        self._logits = np.zeros(vocab, np.float32)

    def run(self) -> NDArray[np.float32]:
        self._binding.run()
        self._block.invalidate(0, self._block.nbytes)
        if self._is_bf16:
            widen_bf16(self._given, self._logits)
        else:
            self._logits[:] = self._given
        return self._logits


def _check_sizes(model: ChipModel, group: PrefillGroup | DecodeGroup, shapes: StackShapes) -> None:
    """Refuse a file of another build: the chip would read and write past its tensors' ends.

    Raises:
        ModelFileError: A tensor is missing or has another size.
    """
    tensors = model.groups[group.index]
    found = {tensor.name: tensor.filled for tensor in (*tensors.inputs, *tensors.outputs)}
    for name, nbytes in _sizes(group, shapes).items():
        if found.get(name) != nbytes:
            raise ModelFileError(
                f'{model.path}: tensor {name} of group {group.index} has '
                f'{found.get(name, "no")} bytes, other layers make it {nbytes}: '
                'it comes from another build'
            )


def _sizes(group: PrefillGroup | DecodeGroup, shapes: StackShapes) -> dict[str, int]:
    if isinstance(group, DecodeGroup):
        tokens, history, position_rows = 1, group.capacity, shapes.step_rows
    else:
        tokens, history, position_rows = group.chunk, group.history, shapes.position_rows
    rows = bf16(tokens, shapes.kv_width)
    sizes = {
        'indices': 4 * position_rows * tokens,
        'mask': bf16(tokens, history + tokens),
        'input': bf16(tokens, shapes.hidden),
        'output': bf16(tokens, shapes.hidden),
        'K_cache_out': rows,
        'V_cache_out': rows,
    }
    if history:  # otherwise dummies, of whatever width
        sizes |= dict.fromkeys(('K_cache', 'V_cache'), bf16(history, shapes.kv_width))
    return sizes
