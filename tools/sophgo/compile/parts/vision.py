"""The vision nets of InternVL and Qwen2-VL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx

from tools.sophgo.compile.parts.writer import FLOAT, INT32, Net, Writer, finished
from tools.sophgo.compile.weights import Array

_ROTARY_ROWS: Final = 100  # of Qwen2-VL's vision table, as in the samples' exports


def intern_vit(
    weights: Mapping[str, Array], sizes: Mapping[str, Any], out: int, name: str, *, batched: bool
) -> tuple[str, onnx.ModelProto]:
    """Return InternVL's tower and projector for one tile.

    Args:
        weights: By the publisher's names.
        sizes: What config.json says of the tower.
        out: Width of the language model.
        name: Of the net.
        batched: Whether the result has a batch of one.
    """
    g, net = Writer(weights), Net(name)
    width, heads, eps = (
        sizes['hidden_size'], sizes['num_attention_heads'], sizes['layer_norm_eps'],
    )  # fmt: skip
    px, patch = sizes['image_size'], sizes['patch_size']
    grid = px // patch
    pixels = net.take('pixel_values', FLOAT, 1, 3, px, px)
    at = 'vision_model.embeddings.'
    x = g.op(
        'Conv',
        pixels,
        g.weight(f'{at}patch_embedding.weight'),
        g.weight(f'{at}patch_embedding.bias'),
        kernel_shape=[patch, patch],
        strides=[patch, patch],
    )
    x = g.op('Transpose', g.reshape(x, 1, width, grid * grid), perm=[0, 2, 1])
    x = g.op('Concat', g.weight(f'{at}class_embedding'), x, axis=1)
    x = g.op('Add', x, g.weight(f'{at}position_embedding'))
    rows = grid * grid + 1
    for i in range(sizes['num_hidden_layers']):
        at = f'vision_model.encoder.layers.{i}.'
        y = g.linear(g.layer_norm(x, f'{at}norm1', eps), f'{at}attn.qkv')
        q, k, v = (g.reshape(p, 1, rows, heads, width // heads) for p in g.split(y, 3, -1))
        y = g.reshape(g.attend(q, k, v, None, width // heads), 1, rows, width)
        y = g.op('Mul', g.linear(y, f'{at}attn.proj'), g.weight(f'{at}ls1'))
        x = g.op('Add', x, y)
        y = g.gelu(g.linear(g.layer_norm(x, f'{at}norm2', eps), f'{at}mlp.fc1'))
        x = g.op('Add', x, g.op('Mul', g.linear(y, f'{at}mlp.fc2'), g.weight(f'{at}ls2')))
    x = g.op('Slice', x, g.constant([1]), g.constant([rows]), g.constant([1]))
    half = grid // 2
    x = g.reshape(x, half, 2, half, 2, width)
    x = g.op('Transpose', x, perm=[0, 2, 1, 3, 4])
    x = g.layer_norm(g.reshape(x, 1, half * half, 4 * width), 'mlp1.0', eps)
    x = g.linear(g.gelu(g.linear(x, 'mlp1.1')), 'mlp1.3')
    shape = (*([1] if batched else []), half * half, out)
    g.op('Reshape', x, g.constant(shape), name='vit_embeds')
    net.give('vit_embeds', FLOAT, *shape)
    return name, finished(g, net)


def qwen_vit(
    weights: Mapping[str, Array], sizes: Mapping[str, Any], out: int, rows: int
) -> tuple[str, onnx.ModelProto]:
    """Return Qwen2-VL's tower and merger for so many patches; arguments as in `intern_vit`."""
    g, net = Writer(weights), Net('vit')
    width, heads = sizes['embed_dim'], sizes['num_heads']
    values = 3 * sizes['temporal_patch_size'] * sizes['patch_size'] ** 2
    head = width // heads
    states = net.take('input_states', FLOAT, rows, values)
    places = net.take('pos_ids', INT32, rows, 2)
    mask = net.take('attention_mask', FLOAT, 1, rows, rows)
    kernel = weights['visual.patch_embed.proj.weight'].reshape(width, values)
    x = g.reshape(g.op('MatMul', states, g.array('patch_embed', kernel.T)), 1, rows, width)
    quarter = head // 4
    inverse = 10000.0 ** -(np.arange(quarter) / quarter)
    angles = np.arange(_ROTARY_ROWS)[:, None] * inverse
    turn = []
    for name, function in (('cos', np.cos), ('sin', np.sin)):
        table = g.array(f'rotary_{name}', function(angles).astype(np.float32))
        half = g.reshape(g.op('Gather', table, places, axis=0), rows, 2 * quarter)
        both = g.op('Concat', half, half, axis=1)
        turn.append(g.reshape(both, 1, rows, 1, head))
    mask = g.op('Unsqueeze', mask, g.constant([1]))
    for i in range(sizes['depth']):
        at = f'visual.blocks.{i}.'
        y = g.linear(g.layer_norm(x, f'{at}norm1', 1e-6), f'{at}attn.qkv')
        q, k, v = (g.reshape(p, 1, rows, heads, head) for p in g.split(y, 3, -1))
        q, k = g.rotate(q, *turn), g.rotate(k, *turn)
        y = g.reshape(g.attend(q, k, v, mask, head), 1, rows, width)
        x = g.op('Add', x, g.linear(y, f'{at}attn.proj'))
        y = g.linear(g.layer_norm(x, f'{at}norm2', 1e-6), f'{at}mlp.fc1')
        y = g.op('Mul', y, g.op('Sigmoid', g.op('Mul', y, g.constant(1.702, np.float32))))
        x = g.op('Add', x, g.linear(y, f'{at}mlp.fc2'))
    x = g.layer_norm(x, 'visual.merger.ln_q', 1e-6)
    x = g.gelu(g.linear(g.reshape(x, rows // 4, 4 * width), 'visual.merger.mlp.0'))
    x = g.op('MatMul', x, g.weight('visual.merger.mlp.2.weight', transposed=True))
    g.op('Add', x, g.weight('visual.merger.mlp.2.bias'), name='hidden_states')
    net.give('hidden_states', FLOAT, rows // 4, out)
    return 'vit', finished(g, net)
