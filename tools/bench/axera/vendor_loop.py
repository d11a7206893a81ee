"""An axmodel set driven as the vendor's Python demo drives it: what our engine is held against.

Whole caches in host memory go through `InferenceSession.run` for every layer and token, masks are
built row by row for every chunk, one image after the other is encoded. Its faults that change
answers (an empty chunk at multiples of the chunk length) are left out: only the cost is compared.

Source of the shape of the loop: AXERA-TECH/InternVL3-2B.axera, described in the model's README.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import axengine
import ml_dtypes
import numpy as np
from numpy.typing import NDArray

_HIDDEN_MASK = -65536
_BF16 = ml_dtypes.bfloat16


class VendorLoop:
    """One model, every question from empty caches.

    Args:
        weights: By part, as `ModelFiles.weights`.
    """

    def __init__(self, weights: Mapping[str, Path]) -> None:
        layers = sum(part.startswith('layers.') for part in weights)
        self._layers = [_session(weights[f'layers.{i}']) for i in range(layers)]
        self._post = _session(weights['post'])
        self._vision = _session(weights['vision_encoder'])
        self._table = np.load(weights['embed_tokens'], mmap_mode='r')
        shapes = {node.name: node.shape for node in self._layers[0].get_inputs(0)}
        _, self._capacity, self._width = shapes['K_cache']
        self._hidden = shapes['input'][-1]
        self._chunk = self._layers[0].get_inputs(1)[2].shape[-1]
        self._position = 0
        self._reset()

    def first_token(self, tokens: Sequence[int], images: Sequence[NDArray[np.float32]]) -> int:
        """Encode the images, prefill, choose the first token.

        Args:
            tokens: The whole prompt; the images' placeholders stand at its beginning.
            images: float32, (1, 3, px, px) each.
        """
        self._reset()
        features = [self._vision.run(None, {'image': image})[0] for image in images]
        embeds = np.take(self._table, tokens, axis=0).astype(_BF16)
        row = 0
        for feature in features:
            embeds[row : row + feature.shape[1]] = feature[0]
            row += feature.shape[1]
        state = embeds[:0]
        for start in range(0, len(tokens), self._chunk):
            state = self._prefill(embeds[start : start + self._chunk], start)
        self._position = len(tokens)
        self._mask = np.full((1, 1, self._capacity + 1), _HIDDEN_MASK, _BF16)
        self._mask[:, :, : self._position] = 0
        self._mask[:, :, -1] = 0
        return self._choose(state[-1])

    def next_token(self, token: int) -> int:
        """Run one decode step and choose the next token."""
        position = self._position
        state = self._table[token].astype(_BF16).reshape(1, 1, -1)
        indices = np.array([[position]], np.uint32)
        for number, layer in enumerate(self._layers):
            feed = {
                'K_cache': self._keys[number],
                'V_cache': self._values[number],
                'indices': indices,
                'input': state,
                'mask': self._mask,
            }
            key, value, state = layer.run(None, feed, shape_group=0)
            self._keys[number][:, position] = key[:, 0]
            self._values[number][:, position] = value[:, 0]
        self._mask[..., position] = 0
        self._position += 1
        return self._choose(state[0, 0])

    def _reset(self) -> None:
        shape = (1, self._capacity, self._width)
        self._keys = [np.zeros(shape, _BF16) for _ in self._layers]
        self._values = [np.zeros(shape, _BF16) for _ in self._layers]

    def _prefill(self, embeds: NDArray[Any], start: int) -> NDArray[Any]:
        """Run one chunk through all layers; return the valid rows of the last hidden state."""
        count, chunk = len(embeds), self._chunk
        state = np.zeros((1, chunk, self._hidden), _BF16)
        state[:, :count] = embeds
        mask = np.full((1, chunk, start + chunk), _HIDDEN_MASK, _BF16)
        for i in range(count):
            mask[:, i, : start + i + 1] = 0
        indices = np.array([[start + i for i in range(chunk)]], np.uint32)
        for number, layer in enumerate(self._layers):
            feed = {
                'K_cache': self._history(self._keys[number], start),
                'V_cache': self._history(self._values[number], start),
                'indices': indices,
                'input': state,
                'mask': mask,
            }
            keys, values, state = layer.run(None, feed, shape_group=start // chunk + 1)
            self._keys[number][:, start : start + count] = keys[:, :count]
            self._values[number][:, start : start + count] = values[:, :count]
        return np.asarray(state[0, :count])

    def _history(self, cache: NDArray[Any], rows: int) -> NDArray[Any]:
        if not rows:
            return np.zeros((1, 1, self._hidden), _BF16)
        return cache[:, :rows]

    def _choose(self, state: NDArray[Any]) -> int:
        (logits,) = self._post.run(None, {'input': state.reshape(1, 1, -1)})
        scores = logits.astype(np.float32).reshape(-1)
        best = np.argpartition(scores, -1)[-1:]
        return int(best[np.argmax(scores[best])])


def _session(path: Path) -> Any:
    return axengine.InferenceSession(str(path))
