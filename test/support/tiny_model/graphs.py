"""InternVL3's three graphs in the split ONNX layout, written operator by operator.

Other families' towers are in modules of their own and take embedding and decoder from here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from onnx import TensorProto

from support.tiny_model.config import NORM_EPS, ROPE_THETA, TinyConfig
from support.tiny_model.graph_builder import GraphBuilder
from support.tiny_model.weights import Weights

_LAST = np.iinfo(np.int64).max


class Layers:
    """The layers that the graphs are made of."""

    def __init__(self, graph: GraphBuilder, weights: Weights) -> None:
        self.graph = graph
        self.weights = weights

    def weight(self, name: str) -> str:
        return self.graph.weight(name, self.weights[name])

    def linear(self, value: str, name: str) -> str:
        matrix = self.graph.weight(f'{name}.weight.T', self.weights[f'{name}.weight'].T)
        product = self.graph.op('MatMul', value, matrix)
        if f'{name}.bias' not in self.weights:
            return product
        return self.graph.op('Add', product, self.weight(f'{name}.bias'))

    def layer_norm(self, value: str, name: str, epsilon: float) -> str:
        scale, bias = self.weight(f'{name}.weight'), self.weight(f'{name}.bias')
        return self.graph.op('LayerNormalization', value, scale, bias, axis=-1, epsilon=epsilon)

    def rms_norm(self, value: str, name: str) -> str:
        graph = self.graph
        square = graph.op('Mul', value, value)
        mean = graph.op('ReduceMean', square, axes=[-1], keepdims=1)
        root = graph.op('Sqrt', graph.op('Add', mean, graph.floats(NORM_EPS)))
        return graph.op('Mul', graph.op('Div', value, root), self.weight(f'{name}.weight'))

    def gelu(self, value: str) -> str:
        graph = self.graph
        erf = graph.op('Erf', graph.op('Mul', value, graph.floats(float(np.sqrt(0.5)))))
        half = graph.op('Mul', value, graph.floats(0.5))
        return graph.op('Mul', half, graph.op('Add', erf, graph.floats(1.0)))

    def silu(self, value: str) -> str:
        return self.graph.op('Mul', value, self.graph.op('Sigmoid', value))

    def split_heads(self, value: str, heads: int, head_dim: int) -> str:
        """(B, S, heads * head_dim) -> (B, heads, S, head_dim)."""
        graph = self.graph
        cut = graph.op('Reshape', value, graph.ints(0, 0, heads, head_dim))
        return graph.op('Transpose', cut, perm=[0, 2, 1, 3])

    def attend(self, query: str, key: str, value: str, head_dim: int, bias: str | None) -> str:
        """Attend, and join the heads: (B, S, heads * head_dim)."""
        graph = self.graph
        turned = graph.op('Transpose', key, perm=[0, 1, 3, 2])
        scores = graph.op('MatMul', query, turned)
        scores = graph.op('Mul', scores, graph.floats(float(head_dim**-0.5)))
        if bias is not None:
            scores = graph.op('Add', scores, bias)
        mixed = graph.op('MatMul', graph.op('Softmax', scores, axis=-1), value)
        joined = graph.op('Transpose', mixed, perm=[0, 2, 1, 3])
        return graph.op('Reshape', joined, graph.ints(0, 0, -1))


def vision_encoder(weights: Weights, config: TinyConfig) -> GraphBuilder:
    """pixel_values (N, 3, px, px) -> image_features (N, rows, hidden)."""
    graph = GraphBuilder()
    layers = Layers(graph, weights)
    px, width, side = config.image_px, config.vision_hidden, config.patches_a_side
    pixels = graph.input('pixel_values', TensorProto.FLOAT, ['batch', 3, px, px])
    hidden = _patches(layers, pixels, config)
    for i in range(config.vision_layers):
        hidden = _vision_layer(layers, hidden, f'vision_model.encoder.layers.{i}', config)
    grid = graph.op('Slice', hidden, graph.ints(1), graph.ints(_LAST), graph.ints(1))
    # Pixel shuffle, ps_version 'v2': each 2 x 2 patches become one row.
    half = side // 2
    grid = graph.op('Reshape', grid, graph.ints(-1, half, 2, half, 2, width))
    grid = graph.op('Transpose', grid, perm=[0, 1, 3, 2, 4, 5])
    rows = graph.op('Reshape', grid, graph.ints(-1, half * half, 4 * width))
    rows = layers.linear(layers.layer_norm(rows, 'mlp1.0', 1e-5), 'mlp1.1')
    rows = layers.linear(layers.gelu(rows), 'mlp1.3')
    graph.output('image_features', rows, ['batch', half * half, config.hidden])
    return graph


def _patches(layers: Layers, pixels: str, config: TinyConfig) -> str:
    graph = layers.graph
    stem, width, patch = 'vision_model.embeddings', config.vision_hidden, config.patch_px
    convolved = graph.op(
        'Conv',
        pixels,
        layers.weight(f'{stem}.patch_embedding.weight'),
        layers.weight(f'{stem}.patch_embedding.bias'),
        kernel_shape=[patch, patch],
        strides=[patch, patch],
    )
    flat = graph.op('Reshape', convolved, graph.ints(0, width, -1))
    patches = graph.op('Transpose', flat, perm=[0, 2, 1])
    batch = graph.op('Shape', pixels, start=0, end=1)
    shape = graph.op('Concat', batch, graph.ints(1, width), axis=0)
    first = graph.op('Expand', layers.weight(f'{stem}.class_embedding'), shape)
    tokens = graph.op('Concat', first, patches, axis=1)
    return graph.op('Add', tokens, layers.weight(f'{stem}.position_embedding'))


def _vision_layer(layers: Layers, hidden: str, name: str, config: TinyConfig) -> str:
    graph = layers.graph
    heads, head_dim = config.vision_heads, config.vision_hidden // config.vision_heads
    normed = layers.layer_norm(hidden, f'{name}.norm1', NORM_EPS)
    joint = layers.linear(normed, f'{name}.attn.qkv')
    query, key, value = (
        layers.split_heads(part, heads, head_dim)
        for part in graph.ops('Split', (joint,), 3, axis=-1)
    )
    mixed = layers.attend(query, key, value, head_dim, None)
    update = layers.linear(mixed, f'{name}.attn.proj')
    hidden = graph.op('Add', hidden, graph.op('Mul', update, layers.weight(f'{name}.ls1')))
    normed = layers.layer_norm(hidden, f'{name}.norm2', NORM_EPS)
    update = layers.linear(
        layers.gelu(layers.linear(normed, f'{name}.mlp.fc1')), f'{name}.mlp.fc2'
    )
    return graph.op('Add', hidden, graph.op('Mul', update, layers.weight(f'{name}.ls2')))


def embed_tokens(weights: Weights, config: TinyConfig) -> GraphBuilder:
    """input_ids (B, S) -> inputs_embeds (B, S, hidden)."""
    graph = GraphBuilder()
    ids = graph.input('input_ids', TensorProto.INT64, ['batch', 'sequence'])
    name = 'language_model.model.embed_tokens.weight'
    rows = graph.op('Gather', graph.weight(name, weights[name]), ids, axis=0)
    graph.output('inputs_embeds', rows, ['batch', 'sequence', config.hidden])
    return graph


def decoder(weights: Weights, config: TinyConfig) -> GraphBuilder:
    """inputs_embeds and the past -> logits and the present."""
    graph = GraphBuilder()
    layers = Layers(graph, weights)
    kind = _float_kind(config)
    hidden = _float_input(graph, 'inputs_embeds', kind, ['batch', 'sequence', config.hidden])
    mask = graph.input('attention_mask', TensorProto.INT64, ['batch', 'total'])
    positions = _positions(graph, config)
    kv_shape: list[int | str] = ['batch', config.kv_heads, 'past', config.head_dim]
    past = [
        [
            _float_input(graph, f'past_key_values.{i}.{part}', kind, kv_shape)
            for part in ('key', 'value')
        ]
        for i in range(config.layers)
    ]
    bias = _attention_bias(graph, hidden, mask)
    turns = _rotary_turns(graph, positions, config)
    for i in range(config.layers):
        name = f'language_model.model.layers.{i}'
        step = _Step(tuple(past[i]), bias, turns)
        hidden, key, value = _decoder_layer(layers, hidden, name, config, step)
        present: list[int | str] = ['batch', config.kv_heads, 'total', config.head_dim]
        graph.output(f'present.{i}.key', key, present, kind)
        graph.output(f'present.{i}.value', value, present, kind)
    if config.keeps_logits:
        kept = graph.input('num_logits_to_keep', TensorProto.INT64, [])
        first = graph.op('Reshape', graph.op('Neg', kept), graph.ints(1))
        hidden = graph.op('Slice', hidden, first, graph.ints(_LAST), graph.ints(1))
    normed = layers.rms_norm(hidden, 'language_model.model.norm')
    logits = layers.linear(normed, 'language_model.lm_head')
    vocabulary = weights['language_model.lm_head.weight'].shape[0]
    graph.output('logits', logits, ['batch', 'kept', vocabulary])
    return graph


def _float_kind(config: TinyConfig) -> int:
    return int(TensorProto.FLOAT16 if config.half else TensorProto.FLOAT)


def _float_input(graph: GraphBuilder, name: str, kind: int, shape: list[int | str]) -> str:
    """Declare an input of type `kind` that is computed with in float32."""
    return graph.op('Cast', graph.input(name, kind, shape), to=TensorProto.FLOAT)


def _positions(graph: GraphBuilder, config: TinyConfig) -> str:
    """Declare position_ids: (B, S), or (3, B, S) of time, height and width."""
    shape: list[int | str] = ['batch', 'sequence']
    if not config.mrope:
        return graph.input('position_ids', TensorProto.INT64, shape)
    return graph.input('position_ids', TensorProto.INT64, [3, *shape])


def _attention_bias(graph: GraphBuilder, hidden: str, mask: str) -> str:
    """0 where a token may look, very low elsewhere: (B, 1, S, total)."""
    total = graph.op('Squeeze', graph.op('Shape', mask, start=1, end=2))
    sequence = graph.op('Squeeze', graph.op('Shape', hidden, start=1, end=2))
    start = graph.op('Sub', total, sequence)
    rows = graph.op('Range', start, total, graph.scalar(1))
    columns = graph.op('Range', graph.scalar(0), total, graph.scalar(1))
    causal = graph.op('LessOrEqual', columns, graph.op('Unsqueeze', rows, graph.ints(1)))
    is_token = graph.op('Cast', mask, to=TensorProto.BOOL)
    allowed = graph.op('And', causal, graph.op('Unsqueeze', is_token, graph.ints(1, 2)))
    return graph.op('Where', allowed, graph.floats(0.0), graph.floats(-1e9))


def _rotary_turns(graph: GraphBuilder, positions: str, config: TinyConfig) -> tuple[str, str]:
    """Cosine and sine of each position's angles: (B, 1, S, head_dim)."""
    half = np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim
    speeds = graph.weight('rotary_speeds', (ROPE_THETA**-half).astype(np.float32))
    place = graph.op('Cast', positions, to=TensorProto.FLOAT)
    angles = graph.op('Mul', graph.op('Unsqueeze', place, graph.ints(-1)), speeds)
    if config.mrope:
        # Each speed turns by the position on one axis only.
        axis = np.repeat(np.eye(3, dtype=np.float32), config.mrope_sections, axis=1)
        chosen = graph.op('Mul', angles, graph.weight('axes', axis[:, None, None]))
        angles = graph.op('ReduceSum', chosen, graph.ints(0), keepdims=0)
    angles = graph.op('Unsqueeze', angles, graph.ints(1))
    angles = graph.op('Concat', angles, angles, axis=-1)
    return graph.op('Cos', angles), graph.op('Sin', angles)


def rotate(graph: GraphBuilder, value: str, turns: tuple[str, str]) -> str:
    """Rotate by position, as Qwen2 does: the two halves of a head form the pairs."""
    low, high = graph.ops('Split', (value,), 2, axis=-1)
    swapped = graph.op('Concat', graph.op('Neg', high), low, axis=-1)
    cosine, sine = turns
    return graph.op('Add', graph.op('Mul', value, cosine), graph.op('Mul', swapped, sine))


class _Step(NamedTuple):
    """What a decoder layer reads beside the hidden states."""

    past: tuple[str, ...]
    bias: str
    turns: tuple[str, str]


def _decoder_layer(
    layers: Layers, hidden: str, name: str, config: TinyConfig, step: _Step
) -> tuple[str, str, str]:
    """Return hidden states and this layer's present key and value."""
    graph = layers.graph
    normed = layers.rms_norm(hidden, f'{name}.input_layernorm')
    attention = f'{name}.self_attn'
    query = layers.linear(normed, f'{attention}.q_proj')
    key = layers.linear(normed, f'{attention}.k_proj')
    value = layers.linear(normed, f'{attention}.v_proj')
    query = rotate(graph, layers.split_heads(query, config.heads, config.head_dim), step.turns)
    key = rotate(graph, layers.split_heads(key, config.kv_heads, config.head_dim), step.turns)
    value = layers.split_heads(value, config.kv_heads, config.head_dim)
    key = graph.op('Concat', step.past[0], key, axis=2)
    value = graph.op('Concat', step.past[1], value, axis=2)
    mixed = layers.attend(
        query, _share(graph, key, config), _share(graph, value, config), config.head_dim, step.bias
    )
    hidden = graph.op('Add', hidden, layers.linear(mixed, f'{attention}.o_proj'))
    normed = layers.rms_norm(hidden, f'{name}.post_attention_layernorm')
    gate = layers.silu(layers.linear(normed, f'{name}.mlp.gate_proj'))
    update = graph.op('Mul', gate, layers.linear(normed, f'{name}.mlp.up_proj'))
    return graph.op('Add', hidden, layers.linear(update, f'{name}.mlp.down_proj')), key, value


def _share(graph: GraphBuilder, value: str, config: TinyConfig) -> str:
    """Repeat key or value heads, one copy for each of their query heads."""
    group = config.heads // config.kv_heads
    spread = graph.op('Unsqueeze', value, graph.ints(2))
    tiled = graph.op('Tile', spread, graph.ints(1, 1, group, 1, 1))
    return graph.op('Reshape', tiled, graph.ints(0, config.heads, -1, config.head_dim))
