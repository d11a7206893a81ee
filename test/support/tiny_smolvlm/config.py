"""Sizes of the tiny SmolVLM, and the files beside its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from support.tiny_model.config import NORM_EPS, ROPE_THETA, TinyConfig

SPECIAL_TOKENS = (
    '<|im_start|>',
    '<|im_end|>',
    '<global-img>',
    *(f'<row_{row}_col_{column}>' for row in range(1, 7) for column in range(1, 7)),
    '<fake_token_around_image>',
    '<image>',
    '<end_of_utterance>',
)


@dataclass(frozen=True, slots=True)
class TinySmolVlmConfig(TinyConfig):
    """Sizes; the defaults give a model of about 600 KB, with 4 rows a tile.

    Attributes:
        scale_factor: Patches of one row of features, on either side.
        longest_px: What a frame's longest side is brought to: 4 x 4 tiles.
        vocabulary: Rows of the embedding table; 0 = as many as the tokenizer has. Those above are
            never said.
        model_type: 'idefics3' or 'smolvlm'.
        has_fixed_sizes: Whether the vision graph says its pixels; the public ones leave them open.
    """

    image_px: int = 32
    patch_px: int = 8
    vision_hidden: int = 32
    vision_layers: int = 2
    vision_heads: int = 2
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 128
    context_tokens: int = 2048
    keeps_logits: bool = False
    scale_factor: int = 2
    longest_px: int = 128
    vocabulary: int = 0
    model_type: str = 'idefics3'
    has_fixed_sizes: bool = False

    @property
    def rows_per_tile(self) -> int:
        """Feature rows of one tile, after the pixel shuffle."""
        return (self.patches_a_side // self.scale_factor) ** 2


TRUE_SIZE = TinySmolVlmConfig(
    image_px=512,
    patch_px=16,
    vision_hidden=768,
    vision_layers=12,
    vision_heads=12,
    hidden=576,
    layers=30,
    heads=9,
    kv_heads=3,
    mlp=1536,
    context_tokens=8192,
    scale_factor=4,
    longest_px=2048,
    vocabulary=49280,
)
"""SmolVLM-256M's sizes."""


def model_config(config: TinySmolVlmConfig, vocab_size: int, image_token: int) -> dict[str, Any]:
    """Make config.json, in the form of the SmolVLM repositories."""
    return {
        'architectures': ['Idefics3ForConditionalGeneration'],
        'model_type': config.model_type,
        'image_token_id': image_token,
        'scale_factor': config.scale_factor,
        'tie_word_embeddings': False,
        'text_config': {
            'model_type': 'llama',
            'attention_bias': False,
            'head_dim': config.head_dim,
            'hidden_act': 'silu',
            'hidden_size': config.hidden,
            'intermediate_size': config.mlp,
            'max_position_embeddings': config.context_tokens,
            'num_attention_heads': config.heads,
            'num_hidden_layers': config.layers,
            'num_key_value_heads': config.kv_heads,
            'rms_norm_eps': NORM_EPS,
            'rope_theta': ROPE_THETA,
            'vocab_size': vocab_size,
        },
        'vision_config': {
            'model_type': f'{config.model_type}_vision',
            'hidden_act': 'gelu_pytorch_tanh',
            'hidden_size': config.vision_hidden,
            'image_size': config.image_px,
            'intermediate_size': 4 * config.vision_hidden,
            'layer_norm_eps': NORM_EPS,
            'num_attention_heads': config.vision_heads,
            'num_hidden_layers': config.vision_layers,
            'patch_size': config.patch_px,
        },
    }


def preprocessor_config(config: TinySmolVlmConfig) -> dict[str, Any]:
    """Make preprocessor_config.json."""
    return {
        'do_convert_rgb': True,
        'do_image_splitting': True,
        'do_normalize': True,
        'do_pad': True,
        'do_rescale': True,
        'do_resize': True,
        'image_mean': [0.5, 0.5, 0.5],
        'image_processor_type': 'Idefics3ImageProcessor',
        'image_std': [0.5, 0.5, 0.5],
        'max_image_size': {'longest_edge': config.image_px},
        'resample': 1,
        'size': {'longest_edge': config.longest_px},
    }
