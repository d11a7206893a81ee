"""Sizes of the tiny model, and the files beside its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TinyConfig:
    """Sizes; the defaults give a model of about 200 KB.

    Attributes:
        image_px: Side of a tile.
        patch_px: Side of a patch.
        vision_hidden: Width of the vision tower.
        vision_layers: Its depth.
        vision_heads: Its heads.
        hidden: Width of the language model.
        layers: Its depth.
        heads: Its query heads.
        kv_heads: Its key and value heads.
        mlp: Width of its feed-forward part.
        context_tokens: Longest context.
        half: Whether embeddings and KV cache cross the decoder's border as float16.
        keeps_logits: Whether the decoder takes `num_logits_to_keep`; else it scores all tokens.
        mrope: Whether positions have three rows (time, height, width).
        seed: Of the weights.
    """

    image_px: int = 56
    patch_px: int = 14
    vision_hidden: int = 16
    vision_layers: int = 2
    vision_heads: int = 2
    hidden: int = 32
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 64
    context_tokens: int = 1024
    half: bool = False
    keeps_logits: bool = True
    mrope: bool = False
    seed: int = 0

    @property
    def head_dim(self) -> int:
        """Width of one head of the language model."""
        return self.hidden // self.heads

    @property
    def mrope_sections(self) -> tuple[int, int, int]:
        """How many of a head's speeds turn by time, height and width; 16, 24, 24 of 64."""
        half = self.head_dim // 2
        time = half // 4
        height = (half - time) // 2
        return time, height, half - time - height

    @property
    def patches_a_side(self) -> int:
        """Patches in one row of a tile."""
        return self.image_px // self.patch_px

    @property
    def rows_per_tile(self) -> int:
        """Feature rows of one tile, after the pixel shuffle."""
        return (self.patches_a_side // 2) ** 2


ROPE_THETA = 10000.0
NORM_EPS = 1e-6


def model_config(config: TinyConfig, vocab_size: int) -> dict[str, Any]:
    """Make config.json, in the form of OpenGVLab's InternVL3 repositories."""
    return {
        'architectures': ['InternVLChatModel'],
        'model_type': 'internvl_chat',
        'template': 'internvl2_5',
        'system_message': '',
        'downsample_ratio': 0.5,
        'dynamic_image_size': False,
        'force_image_size': config.image_px,
        'max_dynamic_patch': 1,
        'min_dynamic_patch': 1,
        'ps_version': 'v2',
        'select_layer': -1,
        'use_thumbnail': False,
        'llm_config': {
            'architectures': ['Qwen2ForCausalLM'],
            'model_type': 'qwen2',
            'hidden_act': 'silu',
            'hidden_size': config.hidden,
            'intermediate_size': config.mlp,
            'max_position_embeddings': config.context_tokens,
            'num_attention_heads': config.heads,
            'num_hidden_layers': config.layers,
            'num_key_value_heads': config.kv_heads,
            'rms_norm_eps': NORM_EPS,
            'rope_theta': ROPE_THETA,
            'tie_word_embeddings': False,
            'vocab_size': vocab_size,
        },
        'vision_config': {
            'architectures': ['InternVisionModel'],
            'model_type': 'intern_vit_6b',
            'hidden_act': 'gelu',
            'hidden_size': config.vision_hidden,
            'image_size': config.image_px,
            'intermediate_size': 4 * config.vision_hidden,
            'layer_norm_eps': NORM_EPS,
            'norm_type': 'layer_norm',
            'num_attention_heads': config.vision_heads,
            'num_channels': 3,
            'num_hidden_layers': config.vision_layers,
            'patch_size': config.patch_px,
            'qk_normalization': False,
            'qkv_bias': True,
        },
    }
