"""The whole model at once: what chunks, caches, masks and positions must not change."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.engines.axera.graphs import DecodeGroup, PrefillGroup, StackShapes
from edge_vlm_ros.engines.bf16 import to_bf16
from support.axera.axmodel_file import Axmodel, Group, Tensor
from support.axera.layers import open_compute
from support.axera.layout import Layout
from support.axera.weights import Weights

_BF16 = np.dtype(ml_dtypes.bfloat16)
_HIDDEN = -65536.0


def stack_shapes(layout: Layout, weights: Weights) -> StackShapes:
    """Tell what a set written by `sets.write_set` holds, without reading it."""
    first, *more = layout.capacities
    more_from = 1 + len(layout.histories)
    return StackShapes(
        layers=len(weights.layers),
        hidden=weights.hidden,
        kv_width=weights.kv_width,
        vocab=len(weights.head),
        position_rows=1,
        step_rows=1,
        prefill=tuple(
            PrefillGroup(1 + i, layout.chunk, history)
            for i, history in enumerate(layout.histories)
        ),
        decode=(
            DecodeGroup(0, first),
            *(DecodeGroup(more_from + i, capacity) for i, capacity in enumerate(more)),
        ),
    )


def embed(weights: Weights, tokens: NDArray[np.integer]) -> NDArray[np.uint16]:
    """Look tokens up: bfloat16 bit patterns, (tokens, hidden)."""
    return to_bf16(weights.table[tokens].astype(np.float32))


def plain_logits(weights: Weights, embeds: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Run all layers on all tokens at once, with no cache at all.

    Hidden states are rounded to bfloat16 between layers, as between the files of a set.

    Args:
        weights: The model.
        embeds: bfloat16 bit patterns, (tokens, hidden), at positions 0, 1, ...

    Returns:
        float32, (tokens, vocabulary).
    """
    count = len(embeds)
    group = _whole(count, weights)
    hidden = embeds.view(_BF16)[None]
    dummy = np.zeros((1, 1, weights.hidden), _BF16)
    positions = np.arange(count, dtype=np.uint32)[None]
    mask = np.where(np.tri(count, dtype=np.bool_), 0.0, _HIDDEN).astype(_BF16)[None]
    for arrays in weights.layers:
        run = open_compute(Axmodel('layer', 'any', (group,), arrays))
        results = run(0, [dummy, dummy, positions, hidden, mask])
        assert results is not None
        hidden = results[2]
    return np.stack([_head(weights, row) for row in hidden[0]])


def _whole(count: int, weights: Weights) -> Group:
    hidden, row = weights.hidden, weights.kv_width
    return Group(
        (
            Tensor('K_cache', 'bf16', (1, 1, hidden)),
            Tensor('V_cache', 'bf16', (1, 1, hidden)),
            Tensor('indices', 'u32', (1, count)),
            Tensor('input', 'bf16', (1, count, hidden)),
            Tensor('mask', 'bf16', (1, count, count)),
        ),
        (
            Tensor('K_cache_out', 'bf16', (1, count, row)),
            Tensor('V_cache_out', 'bf16', (1, count, row)),
            Tensor('output', 'bf16', (1, count, hidden)),
        ),
    )


def _head(weights: Weights, row: NDArray[np.generic]) -> NDArray[np.float32]:
    group = Group(
        (Tensor('input', 'bf16', (1, 1, weights.hidden)),),
        (Tensor('output', 'bf16', (1, 1, len(weights.head))),),
    )
    epsilon = np.array(weights.sizes.epsilon)
    arrays = {'norm': weights.norm, 'head': weights.head, 'epsilon': epsilon}
    results = open_compute(Axmodel('post', 'any', (group,), arrays))(0, [row[None, None]])
    assert results is not None
    logits: NDArray[np.float32] = results[0].astype(np.float32).ravel()
    return logits
