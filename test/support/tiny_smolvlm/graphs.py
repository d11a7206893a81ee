"""SmolVLM's vision graph in the public layout, written operator by operator.

Source: huggingface/transformers, models/idefics3/modeling_idefics3.py, and the graphs that
transformers.js and the model card's own sample take.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from support.tiny_model.config import NORM_EPS
from support.tiny_model.graph_builder import GraphBuilder
from support.tiny_model.graphs import Layers
from support.tiny_model.weights import Weights
from support.tiny_smolvlm.config import TinySmolVlmConfig
from support.tiny_smolvlm.weights import CONNECTOR, TOWER


def vision_encoder(weights: Weights, config: TinySmolVlmConfig) -> GraphBuilder:
    """pixel_values (B, N, 3, px, px), mask bool (B, N, px, px) -> image_features.

    Images of zeros are padding and are dropped, as the model drops them: features are
    (images that are not all zero, rows, hidden).
    """
    graph = GraphBuilder()
    layers = Layers(graph, weights)
    px = config.image_px
    height, width = (px, px) if config.has_fixed_sizes else ('height', 'width')
    kind = TensorProto.FLOAT16 if config.half else TensorProto.FLOAT
    pixels = graph.input('pixel_values', kind, ['batch_size', 'num_images', 3, height, width])
    pixels = graph.op('Cast', pixels, to=TensorProto.FLOAT)
    shape: list[int | str] = ['batch_size', 'num_images', height, width]
    mask = graph.input('pixel_attention_mask', TensorProto.BOOL, shape)
    images = graph.op('Reshape', pixels, graph.ints(-1, 3, px, px))
    masks = graph.op('Reshape', mask, graph.ints(-1, px, px))
    is_real = _is_not_all_zero(graph, images)
    images = graph.op('Compress', images, is_real, axis=0)
    masks = graph.op('Compress', masks, is_real, axis=0)
    hidden = _patches(layers, images, config)
    bias = _padding_bias(graph, masks, config)
    for i in range(config.vision_layers):
        hidden = _vision_layer(layers, hidden, f'{TOWER}.encoder.layers.{i}', config, bias)
    hidden = layers.layer_norm(hidden, f'{TOWER}.post_layernorm', NORM_EPS)
    rows = _connect(layers, hidden, config)
    graph.output('image_features', rows, ['num_real', config.rows_per_tile, config.hidden], kind)
    return graph


def _is_not_all_zero(graph: GraphBuilder, images: str) -> str:
    """Say of each image whether any of its numbers is not 0: bool (images,)."""
    is_zero = graph.op('Equal', images, graph.floats(0.0))
    as_number = graph.op('Cast', is_zero, to=TensorProto.FLOAT)
    least = graph.op('ReduceMin', as_number, axes=[1, 2, 3], keepdims=0)
    return graph.op('Not', graph.op('Cast', least, to=TensorProto.BOOL))


def _patches(layers: Layers, images: str, config: TinySmolVlmConfig) -> str:
    graph = layers.graph
    stem, patch = f'{TOWER}.embeddings', config.patch_px
    convolved = graph.op(
        'Conv',
        images,
        layers.weight(f'{stem}.patch_embedding.weight'),
        layers.weight(f'{stem}.patch_embedding.bias'),
        kernel_shape=[patch, patch],
        strides=[patch, patch],
    )
    flat = graph.op('Reshape', convolved, graph.ints(0, config.vision_hidden, -1))
    patches = graph.op('Transpose', flat, perm=[0, 2, 1])
    return graph.op('Add', patches, layers.weight(f'{stem}.position_embedding.weight'))


def _padding_bias(graph: GraphBuilder, masks: str, config: TinySmolVlmConfig) -> str:
    """0 for patches with any pixel of the image, very low for padding: (N, 1, 1, patches)."""
    side, patch = config.patches_a_side, config.patch_px
    numbers = graph.op('Cast', masks, to=TensorProto.FLOAT)
    blocks = graph.op('Reshape', numbers, graph.ints(-1, side, patch, side, patch))
    used = graph.op('ReduceMax', blocks, axes=[2, 4], keepdims=0)
    used = graph.op('Reshape', used, graph.ints(-1, 1, 1, side**2))
    is_used = graph.op('Cast', used, to=TensorProto.BOOL)
    return graph.op('Where', is_used, graph.floats(0.0), graph.floats(-1e9))


def _vision_layer(
    layers: Layers, hidden: str, name: str, config: TinySmolVlmConfig, bias: str
) -> str:
    graph = layers.graph
    heads, head_dim = config.vision_heads, config.vision_hidden // config.vision_heads
    normed = layers.layer_norm(hidden, f'{name}.layer_norm1', NORM_EPS)
    query, key, value = (
        layers.split_heads(layers.linear(normed, f'{name}.self_attn.{part}_proj'), heads, head_dim)
        for part in 'qkv'
    )
    mixed = layers.attend(query, key, value, head_dim, bias)
    hidden = graph.op('Add', hidden, layers.linear(mixed, f'{name}.self_attn.out_proj'))
    normed = layers.layer_norm(hidden, f'{name}.layer_norm2', NORM_EPS)
    inner = _gelu_tanh(graph, layers.linear(normed, f'{name}.mlp.fc1'))
    return graph.op('Add', hidden, layers.linear(inner, f'{name}.mlp.fc2'))


def _gelu_tanh(graph: GraphBuilder, value: str) -> str:
    cube = graph.op('Mul', graph.op('Mul', value, value), value)
    inner = graph.op('Add', value, graph.op('Mul', cube, graph.floats(0.044715)))
    turned = graph.op('Tanh', graph.op('Mul', inner, graph.floats(float(np.sqrt(2 / np.pi)))))
    half = graph.op('Mul', value, graph.floats(0.5))
    return graph.op('Mul', half, graph.op('Add', turned, graph.floats(1.0)))


def _connect(layers: Layers, hidden: str, config: TinySmolVlmConfig) -> str:
    """Pixel shuffle: scale x scale patches become one row; then the projection, without bias."""
    graph = layers.graph
    scale, width = config.scale_factor, config.vision_hidden
    side = config.patches_a_side // scale
    grid = graph.op('Reshape', hidden, graph.ints(-1, side, scale, side, scale, width))
    grid = graph.op('Transpose', grid, perm=[0, 1, 3, 2, 4, 5])
    rows = graph.op('Reshape', grid, graph.ints(-1, side * side, scale**2 * width))
    return layers.linear(rows, CONNECTOR.removesuffix('.weight'))
