"""K and V of all layers, on the chip.

A self-attention layer's cache is token-major, (1, context, kv_heads, head_dim), so one token is
one run of memory: new K and V are written straight to their row by giving a net that row as its
output. Where the decode nets keep their inputs in memory of their own (address mode 1), that
memory is the cache and nothing is copied; elsewhere the cache is ours, and the runtime copies it
for every token.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_vlm_ros.engines.sophgo.layers import DecoderShapes, LayerKind
from edge_vlm_ros.engines.sophgo.runtime import Runtime
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
