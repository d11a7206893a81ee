"""Qwen2-VL."""

from __future__ import annotations

from typing import Any, Final

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
from tools.sophgo.compile.weights import Draw

QWEN2VL_TOKENS: Final = (
    '<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|vision_start|>', '<|vision_end|>',
    '<|vision_pad|>', '<|image_pad|>', '<|video_pad|>',
)  # fmt: skip
MROPE_SECTIONS: Final = (4, 6, 6)
QWEN_VIT: Final = {'width': 80, 'heads': 1, 'layers': 2, 'patch_values': 1176}


def qwen2vl() -> Checkpoint:
    """Return Qwen2-VL's form."""
    draw = Draw(5)
    width, mlp = QWEN_VIT['width'], 4 * QWEN_VIT['width']
    weights = {'visual.patch_embed.proj.weight': draw.kernel(width, 3, 2, 14, 14)}
    for i in range(QWEN_VIT['layers']):
        at = f'visual.blocks.{i}.'
        weights |= norms(draw, (f'{at}norm1', f'{at}norm2'), width)
        weights |= linear(draw, f'{at}attn.qkv', 3 * width, width)
        weights |= linear(draw, f'{at}attn.proj', width, width)
        weights |= linear(draw, f'{at}mlp.fc1', mlp, width)
        weights |= linear(draw, f'{at}mlp.fc2', width, mlp)
    weights |= norms(draw, ('visual.merger.ln_q',), width)
    weights |= linear(draw, 'visual.merger.mlp.0', mlp, mlp)
    weights |= linear(draw, 'visual.merger.mlp.2', HIDDEN, mlp)
    weights |= decoder(draw, 'model.', Decoder())
    weights['lm_head.weight'] = draw.matrix(VOCABULARY, HIDDEN, scale=4.0)
    ids = ids_of(QWEN2VL_TOKENS)
    return Checkpoint(_config(ids), weights, QWEN2VL_TOKENS, files_beside_config(ids))


def qwen_config(
    ids: dict[str, int], architecture: str, model_type: str, vision: dict[str, Any]
) -> dict[str, Any]:
    """Return config.json of Qwen2-VL or a successor."""
    return {
        **language_config(),
        'architectures': [architecture],
        'model_type': model_type,
        'rope_scaling': {'type': 'mrope', 'mrope_section': list(MROPE_SECTIONS)},
        'vision_start_token_id': ids['<|vision_start|>'],
        'vision_end_token_id': ids['<|vision_end|>'],
        'vision_token_id': ids['<|vision_pad|>'],
        'image_token_id': ids['<|image_pad|>'],
        'video_token_id': ids['<|video_pad|>'],
        'bos_token_id': ids['<|endoftext|>'],
        'eos_token_id': ids['<|im_end|>'],
        'vision_config': vision,
    }


def _config(ids: dict[str, int]) -> dict[str, Any]:
    vision = {
        'depth': QWEN_VIT['layers'],
        'embed_dim': QWEN_VIT['width'],
        'mlp_ratio': 4,
        'num_heads': QWEN_VIT['heads'],
        'in_chans': 3,
        'hidden_size': HIDDEN,
        'patch_size': 14,
        'spatial_merge_size': 2,
        'spatial_patch_size': 14,
        'temporal_patch_size': 2,
    }
    return qwen_config(ids, 'Qwen2VLForConditionalGeneration', 'qwen2_vl', vision)


def files_beside_config(ids: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Return the JSON files beside config.json."""
    return {
        'generation_config.json': {'eos_token_id': [ids['<|im_end|>'], ids['<|endoftext|>']]},
        'preprocessor_config.json': {
            'min_pixels': 3136,
            'max_pixels': 12845056,
            'patch_size': 14,
            'temporal_patch_size': 2,
            'merge_size': 2,
            'image_mean': [0.48145466, 0.4578275, 0.40821073],
            'image_std': [0.26862954, 0.26130258, 0.27577711],
            'image_processor_type': 'Qwen2VLImageProcessor',
            'processor_class': 'Qwen2VLProcessor',
        },
        'tokenizer_config.json': tokenizer_config(
            QWEN2VL_TOKENS, '', '<|im_end|>', '<|endoftext|>'
        ),
    }
