"""The language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from support.sophgo.reference.arithmetic import Array, Weights, attention, rotate

_HIDDEN: Final = -1e9
_PREFIXES: Final = {
    'internvl_chat': ('language_model.model.', 'language_model.lm_head.weight'),
    'qwen2_vl': ('model.', 'lm_head.weight'),
    'qwen2_5_vl': ('model.', 'lm_head.weight'),
    'qwen3_vl': ('model.language_model.', 'lm_head.weight'),
    'mllama': ('language_model.model.', 'language_model.lm_head.weight'),
}


@dataclass(frozen=True)
class Trace:
    """What a decoder computed for one sequence.

    Attributes:
        hidden: After each layer, (layers, tokens, width), before the final norm.
        normed: After the final norm, (tokens, width).
        logits: (tokens, vocabulary).
        keys: Of each layer, after rotation: (tokens, KV heads, head); of a cross layer (vision
            rows, KV heads, head).
        values: Likewise.
    """

    hidden: Array
    normed: Array
    logits: Array
    keys: tuple[Array, ...]
    values: tuple[Array, ...]

    @property
    def tokens(self) -> list[int]:
        """The likeliest next token after each position."""
        return [int(t) for t in self.logits.argmax(-1)]

    def gap(self, position: int = -1) -> float:
        """Return by how much the likeliest token leads the second."""
        second, first = np.sort(self.logits[position])[-2:]
        return float(first - second)


@dataclass(frozen=True)
class Image:
    """What a cross-attention layer looks at.

    Attributes:
        states: (tiles, rows, width), from `mllama_vision`.
        tiles: How many of the tiles are real.
        first: Index of the image token: no text before it sees the image.
    """

    states: Array
    tiles: int
    first: int


class Decoder:
    """A language model.

    Args:
        config: config.json.
        weights: By the publisher's names.
    """

    def __init__(self, config: Mapping[str, Any], weights: Weights) -> None:
        self._at, self._head_name = _PREFIXES[config['model_type']]
        self._weights = weights
        self.config = config.get('llm_config') or config.get('text_config') or config
        self.layers = int(self.config['num_hidden_layers'])
        self._heads = int(self.config['num_attention_heads'])
        self._kv_heads = int(self.config['num_key_value_heads'])
        plain = int(self.config['hidden_size']) // self._heads
        self._head = int(self.config.get('head_dim', plain))
        self._cross = tuple(self.config.get('cross_attention_layers', ()))

    def embed(self, tokens: Sequence[int]) -> Array:
        """Return the embeddings of tokens, (tokens, width)."""
        rows: Array = self._weights[f'{self._at}embed_tokens.weight'][list(tokens)]
        return np.array(rows)

    def run(
        self,
        embeddings: Array,
        positions: NDArray[np.integer[Any]] | None = None,
        image: Image | None = None,
        deepstack: Sequence[Array] = (),
    ) -> Trace:
        """Compute a whole sequence.

        Args:
            embeddings: (tokens, width), vision rows in their places.
            positions: (tokens,) or (3, tokens); None counts from 0.
            image: Of a family with cross-attention; None leaves those layers out.
            deepstack: What is added after each of the first layers, (tokens, width); zeros at
                words.
        """
        count = len(embeddings)
        positions = np.arange(count) if positions is None else positions
        turn = self._rotation(positions)
        x, hidden, keys, values = embeddings, [], [], []
        for layer in range(self.layers):
            if layer in self._cross and image is None:
                k = v = np.zeros((0, self._kv_heads, self._head), np.float32)
            elif layer in self._cross:
                assert image is not None
                x, k, v = self._cross_layer(layer, x, image)
            else:
                x, k, v = self._self_layer(layer, x, turn)
            if layer < len(deepstack):
                x = x + deepstack[layer]
            hidden.append(x)
            keys.append(k)
            values.append(v)
        normed = self._norm(x, f'{self._at}norm.weight')
        logits = normed @ self._head_weight().T
        return Trace(np.stack(hidden), normed, logits, tuple(keys), tuple(values))

    def _head_weight(self) -> Array:
        tied = self._weights[f'{self._at}embed_tokens.weight']
        return self._weights.get(self._head_name, tied)

    def _rotation(self, positions: NDArray[np.integer[Any]]) -> tuple[Array, Array]:
        """Return cosines and sines, (tokens, 1, head)."""
        half = self._head // 2
        inverse = self.config['rope_theta'] ** -(np.arange(half) / half)
        angles = positions[..., None] * inverse
        if positions.ndim == 2:
            axis = self._axes(half)
            angles = angles[axis, :, np.arange(half)].T
        angles = np.concatenate([angles, angles], -1)[:, None]
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def _axes(self, half: int) -> NDArray[np.integer[Any]]:
        """Say which axis turns each pair of a head: side by side, or taken in turns."""
        scaling = self.config['rope_scaling']
        sections = scaling['mrope_section']
        if not scaling.get('mrope_interleaved'):
            return np.repeat(np.arange(3), sections)
        axis = np.zeros(half, np.int64)
        for which in (1, 2):
            axis[which : 3 * sections[which] : 3] = which
        return axis

    def _self_layer(
        self, layer: int, x: Array, turn: tuple[Array, Array]
    ) -> tuple[Array, Array, Array]:
        at = f'{self._at}layers.{layer}.'
        y = self._norm(x, f'{at}input_layernorm.weight')
        q = self._project(y, f'{at}self_attn.q_proj', self._heads)
        k = self._project(y, f'{at}self_attn.k_proj', self._kv_heads)
        if f'{at}self_attn.q_norm.weight' in self._weights:
            q = self._norm(q, f'{at}self_attn.q_norm.weight')
            k = self._norm(k, f'{at}self_attn.k_norm.weight')
        q, k = rotate(q, turn), rotate(k, turn)
        v = self._project(y, f'{at}self_attn.v_proj', self._kv_heads)
        mask = np.triu(np.full((len(x), len(x)), _HIDDEN, np.float32), 1)
        x = x + self._attend(q, k, v, mask) @ self._weights[f'{at}self_attn.o_proj.weight'].T
        return x + self._mlp(at, x), k, v

    def _cross_layer(self, layer: int, x: Array, image: Image) -> tuple[Array, Array, Array]:
        at = f'{self._at}layers.{layer}.'
        rows = image.states.shape[1]
        states = image.states.reshape(-1, image.states.shape[-1])
        sees = np.arange(len(x)) >= image.first
        open_rows = np.arange(len(states)) < image.tiles * rows
        mask = np.where(sees[:, None] & ~open_rows, _HIDDEN, 0).astype(np.float32)
        y = self._norm(x, f'{at}input_layernorm.weight')
        q = self._project(y, f'{at}cross_attn.q_proj', self._heads)
        k = self._project(states, f'{at}cross_attn.k_proj', self._kv_heads)
        v = self._project(states, f'{at}cross_attn.v_proj', self._kv_heads)
        q = self._norm(q, f'{at}cross_attn.q_norm.weight')
        k = self._norm(k, f'{at}cross_attn.k_norm.weight')
        out = self._attend(q, k, v, mask) @ self._weights[f'{at}cross_attn.o_proj.weight'].T
        x = x + np.tanh(self._weights[f'{at}cross_attn_attn_gate']) * out
        gate = np.tanh(self._weights[f'{at}cross_attn_mlp_gate'])
        return x + gate * sees[:, None] * self._mlp(at, x), k, v

    def _attend(self, q: Array, k: Array, v: Array, mask: Array) -> Array:
        repeat = self._heads // self._kv_heads
        k, v = np.repeat(k, repeat, 1), np.repeat(v, repeat, 1)
        return attention(q, k, v, mask).reshape(len(q), -1)

    def _project(self, x: Array, name: str, heads: int) -> Array:
        y = x @ self._weights[f'{name}.weight'].T
        bias = self._weights.get(f'{name}.bias')
        projected: Array = y if bias is None else y + bias
        return projected.reshape(len(x), heads, self._head)

    def _mlp(self, at: str, x: Array) -> Array:
        y = self._norm(x, f'{at}post_attention_layernorm.weight')
        gate = y @ self._weights[f'{at}mlp.gate_proj.weight'].T
        up = y @ self._weights[f'{at}mlp.up_proj.weight'].T
        opened = gate / (1 + np.exp(-gate)) * up
        down: Array = opened @ self._weights[f'{at}mlp.down_proj.weight'].T
        return down

    def _norm(self, x: Array, name: str) -> Array:
        scale = np.sqrt((x * x).mean(-1, keepdims=True) + self.config['rms_norm_eps'])
        return np.asarray(x / scale * self._weights[name], np.float32)
