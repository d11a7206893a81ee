"""InternVL 2 and 3: one set of weights with the configurations of three releases; InternVL3.5."""

from __future__ import annotations

from typing import Any, Final

from support.internvl_files import SPECIAL_TOKENS, preprocessor_config

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
from tools.sophgo.compile.weights import Array, Draw

INTERNLM2_TOKENS: Final = (
    '<unk>', '<s>', '</s>', '<|im_end|>', '<|im_start|>', '<img>', '</img>', '<IMG_CONTEXT>',
)  # fmt: skip
PHI3_TOKENS: Final = (
    '<unk>', '<s>', '</s>', '<|endoftext|>', '<|assistant|>', '<|system|>', '<|end|>',
    '<|user|>', '<img>', '</img>', '<IMG_CONTEXT>',
)  # fmt: skip
QWEN3_TOKENS: Final = (
    '<|endoftext|>', '<|im_start|>', '<|im_end|>', '<think>', '</think>', '<img>', '</img>',
    '<IMG_CONTEXT>',
)  # fmt: skip
INTERN_VIT: Final = {'width': 64, 'heads': 1, 'mlp': 128, 'layers': 2, 'px': 112, 'patch': 14}


_QWEN2: Final = Decoder()


def _intern_vit(draw: Draw) -> dict[str, Array]:
    width, mlp, patch = INTERN_VIT['width'], INTERN_VIT['mlp'], INTERN_VIT['patch']
    grid = INTERN_VIT['px'] // patch
    at = 'vision_model.embeddings.'
    result = {
        f'{at}class_embedding': draw.table(1, 1, width, size=0.5),
        f'{at}patch_embedding.weight': draw.kernel(width, 3, patch, patch),
        f'{at}patch_embedding.bias': draw.bias(width),
        f'{at}position_embedding': draw.table(1, grid * grid + 1, width, size=0.5),
    }
    for i in range(INTERN_VIT['layers']):
        at = f'vision_model.encoder.layers.{i}.'
        result |= norms(draw, (f'{at}norm1', f'{at}norm2'), width)
        result |= {f'{at}ls1': draw.gain(width), f'{at}ls2': draw.gain(width)}
        result |= linear(draw, f'{at}attn.qkv', 3 * width, width)
        result |= linear(draw, f'{at}attn.proj', width, width)
        result |= linear(draw, f'{at}mlp.fc1', mlp, width)
        result |= linear(draw, f'{at}mlp.fc2', width, mlp)
    result |= norms(draw, ('mlp1.0',), 4 * width)
    result |= linear(draw, 'mlp1.1', HIDDEN, 4 * width)
    result |= linear(draw, 'mlp1.3', HIDDEN, HIDDEN)
    return result


def _internvl_config(language: dict[str, Any], template: str) -> dict[str, Any]:
    return {
        'architectures': ['InternVLChatModel'],
        'model_type': 'internvl_chat',
        'torch_dtype': 'bfloat16',
        'downsample_ratio': 0.5,
        'dynamic_image_size': True,
        'force_image_size': INTERN_VIT['px'],
        'max_dynamic_patch': 12,
        'min_dynamic_patch': 1,
        'ps_version': 'v2',
        'select_layer': -1,
        'template': template,
        'use_thumbnail': True,
        'tie_word_embeddings': False,
        'llm_config': {**language_config(), **language},
        'vision_config': {
            'model_type': 'intern_vit_6b',
            'hidden_size': INTERN_VIT['width'],
            'num_attention_heads': INTERN_VIT['heads'],
            'intermediate_size': INTERN_VIT['mlp'],
            'num_hidden_layers': INTERN_VIT['layers'],
            'image_size': INTERN_VIT['px'],
            'patch_size': INTERN_VIT['patch'],
            'num_channels': 3,
            'hidden_act': 'gelu',
            'layer_norm_eps': 1e-6,
            'norm_type': 'layer_norm',
            'qkv_bias': True,
            'qk_normalization': False,
            'initializer_factor': 0.1,
        },
    }


def _internvl(
    language: dict[str, Any],
    template: str,
    tokens: tuple[str, ...],
    ends: tuple[str, ...],
    has: Decoder = _QWEN2,
) -> Checkpoint:
    draw = Draw(3)
    weights = _intern_vit(draw)
    weights |= decoder(draw, 'language_model.model.', has)
    weights['language_model.lm_head.weight'] = draw.matrix(VOCABULARY, HIDDEN, scale=4.0)
    ids = ids_of(tokens)
    bos, pad = ('<s>', '</s>') if '<s>' in ids else ('', '<|endoftext|>')
    return Checkpoint(
        _internvl_config(language, template),
        weights,
        tokens,
        {
            'generation_config.json': {'eos_token_id': [ids[t] for t in ends]},
            'preprocessor_config.json': preprocessor_config(INTERN_VIT['px'], crops=True),
            'tokenizer_config.json': tokenizer_config(tokens, bos, ends[0], pad),
        },
    )


def internvl3() -> Checkpoint:
    """Return InternVL3's form: Qwen2 inside."""
    language = {'architectures': ['Qwen2ForCausalLM'], 'model_type': 'qwen2'}
    return _internvl(language, 'internvl2_5', SPECIAL_TOKENS, ('<|im_end|>', '<|endoftext|>'))


def internvl35() -> Checkpoint:
    """Return InternVL3.5's form: Qwen3 inside, with norms of queries and keys and no biases."""
    language = {
        'architectures': ['Qwen3ForCausalLM'],
        'model_type': 'qwen3',
        'head_dim': HEAD,
        'attention_bias': False,
    }
    ends = ('<|im_end|>', '<|endoftext|>')
    has = Decoder(bias=False, qk_norm=True)
    return _internvl(language, 'internvl2_5', QWEN3_TOKENS, ends, has)


def internvl2() -> Checkpoint:
    """Return the weights of `internvl3` with the configuration of InternVL2 2B: InternLM2."""
    language = {'architectures': ['InternLM2ForCausalLM'], 'model_type': 'internlm2'}
    return _internvl(language, 'internlm2-chat', INTERNLM2_TOKENS, ('<|im_end|>', '</s>'))


def internvl2_phi3() -> Checkpoint:
    """Return the weights of `internvl3` with the configuration of InternVL2 4B: Phi-3."""
    language = {'architectures': ['Phi3ForCausalLM'], 'model_type': 'phi3'}
    ends = ('<|end|>', '<|endoftext|>', '</s>')
    return _internvl(language, 'phi3-chat', PHI3_TOKENS, ends)
