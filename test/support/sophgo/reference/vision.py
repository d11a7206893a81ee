"""The vision towers and projectors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from support.sophgo.reference.arithmetic import Array, Weights, attention, gelu, rotate, tanh_gelu

_HIDDEN: Final = -1e9


class _Tower:
    """What the vision towers share."""

    def __init__(self, weights: Weights, eps: float) -> None:
        self.weights = weights
        self._eps = eps

    def linear(self, x: Array, name: str) -> Array:
        y = x @ self.weights[f'{name}.weight'].T
        bias = self.weights.get(f'{name}.bias')
        result: Array = y if bias is None else y + bias
        return result

    def norm(self, x: Array, name: str) -> Array:
        mean = x.mean(-1, keepdims=True)
        scale = np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + self._eps)
        normed: Array = (x - mean) / scale * self.weights[f'{name}.weight']
        return normed + self.weights[f'{name}.bias']

    def rms_norm(self, x: Array, name: str) -> Array:
        scale = np.sqrt((x**2).mean(-1, keepdims=True) + self._eps)
        normed: Array = x / scale * self.weights[f'{name}.weight']
        return normed

    def qkv(self, x: Array, name: str, heads: int) -> tuple[Array, Array, Array]:
        q, k, v = self.linear(x, name).reshape(len(x), 3, heads, -1).transpose(1, 0, 2, 3)
        return q, k, v


def _patches(image: Array, patch: int) -> Array:
    """Cut (3, px, px) into (patches, 3 * patch * patch), row by row."""
    grid = image.shape[-1] // patch
    cut: Array = image.reshape(3, grid, patch, grid, patch).transpose(1, 3, 0, 2, 4)
    return cut.reshape(grid * grid, -1)


def internvl_vision(config: Mapping[str, Any], weights: Weights, tile: Array) -> Array:
    """Return the rows of one tile: (3, px, px) normalised to (tokens, width)."""
    sizes = config['vision_config']
    width, heads = sizes['hidden_size'], sizes['num_attention_heads']
    tower = _Tower(weights, sizes['layer_norm_eps'])
    at = 'vision_model.embeddings.'
    kernel = weights[f'{at}patch_embedding.weight'].reshape(width, -1)
    x = _patches(tile, sizes['patch_size']) @ kernel.T + weights[f'{at}patch_embedding.bias']
    x = np.concatenate([weights[f'{at}class_embedding'][0], x])
    x = x + weights[f'{at}position_embedding'][0]
    for i in range(sizes['num_hidden_layers']):
        at = f'vision_model.encoder.layers.{i}.'
        q, k, v = tower.qkv(tower.norm(x, f'{at}norm1'), f'{at}attn.qkv', heads)
        y = tower.linear(attention(q, k, v, 0).reshape(len(x), width), f'{at}attn.proj')
        x = x + y * weights[f'{at}ls1']
        y = gelu(tower.linear(tower.norm(x, f'{at}norm2'), f'{at}mlp.fc1'))
        x = x + tower.linear(y, f'{at}mlp.fc2') * weights[f'{at}ls2']
    x = _pixel_shuffle(x[1:], width)
    # The merger's norm has PyTorch's default eps; the converter takes the tower's.
    x = tower.norm(x, 'mlp1.0')
    return tower.linear(gelu(tower.linear(x, 'mlp1.1')), 'mlp1.3').astype(np.float32)


def _pixel_shuffle(x: Array, width: int) -> Array:
    """Join 2x2 patches as InternVL's "v2" does: (patches, width) to (patches / 4, 4 width)."""
    grid = math.isqrt(len(x))
    half = grid // 2
    rows = x.reshape(grid, half, 2 * width).transpose(1, 0, 2)
    joined: Array = rows.reshape(half, half, 4 * width).transpose(1, 0, 2)
    return joined.reshape(-1, 4 * width)


def qwen2vl_vision(
    config: Mapping[str, Any],
    weights: Weights,
    patches: Array,
    positions: NDArray[np.integer[Any]],
    groups: Sequence[int] = (),
) -> Array:
    """Return (patches / 4, width) of the language model.

    Args:
        config: config.json.
        weights: By the publisher's names.
        patches: (patches, 1176), in blocks of 2x2.
        positions: (patches, 2): row and column of each patch.
        groups: Patches of each temporal group, which see only each other; () = all are one.
    """
    sizes = config['vision_config']
    width, heads = sizes['embed_dim'], sizes['num_heads']
    tower = _Tower(weights, 1e-6)
    turn = _patch_rotation(positions, width // heads)
    group = np.repeat(np.arange(len(groups) or 1), groups or [len(patches)])
    mask = np.where(group[:, None] == group, 0, _HIDDEN).astype(np.float32)
    x = patches @ weights['visual.patch_embed.proj.weight'].reshape(width, -1).T
    for i in range(sizes['depth']):
        at = f'visual.blocks.{i}.'
        q, k, v = tower.qkv(tower.norm(x, f'{at}norm1'), f'{at}attn.qkv', heads)
        y = attention(rotate(q, turn), rotate(k, turn), v, mask).reshape(len(x), width)
        x = x + tower.linear(y, f'{at}attn.proj')
        y = tower.linear(tower.norm(x, f'{at}norm2'), f'{at}mlp.fc1')
        x = x + tower.linear(y / (1 + np.exp(-1.702 * y)), f'{at}mlp.fc2')
    x = tower.norm(x, 'visual.merger.ln_q').reshape(len(x) // 4, -1)
    y = gelu(tower.linear(x, 'visual.merger.mlp.0'))
    return tower.linear(y, 'visual.merger.mlp.2').astype(np.float32)


def _patch_rotation(positions: NDArray[np.integer[Any]], head: int) -> tuple[Array, Array]:
    """Return cosines and sines of patches' rows and columns, (patches, 1, head)."""
    quarter = head // 4
    inverse = 10000.0 ** -(np.arange(quarter) / quarter)
    angles = (positions[..., None] * inverse).reshape(len(positions), -1)
    angles = np.concatenate([angles, angles], -1)[:, None]
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def qwen2_5vl_vision(
    config: Mapping[str, Any],
    weights: Weights,
    patches: Array,
    positions: NDArray[np.integer[Any]],
    groups: Sequence[int] = (),
) -> Array:
    """Return (patches / 4, width) of the language model.

    Nothing is put into another order: which patches share a window is told by where they lie.

    Args:
        config: config.json.
        weights: By the publisher's names.
        patches: (patches, 1176), block by block.
        positions: (patches, 2), row and column of each patch.
        groups: Patches of each temporal group, which see only each other; () = all are one.
    """
    sizes = config['vision_config']
    width, heads = sizes['hidden_size'], sizes['num_heads']
    tower = _Tower(weights, 1e-6)
    turn = _patch_rotation(positions, width // heads)
    group = np.repeat(np.arange(len(groups) or 1), groups or [len(patches)])[:, None]
    window = positions // (sizes['window_size'] // sizes['patch_size'])
    masks = [_only_alike(group), _only_alike(np.concatenate([group, window], 1))]
    x = patches @ weights['visual.patch_embed.proj.weight'].reshape(width, -1).T
    for i in range(sizes['depth']):
        at = f'visual.blocks.{i}.'
        q, k, v = tower.qkv(tower.rms_norm(x, f'{at}norm1'), f'{at}attn.qkv', heads)
        mask = masks[i not in sizes['fullatt_block_indexes']]
        y = attention(rotate(q, turn), rotate(k, turn), v, mask).reshape(len(x), width)
        x = x + tower.linear(y, f'{at}attn.proj')
        y = tower.rms_norm(x, f'{at}norm2')
        gate = tower.linear(y, f'{at}mlp.gate_proj')
        y = gate / (1 + np.exp(-gate)) * tower.linear(y, f'{at}mlp.up_proj')
        x = x + tower.linear(y, f'{at}mlp.down_proj')
    x = tower.rms_norm(x, 'visual.merger.ln_q').reshape(len(x) // 4, -1)
    y = gelu(tower.linear(x, 'visual.merger.mlp.0'))
    return tower.linear(y, 'visual.merger.mlp.2').astype(np.float32)


def _only_alike(marks: NDArray[np.integer[Any]]) -> Array:
    """Return a mask that lets rows with the same marks see each other."""
    alike = (marks[:, None] == marks[None]).all(-1)
    return np.where(alike, 0, _HIDDEN).astype(np.float32)


def qwen3vl_vision(
    config: Mapping[str, Any],
    weights: Weights,
    patches: Array,
    positions: NDArray[np.integer[Any]],
    groups: Sequence[int] = (),
) -> tuple[Array, list[Array]]:
    """Return the rows that stand in the prompt, and those for the first layers.

    Args:
        config: config.json.
        weights: By the publisher's names.
        patches: (patches, 1536), in blocks of 2x2.
        positions: (patches, 2): row and column of each patch.
        groups: Patches of each temporal group, which see only each other; () = all are one.

    Returns:
        (patches / 4, width) each.
    """
    sizes = config['vision_config']
    width, heads = sizes['hidden_size'], sizes['num_heads']
    tower, root = _Tower(weights, 1e-6), 'model.visual.'
    turn = _patch_rotation(positions, width // heads)
    group = np.repeat(np.arange(len(groups) or 1), groups or [len(patches)])
    mask = _only_alike(group[:, None])
    x = patches @ weights[f'{root}patch_embed.proj.weight'].reshape(width, -1).T
    x = x + weights[f'{root}patch_embed.proj.bias']
    x = x + _stretched(weights[f'{root}pos_embed.weight'], positions)
    deepstack = []
    for i in range(sizes['depth']):
        at = f'{root}blocks.{i}.'
        q, k, v = tower.qkv(tower.norm(x, f'{at}norm1'), f'{at}attn.qkv', heads)
        y = attention(rotate(q, turn), rotate(k, turn), v, mask).reshape(len(x), width)
        x = x + tower.linear(y, f'{at}attn.proj')
        y = tower.linear(tower.norm(x, f'{at}norm2'), f'{at}mlp.linear_fc1')
        x = x + tower.linear(tanh_gelu(y), f'{at}mlp.linear_fc2')
        if i in sizes['deepstack_visual_indexes']:
            level = sizes['deepstack_visual_indexes'].index(i)
            joined = x.reshape(len(x) // 4, -1)
            at = f'{root}deepstack_merger_list.{level}'
            deepstack.append(_merged(tower, tower.norm(joined, f'{at}.norm'), at))
    joined = tower.norm(x, f'{root}merger.norm').reshape(len(x) // 4, -1)
    return _merged(tower, joined, f'{root}merger'), deepstack


def _merged(tower: _Tower, joined: Array, at: str) -> Array:
    y = gelu(tower.linear(joined, f'{at}.linear_fc1'))
    return tower.linear(y, f'{at}.linear_fc2').astype(np.float32)


def _stretched(table: Array, positions: NDArray[np.integer[Any]]) -> Array:
    """Read a square table of position embeddings between its places, patch by patch."""
    side = math.isqrt(len(table))
    square = table.reshape(side, side, -1)
    grid = positions.max(0) + 1
    result = []
    for row, column in positions:
        y, x = (i * (side - 1) / (n - 1) for i, n in zip((row, column), grid, strict=True))
        top, left = min(int(y), side - 2), min(int(x), side - 2)
        down, across = y - top, x - left
        upper = (1 - across) * square[top, left] + across * square[top, left + 1]
        lower = (1 - across) * square[top + 1, left] + across * square[top + 1, left + 1]
        result.append((1 - down) * upper + down * lower)
    return np.array(result, np.float32)


def mllama_vision(
    config: Mapping[str, Any],
    weights: Weights,
    tiles: Array,
    ratio: int,
    real: int,
) -> Array:
    """Return the states that cross-attention looks at, (tiles, rows, width).

    The states of inner layers that are joined to the last are taken before the layer of each
    index, as the converter and the first releases of the reference model do.

    Args:
        config: config.json.
        weights: By the publisher's names.
        tiles: (4, 3, px, px), normalised.
        ratio: Id of the aspect ratio, from 1.
        real: How many tiles are real.
    """
    sizes = config['vision_config']
    width, count = sizes['hidden_size'], sizes['max_num_tiles']
    tower = _Tower(weights, sizes['norm_eps'])
    at = 'vision_model.'
    kernel = weights[f'{at}patch_embedding.weight'].reshape(width, -1)
    x = np.stack([_patches(tile, sizes['patch_size']) @ kernel.T for tile in tiles])
    x = x + _tile_table(weights, f'{at}pre_tile_positional_embedding', ratio, count)
    first = np.broadcast_to(weights[f'{at}class_embedding'], (count, 1, width))
    x = np.concatenate([first, x], 1)
    rows = x.shape[1]
    x = x + _mllama_positions(weights, f'{at}gated_positional_embedding', ratio, x.shape)
    # Rows are filled up to a multiple of 8, and hidden is only a padded row from a padded row:
    # real rows do look at padding. So do the published model and its compiled forms.
    x = np.pad(tower.norm(x, f'{at}layernorm_pre'), ((0, 0), (0, -rows % 8), (0, 0)))
    padded = x.shape[1]
    is_real = (np.arange(count)[:, None] < real) & (np.arange(padded) < rows)
    mask = np.where(is_real.reshape(-1, 1) | is_real.reshape(-1), 0, _HIDDEN).astype(np.float32)
    x = x.reshape(count * padded, width)
    inner = []
    for i in range(sizes['num_hidden_layers']):
        if i in sizes['intermediate_layers_indices']:
            inner.append(x)
        x = _mllama_layer(tower, f'{at}transformer.layers.{i}.', x, mask, sizes)
    x = tower.norm(x, f'{at}layernorm_post').reshape(count, padded, width)
    x = x + _tile_table(weights, f'{at}post_tile_positional_embedding', ratio, count)
    x = x.reshape(count * padded, width)
    for i in range(sizes['num_global_layers']):
        x = _mllama_layer(tower, f'{at}global_transformer.layers.{i}.', x, mask, sizes)
    x = np.concatenate([x, *inner], -1).reshape(count, padded, -1)[:, :rows]
    return tower.linear(x, 'multi_modal_projector').astype(np.float32)


def _tile_table(weights: Weights, name: str, ratio: int, tiles: int) -> Array:
    """Return what is added to every row of each tile, (tiles, 1, width)."""
    gate = np.tanh(weights[f'{name}.gate'])
    table: Array = gate * weights[f'{name}.embedding.weight'][ratio].reshape(tiles, 1, -1)
    return table


def _mllama_positions(weights: Weights, name: str, ratio: int, shape: tuple[int, ...]) -> Array:
    gate = np.tanh(weights[f'{name}.gate'])
    tile = weights[f'{name}.tile_embedding.weight'][ratio].reshape(shape)
    places: Array = (1 - gate) * weights[f'{name}.embedding'] + gate * tile
    return places


def _mllama_layer(
    tower: _Tower, at: str, x: Array, mask: Array, sizes: Mapping[str, Any]
) -> Array:
    heads = sizes['attention_heads']
    gates = [np.float32(1), np.float32(1)]
    if f'{at}gate_attn' in tower.weights:
        gates = [np.tanh(tower.weights[f'{at}{g}'])[0] for g in ('gate_attn', 'gate_ffn')]
    y = tower.norm(x, f'{at}input_layernorm')
    q, k, v = (
        tower.linear(y, f'{at}self_attn.{n}_proj').reshape(len(x), heads, -1) for n in 'qkv'
    )
    y = attention(q, k, v, mask).reshape(x.shape)
    x = x + gates[0] * tower.linear(y, f'{at}self_attn.o_proj')
    y = gelu(tower.linear(tower.norm(x, f'{at}post_attention_layernorm'), f'{at}mlp.fc1'))
    result: Array = x + gates[1] * tower.linear(y, f'{at}mlp.fc2')
    return result
