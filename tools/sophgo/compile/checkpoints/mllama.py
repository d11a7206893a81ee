"""Llama 3.2 Vision."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tools.sophgo.compile.checkpoints.checkpoint import Checkpoint, ids_of, tokenizer_config
from tools.sophgo.compile.checkpoints.decoder import (
    HIDDEN,
    VOCABULARY,
    Decoder,
    decoder,
    language_config,
    linear,
    norms,
)
from tools.sophgo.compile.weights import Array, Draw

MLLAMA_TOKENS: Final = (
    '<|begin_of_text|>', '<|end_of_text|>', '<|start_header_id|>', '<|end_header_id|>',
    '<|eom_id|>', '<|eot_id|>', '<|image|>',
)  # fmt: skip

# The converter wants four times as many heads as KV heads, rows that are 1 modulo 8, four tiles.
MLLAMA_VIT: Final = {
    'width': 64, 'heads': 1, 'mlp': 128, 'layers': 2, 'global': 1, 'px': 56, 'patch': 14,
    'tiles': 4,
}  # fmt: skip
MLLAMA_ROWS: Final = (MLLAMA_VIT['px'] // MLLAMA_VIT['patch']) ** 2 + 1
MLLAMA_LAYERS: Final = 3
MLLAMA_CROSS: Final = (1,)
MLLAMA_STATES: Final = (1,)  # layers whose result the global ones are joined by
_ASPECT_RATIOS: Final = ([1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1])
_EXTRA_ROWS: Final = 8  # of the embedding table, for tokens that are never answered
# A constant in the converter, whatever the file says: tanh of the 11B model's gate.
_PRE_TILE_GATE: Final = 0.63514894247055054


def _mllama_vit(draw: Draw) -> dict[str, Array]:
    width, patch, tiles = MLLAMA_VIT['width'], MLLAMA_VIT['patch'], MLLAMA_VIT['tiles']
    ratios = len(_ASPECT_RATIOS) + 1
    at = 'vision_model.'
    tile_rows = tiles * MLLAMA_ROWS * width
    result = {
        f'{at}patch_embedding.weight': draw.kernel(width, 3, patch, patch),
        f'{at}class_embedding': draw.table(width, size=0.5),
        f'{at}pre_tile_positional_embedding.embedding.weight': draw.table(
            ratios, tiles * width, size=0.5
        ),
        f'{at}pre_tile_positional_embedding.gate': _gate(np.arctanh(_PRE_TILE_GATE)),
        f'{at}post_tile_positional_embedding.embedding.weight': draw.table(
            ratios, tiles * width, size=0.5
        ),
        f'{at}post_tile_positional_embedding.gate': _gate(0.375),
        f'{at}gated_positional_embedding.embedding': draw.table(MLLAMA_ROWS, width, size=0.5),
        f'{at}gated_positional_embedding.gate': _gate(0.25),
        f'{at}gated_positional_embedding.tile_embedding.weight': draw.table(
            ratios, tile_rows, size=0.5
        ),
    }
    result |= norms(draw, (f'{at}layernorm_pre', f'{at}layernorm_post'), width)
    for stack, count in (('transformer', 'layers'), ('global_transformer', 'global')):
        for i in range(MLLAMA_VIT[count]):
            result |= _mllama_vit_layer(draw, f'{at}{stack}.layers.{i}.')
            if count == 'global':
                result[f'{at}{stack}.layers.{i}.gate_attn'] = _gate(0.75)
                result[f'{at}{stack}.layers.{i}.gate_ffn'] = _gate(0.625)
    joined = (1 + len(MLLAMA_STATES)) * width
    return result | linear(draw, 'multi_modal_projector', HIDDEN, joined)


def _gate(value: float) -> Array:
    return np.array([value], np.float32)


def _mllama_vit_layer(draw: Draw, at: str) -> dict[str, Array]:
    width, mlp = MLLAMA_VIT['width'], MLLAMA_VIT['mlp']
    result = norms(draw, (f'{at}input_layernorm', f'{at}post_attention_layernorm'), width)
    for name in 'qkvo':
        result[f'{at}self_attn.{name}_proj.weight'] = draw.matrix(width, width)
    result |= linear(draw, f'{at}mlp.fc1', mlp, width)
    return result | linear(draw, f'{at}mlp.fc2', width, mlp)


def mllama() -> Checkpoint:
    """Return Llama 3.2 Vision's form: layer 1 is cross-attention."""
    draw = Draw(7)
    at = 'language_model.'
    language = Decoder(MLLAMA_LAYERS, 1, bias=False, cross=MLLAMA_CROSS, extra_rows=_EXTRA_ROWS)
    weights = _mllama_vit(draw) | decoder(draw, f'{at}model.', language)
    weights[f'{at}lm_head.weight'] = draw.matrix(VOCABULARY, HIDDEN, scale=4.0)
    ids = ids_of(MLLAMA_TOKENS)
    ends = [ids[t] for t in ('<|end_of_text|>', '<|eom_id|>', '<|eot_id|>')]
    config = {
        'architectures': ['MllamaForConditionalGeneration'],
        'model_type': 'mllama',
        'torch_dtype': 'bfloat16',
        'image_token_index': ids['<|image|>'],
        'text_config': {
            **language_config(),
            'model_type': 'mllama_text_model',
            'num_hidden_layers': MLLAMA_LAYERS,
            'num_key_value_heads': 1,
            'cross_attention_layers': list(MLLAMA_CROSS),
            'rms_norm_eps': 1e-5,
            'rope_scaling': {'rope_type': 'default'},
            'bos_token_id': ids['<|begin_of_text|>'],
            'eos_token_id': ends,
        },
        'vision_config': {
            'model_type': 'mllama_vision_model',
            'hidden_size': MLLAMA_VIT['width'],
            'intermediate_size': MLLAMA_VIT['mlp'],
            'num_hidden_layers': MLLAMA_VIT['layers'],
            'num_global_layers': MLLAMA_VIT['global'],
            'attention_heads': MLLAMA_VIT['heads'],
            'image_size': MLLAMA_VIT['px'],
            'patch_size': MLLAMA_VIT['patch'],
            'num_channels': 3,
            'hidden_act': 'gelu',
            'norm_eps': 1e-5,
            'max_num_tiles': MLLAMA_VIT['tiles'],
            'intermediate_layers_indices': list(MLLAMA_STATES),
            'vision_output_dim': (1 + len(MLLAMA_STATES)) * MLLAMA_VIT['width'],
            'supported_aspect_ratios': list(_ASPECT_RATIOS),
        },
    }
    extra: dict[str, dict[str, Any]] = {
        'generation_config.json': {'bos_token_id': ids['<|begin_of_text|>'], 'eos_token_id': ends},
        'preprocessor_config.json': {
            'do_convert_rgb': True,
            'do_normalize': True,
            'do_pad': True,
            'do_rescale': True,
            'do_resize': True,
            'image_mean': [0.48145466, 0.4578275, 0.40821073],
            'image_std': [0.26862954, 0.26130258, 0.27577711],
            'image_processor_type': 'MllamaImageProcessor',
            'max_image_tiles': MLLAMA_VIT['tiles'],
            'resample': 2,
            'rescale_factor': 1 / 255,
            'size': {'height': MLLAMA_VIT['px'], 'width': MLLAMA_VIT['px']},
        },
        'tokenizer_config.json': tokenizer_config(
            MLLAMA_TOKENS, '<|begin_of_text|>', '<|eot_id|>', '<|end_of_text|>'
        ),
    }
    return Checkpoint(config, weights, MLLAMA_TOKENS, extra)
