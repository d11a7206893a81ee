"""Random weights: the tower's by transformers' names, the decoder's as `tiny_model` has them."""

from __future__ import annotations

import numpy as np

from support.tiny_model.weights import Draw, Weights
from support.tiny_smolvlm.config import TinySmolVlmConfig

TOWER = 'model.vision_model'
CONNECTOR = 'model.connector.modality_projection.proj.weight'
LANGUAGE = 'language_model.model'


def make_weights(config: TinySmolVlmConfig, vocab_size: int, image_token: int) -> Weights:
    """Draw all weights; the same seed gives the same bytes. Matrices are (out, in), as in torch.

    The placeholder is never said, as by a model that was trained.

    They are drawn wide enough for attention to look somewhere and for greedy tokens to differ.
    """
    draw = Draw(np.random.default_rng(config.seed))
    _vision(draw, config)
    shuffled = config.vision_hidden * config.scale_factor**2
    draw.matrix(CONNECTOR, config.hidden, shuffled)
    _language(draw, config, vocab_size)
    draw.weights['language_model.lm_head.weight'][image_token] = 0
    return draw.weights


def _vision(draw: Draw, config: TinySmolVlmConfig) -> None:
    width, patch = config.vision_hidden, config.patch_px
    stem = f'{TOWER}.embeddings'
    draw.matrix(f'{stem}.patch_embedding.weight', width, 3, patch, patch)
    draw.vector(f'{stem}.patch_embedding.bias', width)
    draw.matrix(f'{stem}.position_embedding.weight', config.patches_a_side**2, width)
    for i in range(config.vision_layers):
        layer = f'{TOWER}.encoder.layers.{i}'
        draw.layer_norm(f'{layer}.layer_norm1', width)
        for part in ('q_proj', 'k_proj', 'v_proj', 'out_proj'):
            draw.linear(f'{layer}.self_attn.{part}', width, width)
        draw.layer_norm(f'{layer}.layer_norm2', width)
        draw.linear(f'{layer}.mlp.fc1', 4 * width, width)
        draw.linear(f'{layer}.mlp.fc2', width, 4 * width)
    draw.layer_norm(f'{TOWER}.post_layernorm', width)


def _language(draw: Draw, config: TinySmolVlmConfig, vocab_size: int) -> None:
    width, kv_width = config.hidden, config.kv_heads * config.head_dim
    draw.matrix(f'{LANGUAGE}.embed_tokens.weight', vocab_size, width, gain=float(np.sqrt(width)))
    for i in range(config.layers):
        layer = f'{LANGUAGE}.layers.{i}'
        draw.vector(f'{layer}.input_layernorm.weight', width, mean=1.0)
        draw.matrix(f'{layer}.self_attn.q_proj.weight', width, width)
        draw.matrix(f'{layer}.self_attn.k_proj.weight', kv_width, width)
        draw.matrix(f'{layer}.self_attn.v_proj.weight', kv_width, width)
        draw.matrix(f'{layer}.self_attn.o_proj.weight', width, width)
        draw.vector(f'{layer}.post_attention_layernorm.weight', width, mean=1.0)
        draw.matrix(f'{layer}.mlp.gate_proj.weight', config.mlp, width)
        draw.matrix(f'{layer}.mlp.up_proj.weight', config.mlp, width)
        draw.matrix(f'{layer}.mlp.down_proj.weight', width, config.mlp)
    draw.vector(f'{LANGUAGE}.norm.weight', width, mean=1.0)
    draw.matrix('language_model.lm_head.weight', vocab_size, width, gain=4.0)
