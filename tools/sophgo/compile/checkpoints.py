"""Tiny random checkpoints of the three families, in the form their publishers use."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.engines.bf16 import to_bf16
from tools.sophgo.compile.weights import Array, Draw, save_checkpoint

VOCABULARY: Final = 384
HIDDEN: Final = 128
HEADS: Final = 4
KV_HEADS: Final = 2
HEAD: Final = 32
MLP: Final = 256
MROPE_SECTIONS: Final = (4, 6, 6)
BYTES: Final = 256  # tokens that are one byte each; the special ones follow

INTERNVL_TOKENS: Final = (
    '<|endoftext|>', '<|im_start|>', '<|im_end|>', '<img>', '</img>', '<IMG_CONTEXT>',
)  # fmt: skip
INTERNLM2_TOKENS: Final = (
    '<unk>', '<s>', '</s>', '<|im_end|>', '<|im_start|>', '<img>', '</img>', '<IMG_CONTEXT>',
)  # fmt: skip
PHI3_TOKENS: Final = (
    '<unk>', '<s>', '</s>', '<|endoftext|>', '<|assistant|>', '<|system|>', '<|end|>',
    '<|user|>', '<img>', '</img>', '<IMG_CONTEXT>',
)  # fmt: skip
QWEN2VL_TOKENS: Final = (
    '<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|vision_start|>', '<|vision_end|>',
    '<|vision_pad|>', '<|image_pad|>', '<|video_pad|>',
)  # fmt: skip
MLLAMA_TOKENS: Final = (
    '<|begin_of_text|>', '<|end_of_text|>', '<|start_header_id|>', '<|end_header_id|>',
    '<|eom_id|>', '<|eot_id|>', '<|image|>',
)  # fmt: skip


class Checkpoint:
    """Weights and configuration files.

    Args:
        config: config.json.
        weights: By the publisher's names.
        tokens: The special tokens, from id 256 on.
        extra: More JSON files by name.
    """

    def __init__(
        self,
        config: dict[str, Any],
        weights: dict[str, Array],
        tokens: tuple[str, ...],
        extra: dict[str, dict[str, Any]],
    ) -> None:
        self.config = config
        self.weights = weights
        self.tokens = tokens
        self.extra = extra

    def write(self, folder: Path, weights: dict[str, NDArray[np.generic]] | None = None) -> None:
        """Write the whole folder anew; `weights` as they are to be stored, or as bfloat16."""
        shutil.rmtree(folder, ignore_errors=True)
        self.write_config(folder)
        if weights is None:
            weights = {name: to_bf16(values) for name, values in self.weights.items()}
        save_checkpoint(weights, folder / 'model.safetensors')

    def write_config(self, folder: Path) -> None:
        """Write configuration and tokenizer."""
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / 'config.json', self.config)
        for name, values in self.extra.items():
            _write_json(folder / name, values)
        _write_json(folder / 'tokenizer.json', _tokenizer(self.tokens))


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + '\n')


def _byte_characters() -> list[str]:
    """Return the character that byte-level BPE shows for each byte. Source: GPT-2's tokenizer."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(moved)) for b in range(BYTES)]


def _tokenizer(tokens: tuple[str, ...]) -> dict[str, Any]:
    """Return tokenizer.json: one token a byte, and the special ones; the id of a byte is it."""
    level = {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True}
    return {
        'version': '1.0',
        'truncation': None,
        'padding': None,
        'added_tokens': [
            {
                'id': BYTES + i,
                'content': token,
                'single_word': False,
                'lstrip': False,
                'rstrip': False,
                'normalized': False,
                'special': True,
            }
            for i, token in enumerate(tokens)
        ],
        'normalizer': None,
        'pre_tokenizer': {**level, 'use_regex': False},
        'post_processor': None,
        'decoder': {**level, 'use_regex': True},
        'model': {
            'type': 'BPE',
            'dropout': None,
            'unk_token': None,
            'continuing_subword_prefix': None,
            'end_of_word_suffix': None,
            'fuse_unk': False,
            'byte_fallback': False,
            'ignore_merges': False,
            'vocab': {c: b for b, c in enumerate(_byte_characters())},
            'merges': [],
        },
    }


def _tokenizer_config(tokens: tuple[str, ...], bos: str, eos: str, pad: str) -> dict[str, Any]:
    return {
        'tokenizer_class': 'PreTrainedTokenizerFast',
        'bos_token': bos or None,
        'eos_token': eos,
        'pad_token': pad,
        'model_max_length': 4096,
        'clean_up_tokenization_spaces': False,
        'additional_special_tokens': list(tokens),
    }


@dataclass(frozen=True)
class _Decoder:
    """What one family's decoder has other than the rest."""

    layers: int = 2
    kv_heads: int = KV_HEADS
    bias: bool = True
    cross: tuple[int, ...] = ()
    extra_rows: int = 0


def _decoder(draw: Draw, at: str, has: _Decoder) -> dict[str, Array]:
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
        if i in has.cross:
            result[f'{attention}q_norm.weight'] = draw.gain(HEAD)
            result[f'{attention}k_norm.weight'] = draw.gain(HEAD)
            result[f'{layer}cross_attn_attn_gate'] = np.array([0.5], np.float32)
            result[f'{layer}cross_attn_mlp_gate'] = np.array([0.75], np.float32)
        result[f'{layer}mlp.gate_proj.weight'] = draw.matrix(MLP, HIDDEN)
        result[f'{layer}mlp.up_proj.weight'] = draw.matrix(MLP, HIDDEN)
        result[f'{layer}mlp.down_proj.weight'] = draw.matrix(HIDDEN, MLP)
    result[f'{at}norm.weight'] = draw.gain(HIDDEN)
    return result


def _norms(draw: Draw, names: tuple[str, ...], width: int) -> dict[str, Array]:
    return {
        f'{name}.{part}': draw.gain(width) if part == 'weight' else draw.bias(width)
        for name in names
        for part in ('weight', 'bias')
    }


def _linear(draw: Draw, name: str, rows: int, inputs: int) -> dict[str, Array]:
    return {f'{name}.weight': draw.matrix(rows, inputs), f'{name}.bias': draw.bias(rows)}


# -- InternVL -----------------------------------------------------------------------------------

INTERN_VIT: Final = {'width': 64, 'heads': 1, 'mlp': 128, 'layers': 2, 'px': 112, 'patch': 14}


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
        result |= _norms(draw, (f'{at}norm1', f'{at}norm2'), width)
        result |= {f'{at}ls1': draw.gain(width), f'{at}ls2': draw.gain(width)}
        result |= _linear(draw, f'{at}attn.qkv', 3 * width, width)
        result |= _linear(draw, f'{at}attn.proj', width, width)
        result |= _linear(draw, f'{at}mlp.fc1', mlp, width)
        result |= _linear(draw, f'{at}mlp.fc2', width, mlp)
    result |= _norms(draw, ('mlp1.0',), 4 * width)
    result |= _linear(draw, 'mlp1.1', HIDDEN, 4 * width)
    result |= _linear(draw, 'mlp1.3', HIDDEN, HIDDEN)
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
        'llm_config': {**_language_config(), **language},
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


def _language_config() -> dict[str, Any]:
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


_INTERN_PREPROCESSOR: Final = {
    'crop_size': INTERN_VIT['px'],
    'do_center_crop': True,
    'do_normalize': True,
    'do_resize': True,
    'feature_extractor_type': 'CLIPFeatureExtractor',
    'image_mean': [0.485, 0.456, 0.406],
    'image_std': [0.229, 0.224, 0.225],
    'resample': 3,
    'size': INTERN_VIT['px'],
}


def _internvl(
    language: dict[str, Any], template: str, tokens: tuple[str, ...], ends: tuple[str, ...]
) -> Checkpoint:
    draw = Draw(3)
    weights = _intern_vit(draw)
    weights |= _decoder(draw, 'language_model.model.', _Decoder())
    weights['language_model.lm_head.weight'] = draw.matrix(VOCABULARY, HIDDEN, scale=4.0)
    ids = {token: BYTES + i for i, token in enumerate(tokens)}
    bos, pad = ('<s>', '</s>') if '<s>' in ids else ('', '<|endoftext|>')
    return Checkpoint(
        _internvl_config(language, template),
        weights,
        tokens,
        {
            'generation_config.json': {'eos_token_id': [ids[t] for t in ends]},
            'preprocessor_config.json': _INTERN_PREPROCESSOR,
            'tokenizer_config.json': _tokenizer_config(tokens, bos, ends[0], pad),
        },
    )


def internvl3() -> Checkpoint:
    """Return InternVL3's form: Qwen2 inside."""
    language = {'architectures': ['Qwen2ForCausalLM'], 'model_type': 'qwen2'}
    return _internvl(language, 'internvl2_5', INTERNVL_TOKENS, ('<|im_end|>', '<|endoftext|>'))


def internvl2() -> Checkpoint:
    """Return the weights of `internvl3` with the configuration of InternVL2 2B: InternLM2."""
    language = {'architectures': ['InternLM2ForCausalLM'], 'model_type': 'internlm2'}
    return _internvl(language, 'internlm2-chat', INTERNLM2_TOKENS, ('<|im_end|>', '</s>'))


def internvl2_phi3() -> Checkpoint:
    """Return the weights of `internvl3` with the configuration of InternVL2 4B: Phi-3."""
    language = {'architectures': ['Phi3ForCausalLM'], 'model_type': 'phi3'}
    ends = ('<|end|>', '<|endoftext|>', '</s>')
    return _internvl(language, 'phi3-chat', PHI3_TOKENS, ends)


# -- Qwen2-VL -----------------------------------------------------------------------------------

QWEN_VIT: Final = {'width': 80, 'heads': 1, 'layers': 2, 'patch_values': 1176}


def qwen2vl() -> Checkpoint:
    """Return Qwen2-VL's form."""
    draw = Draw(5)
    width, mlp = QWEN_VIT['width'], 4 * QWEN_VIT['width']
    weights = {'visual.patch_embed.proj.weight': draw.kernel(width, 3, 2, 14, 14)}
    for i in range(QWEN_VIT['layers']):
        at = f'visual.blocks.{i}.'
        weights |= _norms(draw, (f'{at}norm1', f'{at}norm2'), width)
        weights |= _linear(draw, f'{at}attn.qkv', 3 * width, width)
        weights |= _linear(draw, f'{at}attn.proj', width, width)
        weights |= _linear(draw, f'{at}mlp.fc1', mlp, width)
        weights |= _linear(draw, f'{at}mlp.fc2', width, mlp)
    weights |= _norms(draw, ('visual.merger.ln_q',), width)
    weights |= _linear(draw, 'visual.merger.mlp.0', mlp, mlp)
    weights |= _linear(draw, 'visual.merger.mlp.2', HIDDEN, mlp)
    weights |= _decoder(draw, 'model.', _Decoder())
    weights['lm_head.weight'] = draw.matrix(VOCABULARY, HIDDEN, scale=4.0)
    ids = {token: BYTES + i for i, token in enumerate(QWEN2VL_TOKENS)}
    config = {
        **_language_config(),
        'architectures': ['Qwen2VLForConditionalGeneration'],
        'model_type': 'qwen2_vl',
        'rope_scaling': {'type': 'mrope', 'mrope_section': list(MROPE_SECTIONS)},
        'vision_start_token_id': ids['<|vision_start|>'],
        'vision_end_token_id': ids['<|vision_end|>'],
        'vision_token_id': ids['<|vision_pad|>'],
        'image_token_id': ids['<|image_pad|>'],
        'video_token_id': ids['<|video_pad|>'],
        'bos_token_id': ids['<|endoftext|>'],
        'eos_token_id': ids['<|im_end|>'],
        'vision_config': {
            'depth': QWEN_VIT['layers'],
            'embed_dim': width,
            'mlp_ratio': 4,
            'num_heads': QWEN_VIT['heads'],
            'in_chans': 3,
            'hidden_size': HIDDEN,
            'patch_size': 14,
            'spatial_merge_size': 2,
            'spatial_patch_size': 14,
            'temporal_patch_size': 2,
        },
    }
    extra: dict[str, dict[str, Any]] = {
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
        'tokenizer_config.json': _tokenizer_config(
            QWEN2VL_TOKENS, '', '<|im_end|>', '<|endoftext|>'
        ),
    }
    return Checkpoint(config, weights, QWEN2VL_TOKENS, extra)


# -- Llama 3.2 Vision ---------------------------------------------------------------------------

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
    result |= _norms(draw, (f'{at}layernorm_pre', f'{at}layernorm_post'), width)
    for stack, count in (('transformer', 'layers'), ('global_transformer', 'global')):
        for i in range(MLLAMA_VIT[count]):
            result |= _mllama_vit_layer(draw, f'{at}{stack}.layers.{i}.')
            if count == 'global':
                result[f'{at}{stack}.layers.{i}.gate_attn'] = _gate(0.75)
                result[f'{at}{stack}.layers.{i}.gate_ffn'] = _gate(0.625)
    joined = (1 + len(MLLAMA_STATES)) * width
    return result | _linear(draw, 'multi_modal_projector', HIDDEN, joined)


def _gate(value: float) -> Array:
    return np.array([value], np.float32)


def _mllama_vit_layer(draw: Draw, at: str) -> dict[str, Array]:
    width, mlp = MLLAMA_VIT['width'], MLLAMA_VIT['mlp']
    result = _norms(draw, (f'{at}input_layernorm', f'{at}post_attention_layernorm'), width)
    for name in 'qkvo':
        result[f'{at}self_attn.{name}_proj.weight'] = draw.matrix(width, width)
    result |= _linear(draw, f'{at}mlp.fc1', mlp, width)
    return result | _linear(draw, f'{at}mlp.fc2', width, mlp)


def mllama() -> Checkpoint:
    """Return Llama 3.2 Vision's form: layer 1 is cross-attention."""
    draw = Draw(7)
    at = 'language_model.'
    decoder = _Decoder(MLLAMA_LAYERS, 1, bias=False, cross=MLLAMA_CROSS, extra_rows=_EXTRA_ROWS)
    weights = _mllama_vit(draw) | _decoder(draw, f'{at}model.', decoder)
    weights[f'{at}lm_head.weight'] = draw.matrix(VOCABULARY, HIDDEN, scale=4.0)
    ids = {token: BYTES + i for i, token in enumerate(MLLAMA_TOKENS)}
    ends = [ids[t] for t in ('<|end_of_text|>', '<|eom_id|>', '<|eot_id|>')]
    config = {
        'architectures': ['MllamaForConditionalGeneration'],
        'model_type': 'mllama',
        'torch_dtype': 'bfloat16',
        'image_token_index': ids['<|image|>'],
        'text_config': {
            **_language_config(),
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
        'tokenizer_config.json': _tokenizer_config(
            MLLAMA_TOKENS, '<|begin_of_text|>', '<|eot_id|>', '<|end_of_text|>'
        ),
    }
    return Checkpoint(config, weights, MLLAMA_TOKENS, extra)


CHECKPOINTS: Final = {
    'internvl2': internvl2,
    'internvl2_phi3': internvl2_phi3,
    'internvl3': internvl3,
    'qwen2vl': qwen2vl,
    'mllama': mllama,
}
