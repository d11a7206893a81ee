"""The float reference of the compiled fixtures: the three families in NumPy, written plainly.

Works on the weights that the fixtures were compiled from (`fixtures.Fixture.weights`), for any
prompt: nothing is cached, every call computes the whole sequence. float32 throughout.
"""

# mypy: disable-error-code="no-any-return"
# NumPy's operators between arrays of one type say Any.
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]  # float32
Weights: TypeAlias = Mapping[str, Array]

_HIDDEN: Final = -1e9
_PREFIXES: Final = {
    'internvl_chat': ('language_model.model.', 'language_model.lm_head.weight'),
    'qwen2_vl': ('model.', 'lm_head.weight'),
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
        """The likeliest next token behind each position."""
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
        self._head = int(self.config['hidden_size']) // self._heads
        self._cross = tuple(self.config.get('cross_attention_layers', ()))

    def embed(self, tokens: Sequence[int]) -> Array:
        """Return the embeddings of tokens, (tokens, width)."""
        return self._weights[f'{self._at}embed_tokens.weight'][list(tokens)].copy()

    def run(
        self,
        embeddings: Array,
        positions: NDArray[np.integer[Any]] | None = None,
        image: Image | None = None,
    ) -> Trace:
        """Compute a whole sequence.

        Args:
            embeddings: (tokens, width), vision rows in their places.
            positions: (tokens,) or (3, tokens); None counts from 0.
            image: Of a family with cross-attention; None leaves those layers out.
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
            sections = self.config['rope_scaling']['mrope_section']
            axis = np.repeat(np.arange(3), sections)
            angles = angles[axis, :, np.arange(half)].T
        angles = np.concatenate([angles, angles], -1)[:, None]
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def _self_layer(
        self, layer: int, x: Array, turn: tuple[Array, Array]
    ) -> tuple[Array, Array, Array]:
        at = f'{self._at}layers.{layer}.'
        y = self._norm(x, f'{at}input_layernorm.weight')
        q = rotate(self._project(y, f'{at}self_attn.q_proj', self._heads), turn)
        k = rotate(self._project(y, f'{at}self_attn.k_proj', self._kv_heads), turn)
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
        return (y if bias is None else y + bias).reshape(len(x), heads, self._head)

    def _mlp(self, at: str, x: Array) -> Array:
        y = self._norm(x, f'{at}post_attention_layernorm.weight')
        gate = y @ self._weights[f'{at}mlp.gate_proj.weight'].T
        up = y @ self._weights[f'{at}mlp.up_proj.weight'].T
        return (gate / (1 + np.exp(-gate)) * up) @ self._weights[f'{at}mlp.down_proj.weight'].T

    def _norm(self, x: Array, name: str) -> Array:
        scale = np.sqrt((x * x).mean(-1, keepdims=True) + self.config['rms_norm_eps'])
        return np.asarray(x / scale * self._weights[name], np.float32)


def rotate(x: Array, turn: tuple[Array, Array]) -> Array:
    """Rotate halves of each head, (tokens, heads, head)."""
    cos, sin = turn
    first, second = np.split(x, 2, -1)
    return x * cos + np.concatenate([-second, first], -1) * sin


def attention(q: Array, k: Array, v: Array, mask: Array | float) -> Array:
    """Return softmax(q k / sqrt(head) + mask) v for (tokens, heads, head)."""
    scores = np.einsum('qhd,khd->hqk', q, k) / math.sqrt(q.shape[-1]) + mask
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    scores /= scores.sum(-1, keepdims=True)
    return np.einsum('hqk,khd->qhd', scores, v).astype(np.float32)


# -- vision -------------------------------------------------------------------------------------


class _Vision:
    """What the vision towers share."""

    def __init__(self, weights: Weights, eps: float) -> None:
        self.weights = weights
        self._eps = eps

    def linear(self, x: Array, name: str) -> Array:
        y = x @ self.weights[f'{name}.weight'].T
        bias = self.weights.get(f'{name}.bias')
        return y if bias is None else y + bias

    def norm(self, x: Array, name: str) -> Array:
        mean = x.mean(-1, keepdims=True)
        scale = np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + self._eps)
        return (x - mean) / scale * self.weights[f'{name}.weight'] + self.weights[f'{name}.bias']

    def qkv(self, x: Array, name: str, heads: int) -> tuple[Array, Array, Array]:
        q, k, v = self.linear(x, name).reshape(len(x), 3, heads, -1).transpose(1, 0, 2, 3)
        return q, k, v


def gelu(x: Array) -> Array:
    """Return the exact GELU."""
    return (0.5 * x * (1 + _erf(x / math.sqrt(2)))).astype(np.float32)


_erf = np.vectorize(math.erf, otypes=[np.float32])


def _patches(image: Array, patch: int) -> Array:
    """Cut (3, px, px) into (patches, 3 * patch * patch), row by row."""
    grid = image.shape[-1] // patch
    cut = image.reshape(3, grid, patch, grid, patch).transpose(1, 3, 0, 2, 4)
    return cut.reshape(grid * grid, -1)


def internvl_vision(config: Mapping[str, Any], weights: Weights, tile: Array) -> Array:
    """Return the rows of one tile: (3, px, px) normalised to (tokens, width)."""
    sizes = config['vision_config']
    width, heads = sizes['hidden_size'], sizes['num_attention_heads']
    tower = _Vision(weights, sizes['layer_norm_eps'])
    at = 'vision_model.embeddings.'
    kernel = weights[f'{at}patch_embedding.weight'].reshape(width, -1)
    x = _patches(tile, sizes['patch_size']) @ kernel.T + weights[f'{at}patch_embedding.bias']
    x = np.concatenate([weights[f'{at}class_embedding'][0], x])
    x = x + weights[f'{at}position_embedding'][0]
    for i in range(sizes['num_hidden_layers']):
        at = f'vision_model.encoder.layers.{i}.'
        q, k, v = tower.qkv(tower.norm(x, f'{at}norm1'), f'{at}attn.qkv', heads)
        y = tower.linear(attention(q, k, v, 0).reshape(len(x), width), f'{at}attn.proj')
        x = x + y * weights[f'{at}ls1']
        y = gelu(tower.linear(tower.norm(x, f'{at}norm2'), f'{at}mlp.fc1'))
        x = x + tower.linear(y, f'{at}mlp.fc2') * weights[f'{at}ls2']
    x = _pixel_shuffle(x[1:], width)
    # The merger's norm has PyTorch's default eps; the converter takes the tower's.
    x = tower.norm(x, 'mlp1.0')
    return tower.linear(gelu(tower.linear(x, 'mlp1.1')), 'mlp1.3').astype(np.float32)


def _pixel_shuffle(x: Array, width: int) -> Array:
    """Join 2x2 patches as InternVL's "v2" does: (patches, width) to (patches / 4, 4 width)."""
    grid = math.isqrt(len(x))
    half = grid // 2
    x = x.reshape(grid, half, 2 * width).transpose(1, 0, 2)
    return x.reshape(half, half, 4 * width).transpose(1, 0, 2).reshape(-1, 4 * width)


def qwen2vl_vision(
    config: Mapping[str, Any],
    weights: Weights,
    patches: Array,
    positions: NDArray[np.integer[Any]],
    groups: Sequence[int] = (),
) -> Array:
    """Return (patches / 4, width) of the language model.

    Args:
        config: config.json.
        weights: By the publisher's names.
        patches: (patches, 1176), in blocks of 2x2.
        positions: (patches, 2): row and column of each patch.
        groups: Patches of each temporal group, which see only each other; () = all are one.
    """
    sizes = config['vision_config']
    width, heads = sizes['embed_dim'], sizes['num_heads']
    tower = _Vision(weights, 1e-6)
    quarter = width // heads // 4
    inverse = 10000.0 ** -(np.arange(quarter) / quarter)
    angles = (positions[..., None] * inverse).reshape(len(patches), -1)
    angles = np.concatenate([angles, angles], -1)[:, None]
    turn = (np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32))
    group = np.repeat(np.arange(len(groups) or 1), groups or [len(patches)])
    mask = np.where(group[:, None] == group, 0, _HIDDEN).astype(np.float32)
    x = patches @ weights['visual.patch_embed.proj.weight'].reshape(width, -1).T
    for i in range(sizes['depth']):
        at = f'visual.blocks.{i}.'
        q, k, v = tower.qkv(tower.norm(x, f'{at}norm1'), f'{at}attn.qkv', heads)
        y = attention(rotate(q, turn), rotate(k, turn), v, mask).reshape(len(x), width)
        x = x + tower.linear(y, f'{at}attn.proj')
        y = tower.linear(tower.norm(x, f'{at}norm2'), f'{at}mlp.fc1')
        x = x + tower.linear(y / (1 + np.exp(-1.702 * y)), f'{at}mlp.fc2')
    x = tower.norm(x, 'visual.merger.ln_q').reshape(len(x) // 4, -1)
    y = gelu(tower.linear(x, 'visual.merger.mlp.0'))
    return tower.linear(y, 'visual.merger.mlp.2').astype(np.float32)


def mllama_vision(
    config: Mapping[str, Any],
    weights: Weights,
    tiles: Array,
    ratio: int,
    real: int,
) -> Array:
    """Return the states that cross-attention looks at, (tiles, rows, width).

    The states of inner layers that are joined to the last are taken before the layer of each
    index, as the converter and the first releases of the reference model do.

    Args:
        config: config.json.
        weights: By the publisher's names.
        tiles: (4, 3, px, px), normalised.
        ratio: Id of the aspect ratio, from 1.
        real: How many tiles are real.
    """
    sizes = config['vision_config']
    width, count = sizes['hidden_size'], sizes['max_num_tiles']
    tower = _Vision(weights, sizes['norm_eps'])
    at = 'vision_model.'
    kernel = weights[f'{at}patch_embedding.weight'].reshape(width, -1)
    x = np.stack([_patches(tile, sizes['patch_size']) @ kernel.T for tile in tiles])
    x = x + _tile_table(weights, f'{at}pre_tile_positional_embedding', ratio, count)
    first = np.broadcast_to(weights[f'{at}class_embedding'], (count, 1, width))
    x = np.concatenate([first, x], 1)
    rows = x.shape[1]
    x = x + _mllama_positions(weights, f'{at}gated_positional_embedding', ratio, x.shape)
    # Rows are filled up to a multiple of 8, and hidden is only a padded row from a padded row:
    # real rows do look at padding. So do the published model and its compiled forms.
    x = np.pad(tower.norm(x, f'{at}layernorm_pre'), ((0, 0), (0, -rows % 8), (0, 0)))
    padded = x.shape[1]
    is_real = (np.arange(count)[:, None] < real) & (np.arange(padded) < rows)
    mask = np.where(is_real.reshape(-1, 1) | is_real.reshape(-1), 0, _HIDDEN).astype(np.float32)
    x = x.reshape(count * padded, width)
    inner = []
    for i in range(sizes['num_hidden_layers']):
        if i in sizes['intermediate_layers_indices']:
            inner.append(x)
        x = _mllama_layer(tower, f'{at}transformer.layers.{i}.', x, mask, sizes)
    x = tower.norm(x, f'{at}layernorm_post').reshape(count, padded, width)
    x = x + _tile_table(weights, f'{at}post_tile_positional_embedding', ratio, count)
    x = x.reshape(count * padded, width)
    for i in range(sizes['num_global_layers']):
        x = _mllama_layer(tower, f'{at}global_transformer.layers.{i}.', x, mask, sizes)
    x = np.concatenate([x, *inner], -1).reshape(count, padded, -1)[:, :rows]
    return tower.linear(x, 'multi_modal_projector').astype(np.float32)


def _tile_table(weights: Weights, name: str, ratio: int, tiles: int) -> Array:
    """Return what is added to every row of each tile, (tiles, 1, width)."""
    gate = np.tanh(weights[f'{name}.gate'])
    return gate * weights[f'{name}.embedding.weight'][ratio].reshape(tiles, 1, -1)


def _mllama_positions(weights: Weights, name: str, ratio: int, shape: tuple[int, ...]) -> Array:
    gate = np.tanh(weights[f'{name}.gate'])
    tile = weights[f'{name}.tile_embedding.weight'][ratio].reshape(shape)
    return (1 - gate) * weights[f'{name}.embedding'] + gate * tile


def _mllama_layer(
    tower: _Vision, at: str, x: Array, mask: Array, sizes: Mapping[str, Any]
) -> Array:
    heads = sizes['attention_heads']
    gates = [np.float32(1), np.float32(1)]
    if f'{at}gate_attn' in tower.weights:
        gates = [np.tanh(tower.weights[f'{at}{g}'])[0] for g in ('gate_attn', 'gate_ffn')]
    y = tower.norm(x, f'{at}input_layernorm')
    q, k, v = (
        tower.linear(y, f'{at}self_attn.{n}_proj').reshape(len(x), heads, -1) for n in 'qkv'
    )
    y = attention(q, k, v, mask).reshape(x.shape)
    x = x + gates[0] * tower.linear(y, f'{at}self_attn.o_proj')
    y = gelu(tower.linear(tower.norm(x, f'{at}post_attention_layernorm'), f'{at}mlp.fc1'))
    return x + gates[1] * tower.linear(y, f'{at}mlp.fc2')


# -- sampling heads -----------------------------------------------------------------------------


@dataclass(frozen=True)
class SamplingParameters:
    """What both sampling heads take."""

    penalty: float = 1.0
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0


def sampling_head(
    logits: Array, ids: Sequence[int], parameters: SamplingParameters
) -> tuple[Array, NDArray[np.int64]]:
    """Return probabilities and ids of the 50 (or top_k) likeliest tokens.

    `ids` are penalised, each once. Of the rest of the candidates behind the first five, those are
    dropped at which the sum of the probabilities so far has reached top_p.
    """
    y = logits.astype(np.float32).copy()
    seen = np.unique(np.asarray(ids))
    y[seen] = np.where(y[seen] < 0, y[seen] * parameters.penalty, y[seen] / parameters.penalty)
    best = np.argsort(-y, kind='stable')[: parameters.top_k]
    y = y[best] / np.float32(parameters.temperature)
    keep = (np.cumsum(_softmax(y)) < parameters.top_p) | (np.arange(len(best)) < 5)
    return _softmax(np.where(keep, y, -1000).astype(np.float32)), best


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return np.asarray(e / e.sum(), np.float32)


def cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the cosine between two arrays of one size."""
    x, y = np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))
