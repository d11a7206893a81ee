"""The language part, which is alike in all families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tools.sophgo.compile.weights import Array, Draw

VOCABULARY: Final = 384
HIDDEN: Final = 128
HEADS: Final = 4
KV_HEADS: Final = 2
HEAD: Final = 32
MLP: Final = 256


@dataclass(frozen=True)
class Decoder:
    """What one family's decoder has other than the rest."""

    layers: int = 2
    kv_heads: int = KV_HEADS
    bias: bool = True
    cross: tuple[int, ...] = ()
    extra_rows: int = 0
    qk_norm: bool = False


def decoder(draw: Draw, at: str, has: Decoder) -> dict[str, Array]:
    """Return a decoder's weights; `at` is the prefix of all names."""
    result = {
        f'{at}embed_tokens.weight': draw.table(VOCABULARY + has.extra_rows, HIDDEN, size=1.0)
    }
    for i in range(has.layers):
        layer = f'{at}layers.{i}.'
        attention = f'{layer}{"cross_attn" if i in has.cross else "self_attn"}.'
        for norm in ('input_layernorm', 'post_attention_layernorm'):
            result[f'{layer}{norm}.weight'] = draw.gain(HIDDEN)
        for name, rows in (('q', HEADS), ('k', has.kv_heads), ('v', has.kv_heads)):
            result[f'{attention}{name}_proj.weight'] = draw.matrix(rows * HEAD, HIDDEN)
            if has.bias:
                result[f'{attention}{name}_proj.bias'] = draw.bias(rows * HEAD)
        result[f'{attention}o_proj.weight'] = draw.matrix(HIDDEN, HEADS * HEAD)
        if i in has.cross or has.qk_norm:
            result[f'{attention}q_norm.weight'] = draw.gain(HEAD)
            result[f'{attention}k_norm.weight'] = draw.gain(HEAD)
        if i in has.cross:
            result[f'{layer}cross_attn_attn_gate'] = np.array([0.5], np.float32)
            result[f'{layer}cross_attn_mlp_gate'] = np.array([0.75], np.float32)
        result[f'{layer}mlp.gate_proj.weight'] = draw.matrix(MLP, HIDDEN)
        result[f'{layer}mlp.up_proj.weight'] = draw.matrix(MLP, HIDDEN)
        result[f'{layer}mlp.down_proj.weight'] = draw.matrix(HIDDEN, MLP)
    result[f'{at}norm.weight'] = draw.gain(HIDDEN)
    return result


def norms(draw: Draw, names: tuple[str, ...], width: int) -> dict[str, Array]:
    """Return the weights and biases of layer norms."""
    return {
        f'{name}.{part}': draw.gain(width) if part == 'weight' else draw.bias(width)
        for name in names
        for part in ('weight', 'bias')
    }


def linear(draw: Draw, name: str, rows: int, inputs: int) -> dict[str, Array]:
    """Return the weight and the bias of a linear layer."""
    return {f'{name}.weight': draw.matrix(rows, inputs), f'{name}.bias': draw.bias(rows)}


def language_config() -> dict[str, Any]:
    """Return what config.json says of it."""
    return {
        'hidden_size': HIDDEN,
        'intermediate_size': MLP,
        'num_hidden_layers': 2,
        'num_attention_heads': HEADS,
        'num_key_value_heads': KV_HEADS,
        'vocab_size': VOCABULARY,
        'rms_norm_eps': 1e-6,
        'rope_theta': 10000.0,
        'rope_scaling': None,
        'hidden_act': 'silu',
        'max_position_embeddings': 4096,
        'tie_word_embeddings': False,
        'attention_dropout': 0.0,
        'torch_dtype': 'bfloat16',
    }
