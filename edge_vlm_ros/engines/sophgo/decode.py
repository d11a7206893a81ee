"""One token through all layers, against the cache on the chip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.engines.sophgo.caches import LayerCache
from edge_vlm_ros.engines.sophgo.deepstack import add_to_row
from edge_vlm_ros.engines.sophgo.images import Images
from edge_vlm_ros.engines.sophgo.layers import DecoderShapes, LayerKind
from edge_vlm_ros.engines.sophgo.masks import blocked, decode_mask
from edge_vlm_ros.engines.sophgo.nets import DType
from edge_vlm_ros.engines.sophgo.runtime import Launch, Runtime
from edge_vlm_ros.engines.sophgo.tensors import DeviceTensor


class StageMask:
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


class DecodeStack:
    """All layers' decode nets, in every stage they were compiled for.

    Args:
        runtime: The model's.
        shapes: The decoder's.
        caches: Of all layers.
        images: What cross-attention layers attend to.

    Attributes:
        hidden: (1, 1, hidden): the token's embedding before a run, its last hidden state after.
    """

    def __init__(
        self,
        runtime: Runtime,
        shapes: DecoderShapes,
        caches: tuple[LayerCache, ...],
        images: Images,
    ) -> None:
        self._shapes = shapes
        self._caches = caches
        self._images = images
        self.hidden = runtime.allocate((1, 1, shapes.hidden), shapes.half)
        self._position = runtime.allocate((*shapes.position_shape[:-1], 1), DType.INT32)
        smallest_first = sorted(shapes.capacities)
        self._masks = [StageMask(runtime, size, shapes.half) for size in smallest_first]
        self._stages = [
            self._bind(runtime, size, mask)
            for size, mask in zip(smallest_first, self._masks, strict=True)
        ]
        self._capacities = smallest_first
        self._row = list(shapes.kv(1))

    def run(
        self, held: int, position: NDArray[np.int32], deepstack: Sequence[NDArray[Any]] = ()
    ) -> None:
        """Run the token in `hidden` through all layers; its K and V become row `held`.

        Args:
            held: Tokens the cache holds; all of them are seen.
            position: int32, (1,) or (3,).
            deepstack: What is added after the first layers, (hidden,) for each of them.

        Raises:
            DeviceError: The chip failed.
        """
        stage = next(i for i, size in enumerate(self._capacities) if size >= held)
        self._masks[stage].show(held)
        self._position.write(position)
        row, offset = self._row, held * self._shapes.row_size
        has_image = self._images.has_image
        layers = zip(self._stages[stage], self._caches, self._shapes.kinds, strict=True)
        for layer, (launch, cache, kind) in enumerate(layers):
            if kind is LayerKind.SELF:
                launch.bind_output_run(1, cache.keys, row, offset)
                launch.bind_output_run(2, cache.values, row, offset)
            elif not has_image:
                continue
            launch.run()
            if layer < len(deepstack):
                add_to_row(self.hidden, deepstack[layer])

    def _bind(self, runtime: Runtime, capacity: int, mask: StageMask) -> list[Launch]:
        """Bind the nets of one stage; the hidden state is changed in place."""
        shapes = self._shapes
        past, row = shapes.kv(capacity), shapes.kv(1)
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
                inputs += [self._images.masks[i], cache.keys, cache.values]
            launches.append(Launch(runtime, f'block_cache_{i}', inputs, outputs))
        return launches
