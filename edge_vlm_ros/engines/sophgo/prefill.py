"""Prompts into the cache: one class for each way in which the prefill nets are compiled.

Each of them runs a piece of a prompt, whose embeddings stand in the first rows of `hidden`, behind
the rows that the cache holds, and says how long a piece may be there. What a form cannot run in
one piece goes through the decode nets, token by token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.engines.base import StopCheck
from edge_vlm_ros.engines.checks import check_stop
from edge_vlm_ros.engines.sophgo.decode import CrossMemory, LayerCache
from edge_vlm_ros.engines.sophgo.graphs import (
    ChunkPrefill,
    DecoderShapes,
    DynamicPrefill,
    HistoryPrefill,
    LayerKind,
    StaticPrefill,
)
from edge_vlm_ros.engines.sophgo.masks import causal_mask, cross_mask, cross_row_mask, history_mask
from edge_vlm_ros.engines.sophgo.nets import DType, Shape
from edge_vlm_ros.engines.sophgo.runtime import Launch, Runtime
from edge_vlm_ros.engines.sophgo.tensors import DeviceTensor


class Prefill(Protocol):
    """One way in which prompts get into the cache."""

    @property
    def hidden(self) -> DeviceTensor:
        """Where the embeddings of a piece are to be written, (1, rows, hidden)."""
        ...

    @property
    def may_step(self) -> bool:
        """Whether few tokens may go through the decode nets instead.

        That can be cheaper where a short piece costs what the longest one costs.
        """
        ...

    def room(self, held: int) -> int:
        """Return how many tokens one piece may have behind `held`; 0 = none."""
        ...

    def run(self, held: int, positions: NDArray[np.int32], should_stop: StopCheck) -> DeviceTensor:
        """Run a piece through all layers.

        Args:
            held: Rows that the cache holds.
            positions: int32, (1 or 3, tokens).
            should_stop: Asked before each layer.

        Returns:
            The last hidden states, (1, rows, hidden); valid until the next run.

        Raises:
            CancelledError: `should_stop` said so; rows behind `held` hold nothing of use.
            DeviceError: The chip failed.
        """
        ...


class StaticRunner:
    """Blocks of one size, from an empty cache; the mask is sent once, for all prompts."""

    may_step = True

    def __init__(
        self,
        runtime: Runtime,
        shapes: DecoderShapes,
        form: StaticPrefill,
        caches: Sequence[LayerCache],
    ) -> None:
        self._rows = form.rows
        self.hidden = runtime.allocate((1, form.rows, shapes.hidden), shapes.half)
        self._positions = _Positions(runtime, shapes)
        mask = _send_mask(runtime, causal_mask(form.rows, shapes.half), shapes.half)
        kv: Shape = (1, form.rows, shapes.kv_heads, shapes.head_dim)
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

    def run(self, held: int, positions: NDArray[np.int32], should_stop: StopCheck) -> DeviceTensor:
        """Run a piece; see `Prefill`."""
        assert held == 0
        self._positions.send(positions)
        for launch in self._launches:
            check_stop(should_stop)
            launch.run()
        return self.hidden


class HistoryRunner:
    """Blocks of one size behind a history that is read from the cache where it lies.

    K and V of a chunk are written straight to their rows; what the blocks write behind the
    chunk's last token is overwritten or hidden later. Only where those rows would lie behind the
    cache's end do they take a way round: over memory of their own.
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
        self.hidden = runtime.allocate((1, form.rows, shapes.hidden), shapes.half)
        self._positions = _Positions(runtime, shapes)
        mask_shape = (1, 1, form.rows, form.history + form.rows)
        self._mask = runtime.allocate(mask_shape, shapes.half)
        self._shown: int | None = None
        self._kv: Shape = (1, form.rows, shapes.kv_heads, shapes.head_dim)
        self._detour = [runtime.allocate(self._kv, shapes.half) for _ in range(2)]
        past: Shape = (1, form.history, shapes.kv_heads, shapes.head_dim)
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

    def room(self, held: int) -> int:
        """Return how many tokens one piece may have behind `held`."""
        if held > self._form.history:
            return 0
        return min(self._form.rows, self._shapes.context - held)

    def run(self, held: int, positions: NDArray[np.int32], should_stop: StopCheck) -> DeviceTensor:
        """Run a piece; see `Prefill`."""
        tokens = positions.shape[-1]
        self._positions.send(positions)
        self._show(held)
        fits = held + self._form.rows <= self._shapes.context
        for launch, cache in zip(self._launches, self._caches, strict=True):
            check_stop(should_stop)
            if fits:
                self._run_in_place(launch, cache, held)
            else:
                self._run_round(launch, cache, held, tokens)
        return self.hidden

    def _show(self, held: int) -> None:
        if held != self._shown:
            self._shown = None
            form = self._form
            self._mask.write(history_mask(held, form.rows, form.history, self._shapes.half))
            self._shown = held

    def _run_in_place(self, launch: Launch, cache: LayerCache, held: int) -> None:
        offset = held * self._shapes.row_size
        launch.bind_output(1, cache.keys.view(self._kv, offset))
        launch.bind_output(2, cache.values.view(self._kv, offset))
        launch.run()

    def _run_round(self, launch: Launch, cache: LayerCache, held: int, tokens: int) -> None:
        keys, values = self._detour
        launch.bind_output(1, keys)
        launch.bind_output(2, values)
        launch.run()
        row = self._shapes.row_size
        cache.keys.copy_from(keys, 0, held * row, tokens * row)
        cache.values.copy_from(values, 0, held * row, tokens * row)


class _DynamicBlocks:
    """Runs nets at a piece's real length.

    The hidden state goes to and fro between two buffers: a net that works on the real length may
    still read its input while it writes its output. The memory of every tensor is as large as the
    net's largest sizes; so K and V are written in place only where as many rows as the longest
    piece has are left in the cache, and over memory of our own at its end.
    """

    def __init__(self, runtime: Runtime, shapes: DecoderShapes, rows: int) -> None:
        self._runtime = runtime
        self._shapes = shapes
        self._rows = rows
        self.buffers = [runtime.allocate((1, rows, shapes.hidden), shapes.half) for _ in range(2)]
        self._positions = runtime.allocate(shapes.position_shape, DType.INT32)
        kv: Shape = (1, rows, shapes.kv_heads, shapes.head_dim)
        self._detour = [runtime.allocate(kv, shapes.half) for _ in range(2)]

    def run(  # noqa: PLR0913, PLR0917 (what a piece is)
        self,
        prefix: str,
        caches: Sequence[LayerCache],
        held: int,
        positions: NDArray[np.int32],
        extra: Callable[[int], list[DeviceTensor]],
        should_stop: StopCheck,
    ) -> DeviceTensor:
        """Run the nets `<prefix>_<layer>`; `extra` gives a layer's inputs behind the positions."""
        shapes, tokens = self._shapes, positions.shape[-1]
        self._positions.write(positions.reshape(-1))
        at_shape = (*shapes.position_shape[:-1], tokens)
        at = self._positions.shorter(at_shape, self._positions.size)
        hidden = [
            buffer.shorter((1, tokens, shapes.hidden), buffer.size) for buffer in self.buffers
        ]
        for i, cache in enumerate(caches):
            check_stop(should_stop)
            places = self._places(cache, held, tokens)
            inputs = [hidden[i % 2], at, *extra(i)]
            self._runtime.launch(f'{prefix}_{i}', inputs, [hidden[1 - i % 2], *places])
            self._bring_home(cache, held, tokens)
        return self.buffers[len(caches) % 2]

    def _fits(self, held: int) -> bool:
        return held + self._rows <= self._shapes.context

    def _places(self, cache: LayerCache, held: int, tokens: int) -> list[DeviceTensor]:
        """Say where a layer's new K and V are written."""
        shapes = self._shapes
        kv: Shape = (1, tokens, shapes.kv_heads, shapes.head_dim)
        room = self._rows * shapes.row_size
        if not self._fits(held):
            return [tensor.shorter(kv, room) for tensor in self._detour]
        offset = held * shapes.row_size
        return [tensor.shorter(kv, room, offset) for tensor in (cache.keys, cache.values)]

    def _bring_home(self, cache: LayerCache, held: int, tokens: int) -> None:
        """Copy new rows that had no room in the cache."""
        if self._fits(held):
            return
        row = self._shapes.row_size
        homes = (cache.keys, cache.values)
        for tensor, home in zip(self._detour, homes, strict=True):
            home.copy_from(tensor, 0, held * row, tokens * row)


class DynamicRunner:
    """Blocks that run the prompt's real length, from an empty cache."""

    may_step = False

    def __init__(
        self,
        runtime: Runtime,
        shapes: DecoderShapes,
        form: DynamicPrefill,
        caches: Sequence[LayerCache],
    ) -> None:
        self._form = form
        self._half = shapes.half
        self._caches = caches
        self._blocks = _DynamicBlocks(runtime, shapes, form.rows)
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

    def run(self, held: int, positions: NDArray[np.int32], should_stop: StopCheck) -> DeviceTensor:
        """Run a piece; see `Prefill`."""
        assert held == 0
        masks = self._masks(positions.shape[-1])
        return self._blocks.run('block', self._caches, 0, positions, lambda _: masks, should_stop)

    def _masks(self, tokens: int) -> list[DeviceTensor]:
        """Send the causal mask of this length, where the nets take one."""
        if self._mask is None:
            return []
        self._mask.write(causal_mask(tokens, self._half))
        return [self._mask.shorter((1, 1, tokens, tokens), self._mask.size)]


class ChunkRunner:
    """Blocks that run the real length, with others that do so behind a history.

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
        self._blocks = _DynamicBlocks(runtime, shapes, form.rows)
        self._histories = [
            runtime.compiled_inputs(f'block_kv_{i}')[2:4] for i in range(len(caches))
        ]

    @property
    def hidden(self) -> DeviceTensor:
        """Where the embeddings of a piece are to be written."""
        return self._blocks.buffers[0]

    def room(self, held: int) -> int:
        """Return how many tokens one piece may have behind `held`."""
        if held > self._form.history:
            return 0
        return min(self._form.rows, self._shapes.context - held)

    def run(self, held: int, positions: NDArray[np.int32], should_stop: StopCheck) -> DeviceTensor:
        """Run a piece; see `Prefill`."""
        if not held:
            return self._blocks.run('block', self._caches, 0, positions, lambda _: [], should_stop)
        return self._blocks.run(
            'block_kv',
            self._caches,
            held,
            positions,
            lambda layer: self._show(layer, held),
            should_stop,
        )

    def _show(self, layer: int, held: int) -> list[DeviceTensor]:
        """Copy a layer's held rows to where its net reads them."""
        past: Shape = (1, held, self._shapes.kv_heads, self._shapes.head_dim)
        cache = self._caches[layer]
        shown = []
        for target, rows in zip(self._histories[layer], (cache.keys, cache.values), strict=True):
            target.copy_from(rows, 0, 0, held * self._shapes.row_size)
            shown.append(target.shorter(past, target.size))
        return shown


@dataclass(frozen=True, slots=True)
class AttendedImage:
    """The image of a prompt whose cross-attention layers are about to run.

    Attributes:
        first: The row of its token in the piece.
        decode_mask: What an answer's tokens see of it: (rows of all tiles,).
    """

    first: int
    decode_mask: NDArray[Any]


class CrossRunner:
    """Static blocks, some of which attend to an image (Llama 3.2 Vision).

    Without an image those layers are left out, as the reference model does.

    Attributes:
        states: (tiles, rows, hidden): the image's features, to be written before a run.
        image: What the next run attends to; None = nothing.
    """

    may_step = False  # an image can only be shown to a piece

    def __init__(
        self,
        runtime: Runtime,
        shapes: DecoderShapes,
        form: StaticPrefill,
        caches: Sequence[LayerCache],
        memory: CrossMemory,
    ) -> None:
        assert shapes.cross is not None
        self._rows, self._half = form.rows, shapes.half
        self._memory = memory
        self._kinds = shapes.kinds
        self.hidden = runtime.allocate((1, form.rows, shapes.hidden), shapes.half)
        self.states = runtime.allocate((shapes.cross.rows, shapes.hidden), shapes.half)
        self.image: AttendedImage | None = None
        self._positions = _Positions(runtime, shapes)
        mask = _send_mask(runtime, causal_mask(form.rows, shapes.half), shapes.half)
        self._row_mask = runtime.allocate((1, form.rows, 1), shapes.half)
        self._cross_mask = runtime.allocate((1, 1, form.rows, shapes.cross.rows), shapes.half)
        kv: Shape = (1, form.rows, shapes.kv_heads, shapes.head_dim)
        own = [self.hidden, self._positions.tensor, mask]
        attended = [self.hidden, self.states, self._row_mask, self._cross_mask]
        self._launches = []
        for i, (kind, cache) in enumerate(zip(shapes.kinds, caches, strict=True)):
            outputs = [cache.keys, cache.values]
            if kind is LayerKind.SELF:
                outputs = [tensor.view(kv) for tensor in outputs]
            inputs = own if kind is LayerKind.SELF else attended
            launch = Launch(runtime, f'block_{i}', inputs, [self.hidden, *outputs])
            self._launches.append(launch)

    def room(self, held: int) -> int:
        """Return how many tokens one piece may have."""
        return 0 if held else self._rows

    def run(self, held: int, positions: NDArray[np.int32], should_stop: StopCheck) -> DeviceTensor:
        """Run a piece; see `Prefill`."""
        assert held == 0
        self._positions.send(positions)
        self._attend(positions.shape[-1])
        for kind, launch in zip(self._kinds, self._launches, strict=True):
            if kind is LayerKind.CROSS and self.image is None:
                continue
            check_stop(should_stop)
            launch.run()
        return self.hidden

    def forget(self) -> None:
        """Have answers attend to no image."""
        self._memory.show(None)

    def _attend(self, tokens: int) -> None:
        """Send the masks of the cross-attention layers, for the prompt and for its answer."""
        image = self.image
        self._memory.show(None)
        if image is None:
            return
        rows, half = self._rows, self._half
        self._row_mask.write(cross_row_mask(image.first, tokens, rows, half))
        self._cross_mask.write(cross_mask(image.first, tokens, rows, image.decode_mask, half))
        self._memory.show(image.decode_mask)


class _Positions:
    """The position ids of static blocks; those behind the prompt are any that the table has."""

    def __init__(self, runtime: Runtime, shapes: DecoderShapes) -> None:
        self.tensor = runtime.allocate(shapes.position_shape, DType.INT32)

    def send(self, positions: NDArray[np.int32]) -> None:
        padded = np.zeros((positions.shape[0], self.tensor.shape[-1]), np.int32)
        padded[:, : positions.shape[1]] = positions
        self.tensor.write(padded)


def _send_mask(runtime: Runtime, mask: NDArray[Any], dtype: DType) -> DeviceTensor:
    tensor = runtime.allocate((1, 1, *mask.shape), dtype)
    tensor.write(mask)
    return tensor
