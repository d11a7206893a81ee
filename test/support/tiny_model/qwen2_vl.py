"""A tiny random Qwen2-VL in the layout of its public ONNX export.

    vision_encoder  pixel_values (patches, 1176), grid_thw (images, 3) -> image_features
                    (patches / 4, hidden)

The decoder takes positions on three axes and gives the logits of all tokens, as older exports do.
All patches attend to each other: the graph does not keep pairs of frames apart, nor images, so
whoever feeds several at once gets other numbers than the model's.

Source: huggingface/transformers, models/qwen2_vl/modeling_qwen2_vl.py; huggingface/
transformers.js, modeling_qwen2_vl.js (names and shapes).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from onnx import TensorProto

from support.byte_tokenizer import BYTES, tokenizer_json
from support.tiny_model.config import NORM_EPS, ROPE_THETA, TinyConfig
from support.tiny_model.graph_builder import GraphBuilder
from support.tiny_model.graphs import Layers, decoder, embed_tokens, rotate
from support.tiny_model.weights import Draw, Weights, draw_language

SPECIAL_TOKENS: Final = (
    '<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|vision_start|>', '<|vision_end|>',
    '<|vision_pad|>', '<|image_pad|>', '<|video_pad|>',
)  # fmt: skip
VOCAB_SIZE: Final = BYTES + len(SPECIAL_TOKENS)
_TOWER_EPS: Final = 1e-6
_TOWER_THETA: Final = 10000.0


@dataclass(frozen=True, slots=True)
class TinyQwen2Vl:
    """Sizes; the defaults give a model of about 1 MB.

    Attributes:
        tower_width: Width of the vision tower.
        tower_heads: Its heads.
        tower_layers: Its depth.
        patch_px: Side of a patch.
        merge: Patches along either side of the block that becomes one token.
        frames: Frames that one patch reaches over.
        model_type: Of config.json: 'qwen2_vl', or 'qwen2_5_vl', whose own tower is in
            `qwen2_5_vl`; this one stands for it where only its rows matter.
        grid_name: `grid_thw`, or `image_grid_thw` as in newer exports.
        language: The language model's sizes.
    """

    tower_width: int = 32
    tower_heads: int = 2
    tower_layers: int = 2
    patch_px: int = 14
    merge: int = 2
    frames: int = 2
    model_type: str = 'qwen2_vl'
    grid_name: str = 'grid_thw'
    language: TinyConfig = field(
        default_factory=lambda: TinyConfig(
            hidden=64, mlp=128, context_tokens=2048, mrope=True, keeps_logits=False
        )
    )

    @property
    def row_length(self) -> int:
        """Values of one patch."""
        return 3 * self.frames * self.patch_px**2


def make_tiny_qwen2_vl(folder: Path, config: TinyQwen2Vl = TinyQwen2Vl()) -> Path:
    """Write a whole model folder: texts, tokenizer and the three ONNX files; return it."""
    write_texts(folder, config)
    weights = make_weights(config)
    language = config.language
    vision_encoder(weights, config).save(folder / 'onnx' / 'vision_encoder.onnx')
    embed_tokens(weights, language).save(folder / 'onnx' / 'embed_tokens.onnx')
    decoder(weights, language).save(folder / 'onnx' / 'decoder_model_merged.onnx')
    return folder


def write_texts(folder: Path, config: TinyQwen2Vl) -> None:
    """Write what is not weights."""
    texts = {
        'config.json': model_config(config),
        'generation_config.json': {
            'do_sample': False,
            'eos_token_id': [token_id('<|im_end|>'), token_id('<|endoftext|>')],
        },
        'preprocessor_config.json': {
            'image_mean': [0.48145466, 0.4578275, 0.40821073],
            'image_std': [0.26862954, 0.26130258, 0.27577711],
            'image_processor_type': 'Qwen2VLImageProcessor',
            'max_pixels': 12845056,
            'merge_size': config.merge,
            'min_pixels': 3136,
            'patch_size': config.patch_px,
            'temporal_patch_size': config.frames,
        },
        'tokenizer.json': tokenizer_json(SPECIAL_TOKENS),
        'tokenizer_config.json': {
            'tokenizer_class': 'PreTrainedTokenizerFast',
            'eos_token': '<|im_end|>',
            'pad_token': '<|endoftext|>',
            'additional_special_tokens': list(SPECIAL_TOKENS),
            'clean_up_tokenization_spaces': False,
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in texts.items():
        (folder / name).write_text(f'{json.dumps(content, indent=1)}\n', encoding='utf-8')


def token_id(token: str) -> int:
    """Return the id of one of the special tokens."""
    return BYTES + SPECIAL_TOKENS.index(token)


def model_config(config: TinyQwen2Vl) -> dict[str, Any]:
    """Make config.json, with the language model's keys on top as in the published folders."""
    language = config.language
    return {
        'architectures': ['Qwen2VLForConditionalGeneration'],
        'model_type': config.model_type,
        'bos_token_id': token_id('<|endoftext|>'),
        'eos_token_id': token_id('<|im_end|>'),
        'vision_start_token_id': token_id('<|vision_start|>'),
        'vision_end_token_id': token_id('<|vision_end|>'),
        'vision_token_id': token_id('<|vision_pad|>'),
        'image_token_id': token_id('<|image_pad|>'),
        'video_token_id': token_id('<|video_pad|>'),
        'hidden_act': 'silu',
        'hidden_size': language.hidden,
        'intermediate_size': language.mlp,
        'max_position_embeddings': language.context_tokens,
        'num_attention_heads': language.heads,
        'num_hidden_layers': language.layers,
        'num_key_value_heads': language.kv_heads,
        'rms_norm_eps': NORM_EPS,
        'rope_theta': ROPE_THETA,
        'rope_scaling': {'type': 'mrope', 'mrope_section': list(language.mrope_sections)},
        'tie_word_embeddings': False,
        'use_sliding_window': False,
        'vocab_size': VOCAB_SIZE,
        'vision_config': {
            'depth': config.tower_layers,
            'embed_dim': config.tower_width,
            'hidden_size': language.hidden,
            'in_chans': 3,
            'mlp_ratio': 4,
            'num_heads': config.tower_heads,
            'patch_size': config.patch_px,
            'spatial_merge_size': config.merge,
            'spatial_patch_size': config.patch_px,
            'temporal_patch_size': config.frames,
            **(_of_windows(config) if config.model_type == 'qwen2_5_vl' else {}),
        },
    }


def _of_windows(config: TinyQwen2Vl) -> dict[str, Any]:
    """Return what Qwen2.5-VL's config.json says of its tower, and by which names."""
    return {
        'fullatt_block_indexes': [config.tower_layers - 1],
        'hidden_act': 'silu',
        'hidden_size': config.tower_width,
        'intermediate_size': 2 * config.tower_width,
        'out_hidden_size': config.language.hidden,
        'tokens_per_second': 2,
        'window_size': 112,
    }


def make_weights(config: TinyQwen2Vl) -> Weights:
    """Draw all weights; the same seed gives the same bytes.

    The tower's have the published names, the language model's those of the other tiny models.
    """
    draw = Draw(np.random.default_rng(config.language.seed))
    width, side = config.tower_width, config.patch_px
    draw.matrix('visual.patch_embed.proj.weight', width, 3, config.frames, side, side)
    for i in range(config.tower_layers):
        block = f'visual.blocks.{i}'
        draw.layer_norm(f'{block}.norm1', width)
        draw.linear(f'{block}.attn.qkv', 3 * width, width)
        draw.linear(f'{block}.attn.proj', width, width)
        draw.layer_norm(f'{block}.norm2', width)
        draw.linear(f'{block}.mlp.fc1', 4 * width, width)
        draw.linear(f'{block}.mlp.fc2', width, 4 * width)
    joined = width * config.merge**2
    draw.layer_norm('visual.merger.ln_q', width)
    draw.linear('visual.merger.mlp.0', joined, joined)
    draw.linear('visual.merger.mlp.2', config.language.hidden, joined)
    draw_language(draw, config.language, VOCAB_SIZE)
    return draw.weights


def vision_encoder(weights: Weights, config: TinyQwen2Vl) -> GraphBuilder:
    """pixel_values (patches, 1176), grid_thw (images, 3) -> image_features (tokens, hidden)."""
    graph = GraphBuilder()
    layers = Layers(graph, weights)
    pixels = graph.input('pixel_values', TensorProto.FLOAT, ['patches', config.row_length])
    grid = graph.input(config.grid_name, TensorProto.INT64, ['images', 3])
    kernel = weights['visual.patch_embed.proj.weight'].reshape(config.tower_width, -1)
    hidden = graph.op('MatMul', pixels, graph.weight('patch_embed.T', kernel.T))
    hidden = graph.op('Unsqueeze', hidden, graph.ints(0))
    turns = patch_turns(graph, patch_places(graph, grid, config), config)
    for i in range(config.tower_layers):
        hidden = _block(layers, hidden, f'visual.blocks.{i}', config, turns)
    hidden = layers.layer_norm(hidden, 'visual.merger.ln_q', _TOWER_EPS)
    joined = graph.op('Reshape', hidden, graph.ints(-1, config.tower_width * config.merge**2))
    rows = layers.linear(
        layers.gelu(layers.linear(joined, 'visual.merger.mlp.0')), 'visual.merger.mlp.2'
    )
    graph.output('image_features', rows, ['tokens', config.language.hidden])
    return graph


def _block(
    layers: Layers, hidden: str, name: str, config: TinyQwen2Vl, turns: tuple[str, str]
) -> str:
    graph = layers.graph
    heads = config.tower_heads
    head_dim = config.tower_width // heads
    normed = layers.layer_norm(hidden, f'{name}.norm1', _TOWER_EPS)
    joint = layers.linear(normed, f'{name}.attn.qkv')
    query, key, value = (
        layers.split_heads(part, heads, head_dim)
        for part in graph.ops('Split', (joint,), 3, axis=-1)
    )
    query, key = rotate(graph, query, turns), rotate(graph, key, turns)
    mixed = layers.attend(query, key, value, head_dim, None)
    hidden = graph.op('Add', hidden, layers.linear(mixed, f'{name}.attn.proj'))
    normed = layers.layer_norm(hidden, f'{name}.norm2', _TOWER_EPS)
    inner = layers.linear(normed, f'{name}.mlp.fc1')
    gate = graph.op('Sigmoid', graph.op('Mul', inner, graph.floats(1.702)))
    update = layers.linear(graph.op('Mul', inner, gate), f'{name}.mlp.fc2')
    return graph.op('Add', hidden, update)


def patch_places(graph: GraphBuilder, grid: str, config: TinyQwen2Vl) -> tuple[str, str]:
    """Row and column of the first image's patches: (patches,) each.

    Patches come block by block; further pairs repeat the places of the first one.
    """
    first = graph.op('Gather', grid, graph.scalar(0), axis=0)
    pairs, rows, columns = graph.ops('Split', (first,), 3, axis=0)
    merge = config.merge
    blocks = [graph.op('Div', side, graph.ints(merge)) for side in (rows, columns)]
    shape = graph.op('Concat', blocks[0], graph.ints(merge), blocks[1], graph.ints(merge), axis=0)
    square = graph.op('Concat', rows, columns, axis=0)
    found = []
    for axis, side in enumerate((rows, columns)):
        stop = graph.op('Squeeze', side)
        line = graph.op('Range', graph.scalar(0), stop, graph.scalar(1))
        line = graph.op('Unsqueeze', line, graph.ints(1 - axis))
        places = graph.op('Reshape', graph.op('Expand', line, square), shape)
        places = graph.op('Transpose', places, perm=[0, 2, 1, 3])
        found.append(graph.op('Tile', graph.op('Reshape', places, graph.ints(-1)), pairs))
    down, across = found
    return down, across


def patch_turns(
    graph: GraphBuilder, found: tuple[str, str], config: TinyQwen2Vl
) -> tuple[str, str]:
    """Cosine and sine by row and column of patches: (patches, head_dim)."""
    quarter = config.tower_width // config.tower_heads // 4
    speeds = graph.weight(
        'tower_speeds', (_TOWER_THETA ** -(np.arange(quarter) / quarter)).astype(np.float32)
    )
    halves = []
    for places in found:
        number = graph.op('Cast', places, to=TensorProto.FLOAT)
        halves.append(graph.op('Mul', graph.op('Unsqueeze', number, graph.ints(1)), speeds))
    angles = graph.op('Concat', *halves, *halves, axis=-1)
    return graph.op('Cos', angles), graph.op('Sin', angles)
