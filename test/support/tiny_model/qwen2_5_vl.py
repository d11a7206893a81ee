"""A tiny random Qwen2.5-VL in the layout of its public ONNX export: as Qwen2-VL's, with windows.

    vision_encoder  pixel_values (patches, 1176), image_grid_thw (images, 3) -> image_features
                    (patches / 4, hidden)

All but the last layer of the tower attend in windows of 112 px, which the graph tells by where
patches lie; nothing is put into another order.

Source: huggingface/transformers, models/qwen2_5_vl/modeling_qwen2_5_vl.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from onnx import TensorProto

from support.tiny_model.graph_builder import GraphBuilder
from support.tiny_model.graphs import Layers, decoder, embed_tokens, rotate
from support.tiny_model.qwen2_vl import (
    VOCAB_SIZE,
    TinyQwen2Vl,
    patch_places,
    patch_turns,
    write_texts,
)
from support.tiny_model.weights import Draw, Weights, draw_language

TINY: Final = TinyQwen2Vl(model_type='qwen2_5_vl', grid_name='image_grid_thw')
_WINDOW_PATCHES: Final = 8
_HIDDEN: Final = -1e9


def make_tiny_qwen2_5_vl(folder: Path, config: TinyQwen2Vl = TINY) -> Path:
    """Write a whole model folder: texts, tokenizer and the three ONNX files; return it."""
    write_texts(folder, config)
    weights = make_weights(config)
    language = config.language
    vision_encoder(weights, config).save(folder / 'onnx' / 'vision_encoder.onnx')
    embed_tokens(weights, language).save(folder / 'onnx' / 'embed_tokens.onnx')
    decoder(weights, language).save(folder / 'onnx' / 'decoder_model_merged.onnx')
    return folder


def make_weights(config: TinyQwen2Vl = TINY) -> Weights:
    """Draw all weights; the same seed gives the same bytes.

    The tower's have the published names, the language model's those of the other tiny models.
    """
    draw = Draw(np.random.default_rng(config.language.seed + 1))
    width, side = config.tower_width, config.patch_px
    draw.matrix('visual.patch_embed.proj.weight', width, 3, config.frames, side, side)
    for i in range(config.tower_layers):
        block = f'visual.blocks.{i}'
        draw.vector(f'{block}.norm1.weight', width, mean=1.0)
        draw.linear(f'{block}.attn.qkv', 3 * width, width)
        draw.linear(f'{block}.attn.proj', width, width)
        draw.vector(f'{block}.norm2.weight', width, mean=1.0)
        draw.linear(f'{block}.mlp.gate_proj', 2 * width, width)
        draw.linear(f'{block}.mlp.up_proj', 2 * width, width)
        draw.linear(f'{block}.mlp.down_proj', width, 2 * width)
    joined = width * config.merge**2
    draw.vector('visual.merger.ln_q.weight', width, mean=1.0)
    draw.linear('visual.merger.mlp.0', joined, joined)
    draw.linear('visual.merger.mlp.2', config.language.hidden, joined)
    draw_language(draw, config.language, VOCAB_SIZE)
    return draw.weights


def vision_encoder(weights: Weights, config: TinyQwen2Vl) -> GraphBuilder:
    """pixel_values (patches, 1176), image_grid_thw (images, 3) -> image_features."""
    graph = GraphBuilder()
    layers = Layers(graph, weights)
    pixels = graph.input('pixel_values', TensorProto.FLOAT, ['patches', config.row_length])
    grid = graph.input(config.grid_name, TensorProto.INT64, ['images', 3])
    kernel = weights['visual.patch_embed.proj.weight'].reshape(config.tower_width, -1)
    hidden = graph.op('MatMul', pixels, graph.weight('patch_embed.T', kernel.T))
    hidden = graph.op('Unsqueeze', hidden, graph.ints(0))
    places = patch_places(graph, grid, config)
    turns = patch_turns(graph, places, config)
    windows = _window_bias(graph, places)
    for i in range(config.tower_layers):
        bias = windows if i < config.tower_layers - 1 else None
        hidden = _block(layers, hidden, i, config, turns, bias)
    hidden = layers.rms_norm(hidden, 'visual.merger.ln_q')
    joined = graph.op('Reshape', hidden, graph.ints(-1, config.tower_width * config.merge**2))
    rows = layers.linear(
        layers.gelu(layers.linear(joined, 'visual.merger.mlp.0')), 'visual.merger.mlp.2'
    )
    graph.output('image_features', rows, ['tokens', config.language.hidden])
    return graph


def _window_bias(graph: GraphBuilder, places: tuple[str, str]) -> str:
    """Hide patches of other windows: (patches, patches)."""
    alike = []
    for place in places:
        window = graph.op('Div', place, graph.ints(_WINDOW_PATCHES))
        rows, columns = (graph.op('Unsqueeze', window, graph.ints(axis)) for axis in (1, 0))
        alike.append(graph.op('Equal', rows, columns))
    same = graph.op('Cast', graph.op('And', *alike), to=TensorProto.FLOAT)
    other = graph.op('Sub', graph.floats(1.0), same)
    return graph.op('Mul', other, graph.floats(_HIDDEN))


def _block(  # noqa: PLR0913, PLR0917 (what a block is made of)
    layers: Layers,
    hidden: str,
    number: int,
    config: TinyQwen2Vl,
    turns: tuple[str, str],
    bias: str | None,
) -> str:
    graph, name = layers.graph, f'visual.blocks.{number}'
    heads = config.tower_heads
    head_dim = config.tower_width // heads
    joint = layers.linear(layers.rms_norm(hidden, f'{name}.norm1'), f'{name}.attn.qkv')
    query, key, value = (
        layers.split_heads(part, heads, head_dim)
        for part in graph.ops('Split', (joint,), 3, axis=-1)
    )
    query, key = rotate(graph, query, turns), rotate(graph, key, turns)
    mixed = layers.attend(query, key, value, head_dim, bias)
    hidden = graph.op('Add', hidden, layers.linear(mixed, f'{name}.attn.proj'))
    normed = layers.rms_norm(hidden, f'{name}.norm2')
    gate = layers.silu(layers.linear(normed, f'{name}.mlp.gate_proj'))
    inner = graph.op('Mul', gate, layers.linear(normed, f'{name}.mlp.up_proj'))
    return graph.op('Add', hidden, layers.linear(inner, f'{name}.mlp.down_proj'))
