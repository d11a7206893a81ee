"""Qwen3-VL."""

from __future__ import annotations

from typing import Any, Final

from tools.sophgo.compile.checkpoints.checkpoint import Checkpoint, ids_of, tokenizer_config
from tools.sophgo.compile.checkpoints.decoder import (
    HEAD,
    HIDDEN,
    VOCABULARY,
    Decoder,
    decoder,
    language_config,
    linear,
    norms,
)
from tools.sophgo.compile.checkpoints.qwen2vl import QWEN2VL_TOKENS
from tools.sophgo.compile.weights import Array, Draw

LAYERS: Final = 4
"""One more than there are deepstack features."""

MROPE_SECTIONS: Final = (6, 5, 5)
VIT: Final = {'width': 64, 'heads': 2, 'layers': 4, 'mlp': 128, 'patch': 16}
DEEPSTACK: Final = (0, 1, 2)
TABLE_SIDE: Final = 6
_DEEPSTACK_SCALE: Final = 16
_AT: Final = 'model.visual.'


def qwen3vl() -> Checkpoint:
    """Return Qwen3-VL's form."""
    draw = Draw(9)
    weights = _vision(draw)
    weights |= decoder(
        draw, 'model.language_model.', Decoder(layers=LAYERS, bias=False, qk_norm=True)
    )
    weights['lm_head.weight'] = draw.matrix(VOCABULARY, HIDDEN, scale=4.0)
    ids = ids_of(QWEN2VL_TOKENS)
    return Checkpoint(_config(ids), weights, QWEN2VL_TOKENS, _files(ids))


def _vision(draw: Draw) -> dict[str, Array]:
    width, patch = VIT['width'], VIT['patch']
    weights = {
        f'{_AT}patch_embed.proj.weight': draw.kernel(width, 3, 2, patch, patch),
        f'{_AT}patch_embed.proj.bias': draw.bias(width),
        f'{_AT}pos_embed.weight': draw.table(TABLE_SIDE**2, width, size=0.5),
    }
    for i in range(VIT['layers']):
        at = f'{_AT}blocks.{i}.'
        weights |= norms(draw, (f'{at}norm1', f'{at}norm2'), width)
        weights |= linear(draw, f'{at}attn.qkv', 3 * width, width)
        weights |= linear(draw, f'{at}attn.proj', width, width)
        weights |= linear(draw, f'{at}mlp.linear_fc1', VIT['mlp'], width)
        weights |= linear(draw, f'{at}mlp.linear_fc2', width, VIT['mlp'])
    weights |= _merger(draw, f'{_AT}merger', width)
    for level in range(len(DEEPSTACK)):
        at = f'{_AT}deepstack_merger_list.{level}'
        weights |= _merger(draw, at, 4 * width)
        # So much that an answer without it is another one.
        weights[f'{at}.linear_fc2.weight'] *= _DEEPSTACK_SCALE
    return weights


def _merger(draw: Draw, at: str, norm_width: int) -> dict[str, Array]:
    """Return what makes one row of four patches; deepstack's norm is over the four together."""
    joined = 4 * VIT['width']
    weights = norms(draw, (f'{at}.norm',), norm_width)
    weights |= linear(draw, f'{at}.linear_fc1', joined, joined)
    weights |= linear(draw, f'{at}.linear_fc2', HIDDEN, joined)
    return weights


def _config(ids: dict[str, int]) -> dict[str, Any]:
    language = {
        **language_config(),
        'model_type': 'qwen3_vl_text',
        'num_hidden_layers': LAYERS,
        'head_dim': HEAD,
        'attention_bias': False,
        'bos_token_id': ids['<|endoftext|>'],
        'eos_token_id': ids['<|im_end|>'],
        'rope_scaling': {
            'rope_type': 'default',
            'mrope_interleaved': True,
            'mrope_section': list(MROPE_SECTIONS),
        },
    }
    language['dtype'] = language.pop('torch_dtype')
    return {
        'architectures': ['Qwen3VLForConditionalGeneration'],
        'model_type': 'qwen3_vl',
        'tie_word_embeddings': False,
        'vision_start_token_id': ids['<|vision_start|>'],
        'vision_end_token_id': ids['<|vision_end|>'],
        'image_token_id': ids['<|image_pad|>'],
        'video_token_id': ids['<|video_pad|>'],
        'text_config': language,
        'vision_config': {
            'model_type': 'qwen3_vl',
            'deepstack_visual_indexes': list(DEEPSTACK),
            'depth': VIT['layers'],
            'hidden_act': 'gelu_pytorch_tanh',
            'hidden_size': VIT['width'],
            'in_channels': 3,
            'intermediate_size': VIT['mlp'],
            'num_heads': VIT['heads'],
            'num_position_embeddings': TABLE_SIDE**2,
            'out_hidden_size': HIDDEN,
            'patch_size': VIT['patch'],
            'spatial_merge_size': 2,
            'temporal_patch_size': 2,
        },
    }


def _files(ids: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Return the JSON files beside config.json."""
    common = {
        'patch_size': VIT['patch'],
        'temporal_patch_size': 2,
        'merge_size': 2,
        'image_mean': [0.5, 0.5, 0.5],
        'image_std': [0.5, 0.5, 0.5],
        'processor_class': 'Qwen3VLProcessor',
    }
    return {
        'generation_config.json': {'eos_token_id': [ids['<|im_end|>'], ids['<|endoftext|>']]},
        'preprocessor_config.json': {
            'size': {'longest_edge': 16777216, 'shortest_edge': 65536},
            **common,
            'image_processor_type': 'Qwen2VLImageProcessorFast',
        },
        'video_preprocessor_config.json': {
            'size': {'longest_edge': 25165824, 'shortest_edge': 4096},
            **common,
            'video_processor_type': 'Qwen3VLVideoProcessor',
        },
        'tokenizer_config.json': tokenizer_config(
            QWEN2VL_TOKENS, '', '<|im_end|>', '<|endoftext|>'
        ),
    }
