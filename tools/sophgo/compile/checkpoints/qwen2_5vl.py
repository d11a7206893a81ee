"""Qwen2.5-VL."""

from __future__ import annotations

from typing import Any, Final

from tools.sophgo.compile.checkpoints.checkpoint import Checkpoint, ids_of
from tools.sophgo.compile.checkpoints.decoder import HIDDEN, VOCABULARY, Decoder, decoder, linear
from tools.sophgo.compile.checkpoints.qwen2vl import (
    QWEN2VL_TOKENS,
    files_beside_config,
    qwen_config,
)
from tools.sophgo.compile.weights import Draw

_VIT: Final = {'width': 80, 'heads': 1, 'layers': 2, 'mlp': 192}
_WHOLE: Final = [1]
"""The layers that attend to the whole image: the other one does in windows."""


def qwen2_5vl() -> Checkpoint:
    """Return Qwen2.5-VL's form."""
    draw = Draw(7)
    width, mlp = _VIT['width'], _VIT['mlp']
    weights = {'visual.patch_embed.proj.weight': draw.kernel(width, 3, 2, 14, 14)}
    for i in range(_VIT['layers']):
        at = f'visual.blocks.{i}.'
        weights |= {f'{at}{norm}.weight': draw.gain(width) for norm in ('norm1', 'norm2')}
        weights |= linear(draw, f'{at}attn.qkv', 3 * width, width)
        weights |= linear(draw, f'{at}attn.proj', width, width)
        weights |= linear(draw, f'{at}mlp.gate_proj', mlp, width)
        weights |= linear(draw, f'{at}mlp.up_proj', mlp, width)
        weights |= linear(draw, f'{at}mlp.down_proj', width, mlp)
    weights['visual.merger.ln_q.weight'] = draw.gain(width)
    weights |= linear(draw, 'visual.merger.mlp.0', 4 * width, 4 * width)
    weights |= linear(draw, 'visual.merger.mlp.2', HIDDEN, 4 * width)
    weights |= decoder(draw, 'model.', Decoder())
    weights['lm_head.weight'] = draw.matrix(VOCABULARY, HIDDEN, scale=4.0)
    ids = ids_of(QWEN2VL_TOKENS)
    return Checkpoint(_config(ids), weights, QWEN2VL_TOKENS, _files(ids))


def _config(ids: dict[str, int]) -> dict[str, Any]:
    vision = {
        'depth': _VIT['layers'],
        'hidden_act': 'silu',
        'hidden_size': _VIT['width'],
        'intermediate_size': _VIT['mlp'],
        'num_heads': _VIT['heads'],
        'in_chans': 3,
        'out_hidden_size': HIDDEN,
        'patch_size': 14,
        'spatial_merge_size': 2,
        'spatial_patch_size': 14,
        'window_size': 112,
        'fullatt_block_indexes': _WHOLE,
        'tokens_per_second': 2,
        'temporal_patch_size': 2,
    }
    return qwen_config(ids, 'Qwen2_5_VLForConditionalGeneration', 'qwen2_5_vl', vision)


def _files(ids: dict[str, int]) -> dict[str, dict[str, Any]]:
    files = files_beside_config(ids)
    files['preprocessor_config.json']['processor_class'] = 'Qwen2_5_VLProcessor'
    return files
