"""One token through all layers, against the cache on the chip.

The cache is token-major, (1, context, kv_heads, head_dim), so one token is one run of memory: the
new K and V are written straight to their row by giving the net that row as its output. Where the
decode nets keep their inputs in memory of their own (address mode 1), that memory is the cache and
nothing is copied; elsewhere the cache is ours, and the runtime copies it for every token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.engines.sophgo.graphs import DecoderShapes, LayerKind
from edge_vlm_ros.engines.sophgo.masks import blocked, decode_mask
from edge_vlm_ros.engines.sophgo.nets import DType, Shape
from edge_vlm_ros.engines.sophgo.runtime import Launch, Runtime
from edge_vlm_ros.engines.sophgo.tensors import DeviceTensor


@dataclass(frozen=True, slots=True)
class LayerCache:
    """K and V of one layer.

    Attributes:
        keys: (1, context, kv_heads, head_dim), or (1, heads, rows, head_dim) of a cross layer.
        values: The same.
    """

    keys: DeviceTensor
    values: DeviceTensor


def make_caches(runtime: Runtime, shapes: DecoderShapes) -> tuple[LayerCache, ...]:
    """Take or make the caches of all layers, filled with zeros.

    Memory that nobody wrote may hold NaN, and NaN times a masked 0 is NaN.
    """
    caches = []
    for i, kind in enumerate(shapes.kinds):
        name, first = f'block_cache_{i}', 3 if kind is LayerKind.SELF else 2
        if shapes.cache_in_net:
            keys, values = runtime.own_inputs(name)[first : first + 2]
            keys.zero()
            values.zero()
        else:
            shape = runtime.nets[name].inputs[first].shape
            keys, values = (runtime.allocate(shape, shapes.half) for _ in range(2))
        caches.append(LayerCache(keys, values))
    return tuple(caches)


class DecodeMask:
    """The mask of one decode stage, kept on the chip: one element changes with each token.

    Args:
        runtime: The model's.
        capacity: Cache rows that the stage sees.
        dtype: Of the mask.
    """

    def __init__(self, runtime: Runtime, capacity: int, dtype: DType) -> None:
        self._tensor = runtime.allocate((1, 1, 1, capacity + 1), dtype)
        self._open = runtime.allocate_host(np.zeros(capacity, dtype.host), dtype)
        hidden = np.full(capacity, blocked(dtype), dtype.host)
        self._blocked = runtime.allocate_host(hidden, dtype)
        self._tensor.write(decode_mask(0, capacity, dtype))
        self._held = 0

    @property
    def tensor(self) -> DeviceTensor:
        """Where it lies."""
        return self._tensor

    def show(self, held: int) -> None:
        """Have the first `held` cache rows seen, and no other."""
        before = self._held
        if held > before:
            self._tensor.copy_from_host(self._open, 0, before, held - before)
        elif held < before:
            self._tensor.copy_from_host(self._blocked, 0, held, before - held)
        self._held = held


class CrossMemory:
    """What the cross-attention layers attend to while decoding: one image, or nothing.

    Its mask is the same for a whole answer. Where the decode nets keep their inputs it is copied
    to each of them once an image, so that no launch has to fetch it.

    Args:
        runtime: The model's.
        shapes: The decoder's.

    Attributes:
        masks: (1, 1, 1, rows of all tiles), by cross-attention layer.
        has_image: Whether there is an image.
    """

    def __init__(self, runtime: Runtime, shapes: DecoderShapes) -> None:
        assert shapes.cross is not None
        self._mask = runtime.allocate((1, 1, 1, shapes.cross.rows), shapes.half)
        layers = [i for i, kind in enumerate(shapes.kinds) if kind is LayerKind.CROSS]
        self.masks = dict.fromkeys(layers, self._mask)
        if shapes.cache_in_net:
            self.masks = {i: runtime.own_inputs(f'block_cache_{i}')[1] for i in layers}
        self.has_image = False

    def show(self, mask: NDArray[Any] | None) -> None:
        """Set what an answer's tokens see of the image; None = there is none."""
        self.has_image = False
        if mask is None:
            return
        self._mask.write(mask)
        for own in self.masks.values():
            if own is not self._mask:
                own.copy_from(self._mask, 0, 0, own.size)
        self.has_image = True


class DecodeStack:
    """All layers' decode nets, in every stage they were compiled for.

    Args:
        runtime: The model's.
        shapes: The decoder's.
        caches: Of all layers.
        cross: What cross-attention layers attend to; None = there are none.

    Attributes:
        hidden: (1, 1, hidden): the token's embedding before a run, its last hidden state after.
    """

    def __init__(
        self,
        runtime: Runtime,
        shapes: DecoderShapes,
        caches: tuple[LayerCache, ...],
        cross: CrossMemory | None,
    ) -> None:
        self._shapes = shapes
        self._caches = caches
        self._cross = cross
        self.hidden = runtime.allocate((1, 1, shapes.hidden), shapes.half)
        self._position = runtime.allocate((*shapes.position_shape[:-1], 1), DType.INT32)
        smallest_first = sorted(shapes.capacities)
        self._masks = [DecodeMask(runtime, size, shapes.half) for size in smallest_first]
        self._stages = [
            self._bind(runtime, size, mask)
            for size, mask in zip(smallest_first, self._masks, strict=True)
        ]
        self._capacities = smallest_first
        self._row = [1, 1, shapes.kv_heads, shapes.head_dim]

    def run(self, held: int, position: NDArray[np.int32]) -> None:
        """Run the token in `hidden` through all layers; its K and V become row `held`.

        Args:
            held: Tokens the cache holds; all of them are seen.
            position: int32, (1,) or (3,).

        Raises:
            DeviceError: The chip failed.
        """
        stage = next(i for i, size in enumerate(self._capacities) if size >= held)
        self._masks[stage].show(held)
        self._position.write(position)
        row, offset = self._row, held * self._shapes.row_size
        without_image = self._cross is not None and not self._cross.has_image
        layers = zip(self._stages[stage], self._caches, self._shapes.kinds, strict=True)
        for launch, cache, kind in layers:
            if kind is LayerKind.SELF:
                launch.bind_output_run(1, cache.keys, row, offset)
                launch.bind_output_run(2, cache.values, row, offset)
            elif without_image:
                continue
            launch.run()

    def _bind(self, runtime: Runtime, capacity: int, mask: DecodeMask) -> list[Launch]:
        """Bind the nets of one stage; the hidden state is changed in place."""
        shapes = self._shapes
        past: Shape = (1, capacity, shapes.kv_heads, shapes.head_dim)
        row: Shape = (1, 1, shapes.kv_heads, shapes.head_dim)
        launches = []
        for i, cache in enumerate(self._caches):
            inputs, outputs = [self.hidden], [self.hidden]
            if shapes.kinds[i] is LayerKind.SELF:
                whole = capacity == shapes.context
                keys = cache.keys if whole else cache.keys.view(past)
                values = cache.values if whole else cache.values.view(past)
                inputs += [self._position, mask.tensor, keys, values]
                outputs += [cache.keys.view(row), cache.values.view(row)]
            else:
                assert self._cross is not None
                inputs += [self._cross.masks[i], cache.keys, cache.values]
            launches.append(Launch(runtime, f'block_cache_{i}', inputs, outputs))
        return launches
