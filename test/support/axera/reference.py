"""The float reference: full attention over the whole sequence, in float64, without a cache.

Shares no formula with `layers`: heads are looped over, masked scores are left out instead of
added to, rotations are complex numbers. What an engine makes of chunks, caches, masks and
positions must come out as this does, but for the rounding to bfloat16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import PromptPart
from support.axera.weights import Weights

Matrix = NDArray[np.float64]


class Reference:
    """One model in float64."""

    def __init__(self, weights: Weights) -> None:
        self._sizes = weights.sizes
        self._vision = weights.vision
        self._table = weights.table.astype(np.float64)
        self._norm = weights.norm.astype(np.float64)
        self._head = weights.head.astype(np.float64)
        self._layers = [
            {name: np.asarray(array, np.float64) for name, array in layer.items()}
            for layer in weights.layers
        ]

    def see(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Encode (1, 3, px, px) into (rows, hidden), by ONNX Runtime."""
        (found,) = self._tower.run(None, {self._tower.get_inputs()[0].name: pixels})
        rows: NDArray[np.float32] = found[0]
        return rows

    @cached_property
    def _tower(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(
            self._vision, options, providers=['CPUExecutionProvider']
        )

    def embed(self, part: PromptPart, features: Mapping[int, NDArray[Any]]) -> Matrix:
        """Look up a prompt's words and put the images' rows, by image, over the placeholders."""
        rows: Matrix = self._table[part.tokens].copy()
        for span in part.spans:
            image = features[span.image].astype(np.float64)
            rows[span.start : span.stop] = image[span.first_row : span.first_row + len(span)]
        return rows

    def logits(self, embeds: Matrix, last: int = 0) -> Matrix:
        """Score the next token after each of the last `last` rows (0 = all)."""
        hidden = embeds
        for layer in self._layers:
            hidden = self._run_layer(layer, hidden)
        normed = self._rms_norm(hidden[-last:], self._norm)
        scores: Matrix = normed @ self._head.T
        return scores

    def scores(
        self, part: PromptPart, features: Mapping[int, NDArray[Any]], tokens: Sequence[int]
    ) -> Matrix:
        """Score what could follow a prompt and each answer token but the last: (tokens, vocab)."""
        said = np.asarray(tokens, np.int64)
        embeds = np.concatenate([self.embed(part, features), self._table[said[:-1]]])
        return self.logits(embeds, last=len(said))

    def _run_layer(self, layer: Mapping[str, Matrix], hidden: Matrix) -> Matrix:
        sizes = self._sizes
        normed = self._rms_norm(hidden, layer['norm_1'])
        queries = self._turned(self._project(layer, 'q', normed), sizes.heads, layer.get('q_norm'))
        keys = self._turned(self._project(layer, 'k', normed), sizes.kv_heads, layer.get('k_norm'))
        values = np.split(self._project(layer, 'v', normed), sizes.kv_heads, axis=1)
        share = sizes.heads // sizes.kv_heads
        mixed = [
            _look_back(query, keys[head // share], values[head // share])
            for head, query in enumerate(queries)
        ]
        hidden = hidden + self._project(layer, 'o', np.concatenate(mixed, axis=1))
        normed = self._rms_norm(hidden, layer['norm_2'])
        gate = self._project(layer, 'gate', normed)
        opened = gate * (0.5 * (1 + np.tanh(gate / 2)))
        return hidden + self._project(layer, 'down', opened * self._project(layer, 'up', normed))

    def _turned(self, value: Matrix, heads: int, scale: Matrix | None) -> list[Matrix]:
        """Cut into heads, norm and rotate each by its row's number: pairs as complex numbers."""
        width = value.shape[1] // heads
        speeds = self._sizes.theta ** (-np.arange(0, width, 2) / width)
        turns = np.exp(1j * np.outer(np.arange(len(value)), speeds))
        found = []
        for cut in np.split(value, heads, axis=1):
            head = cut if scale is None else self._rms_norm(cut, scale)
            pairs = (head[:, : width // 2] + 1j * head[:, width // 2 :]) * turns
            found.append(np.concatenate([pairs.real, pairs.imag], axis=1))
        return found

    def _rms_norm(self, value: Matrix, scale: Matrix) -> Matrix:
        size = np.linalg.norm(value, axis=-1, keepdims=True) ** 2 / value.shape[-1]
        normed: Matrix = value * scale / np.sqrt(size + self._sizes.epsilon)
        return normed

    @staticmethod
    def _project(layer: Mapping[str, Matrix], part: str, value: Matrix) -> Matrix:
        product: Matrix = value @ layer[f'{part}_weight'].T
        return product + layer[f'{part}_bias'] if f'{part}_bias' in layer else product


def _look_back(query: Matrix, key: Matrix, value: Matrix) -> Matrix:
    """Attend each row to itself and those before it."""
    scores = query @ key.T / np.sqrt(query.shape[1])
    seen = np.tril(np.ones_like(scores, dtype=bool))
    scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    mixed: Matrix = (weights / weights.sum(axis=1, keepdims=True)) @ value
    return mixed
