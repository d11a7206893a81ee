"""Random weights under the names of OpenGVLab's InternVL3 checkpoints."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from support.tiny_model.config import TinyConfig
from support.tiny_model.tokenizer import vocab_size

Weights: TypeAlias = 'dict[str, NDArray[np.float32]]'


def make_weights(config: TinyConfig) -> Weights:
    """Draw all weights; the same seed gives the same bytes. Matrices are (out, in), as in torch.

    They are drawn wide enough for attention to look somewhere and for greedy tokens to differ.
    """
    draw = Draw(np.random.default_rng(config.seed))
    _vision(draw, config)
    _projector(draw, config)
    draw_language(draw, config, vocab_size())
    return draw.weights


class Draw:
    """Draws weights by name.

    Args:
        rng: The source of all of them.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self.weights: Weights = {}

    def matrix(self, name: str, *shape: int, gain: float = 1.0) -> None:
        """Draw a matrix or a kernel, of a deviation that keeps what it is multiplied with."""
        fan_in = int(np.prod(shape[1:]))
        values = self._rng.normal(0, gain / np.sqrt(fan_in), shape)
        self.weights[name] = values.astype(np.float32)

    def vector(self, name: str, size: int, mean: float = 0.0) -> None:
        """Draw a vector near a mean."""
        self.weights[name] = self._rng.normal(mean, 0.1, size).astype(np.float32)

    def linear(self, name: str, width_out: int, width_in: int) -> None:
        """Draw a matrix and its bias."""
        self.matrix(f'{name}.weight', width_out, width_in)
        self.vector(f'{name}.bias', width_out)

    def layer_norm(self, name: str, width: int) -> None:
        """Draw scale and bias of a norm."""
        self.vector(f'{name}.weight', width, mean=1.0)
        self.vector(f'{name}.bias', width)


def _vision(draw: Draw, config: TinyConfig) -> None:
    width = config.vision_hidden
    stem = 'vision_model.embeddings'
    draw.matrix(f'{stem}.class_embedding', 1, 1, width)
    draw.matrix(f'{stem}.patch_embedding.weight', width, 3, config.patch_px, config.patch_px)
    draw.vector(f'{stem}.patch_embedding.bias', width)
    draw.matrix(f'{stem}.position_embedding', 1, config.patches_a_side**2 + 1, width)
    for i in range(config.vision_layers):
        layer = f'vision_model.encoder.layers.{i}'
        draw.layer_norm(f'{layer}.norm1', width)
        draw.linear(f'{layer}.attn.qkv', 3 * width, width)
        draw.linear(f'{layer}.attn.proj', width, width)
        draw.vector(f'{layer}.ls1', width, mean=1.0)
        draw.layer_norm(f'{layer}.norm2', width)
        draw.linear(f'{layer}.mlp.fc1', 4 * width, width)
        draw.linear(f'{layer}.mlp.fc2', width, 4 * width)
        draw.vector(f'{layer}.ls2', width, mean=1.0)


def _projector(draw: Draw, config: TinyConfig) -> None:
    draw.layer_norm('mlp1.0', 4 * config.vision_hidden)
    draw.linear('mlp1.1', config.hidden, 4 * config.vision_hidden)
    draw.linear('mlp1.3', config.hidden, config.hidden)


def draw_language(draw: Draw, config: TinyConfig, vocab_size: int) -> None:
    """Draw the language model, which all families here share."""
    width, kv_width = config.hidden, config.kv_heads * config.head_dim
    model = 'language_model.model'
    draw.matrix(f'{model}.embed_tokens.weight', vocab_size, width, gain=np.sqrt(width))
    for i in range(config.layers):
        layer = f'{model}.layers.{i}'
        draw.vector(f'{layer}.input_layernorm.weight', width, mean=1.0)
        draw.linear(f'{layer}.self_attn.q_proj', width, width)
        draw.linear(f'{layer}.self_attn.k_proj', kv_width, width)
        draw.linear(f'{layer}.self_attn.v_proj', kv_width, width)
        draw.matrix(f'{layer}.self_attn.o_proj.weight', width, width)
        draw.vector(f'{layer}.post_attention_layernorm.weight', width, mean=1.0)
        draw.matrix(f'{layer}.mlp.gate_proj.weight', config.mlp, width)
        draw.matrix(f'{layer}.mlp.up_proj.weight', config.mlp, width)
        draw.matrix(f'{layer}.mlp.down_proj.weight', width, config.mlp)
    draw.vector(f'{model}.norm.weight', width, mean=1.0)
    draw.matrix('language_model.lm_head.weight', vocab_size, width, gain=4.0)
