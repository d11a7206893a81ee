"""What the parts of the reference compute with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
"""float32."""
Weights: TypeAlias = Mapping[str, Array]


def rotate(x: Array, turn: tuple[Array, Array]) -> Array:
    """Rotate halves of each head, (tokens, heads, head)."""
    cos, sin = turn
    first, second = np.split(x, 2, -1)
    rotated: Array = x * cos + np.concatenate([-second, first], -1) * sin
    return rotated


def attention(q: Array, k: Array, v: Array, mask: Array | float) -> Array:
    """Return softmax(q k / sqrt(head) + mask) v for (tokens, heads, head)."""
    scores = np.einsum('qhd,khd->hqk', q, k) / math.sqrt(q.shape[-1]) + mask
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    scores /= scores.sum(-1, keepdims=True)
    mixed: Array = np.einsum('hqk,khd->qhd', scores, v)
    return mixed.astype(np.float32)


def gelu(x: Array) -> Array:
    """Return the exact GELU."""
    result: Array = 0.5 * x * (1 + _erf(x / math.sqrt(2)))
    return result.astype(np.float32)


def tanh_gelu(x: Array) -> Array:
    """Return the GELU by way of tanh."""
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return np.asarray(0.5 * x * (1 + np.tanh(inner)), np.float32)


_erf = np.vectorize(math.erf, otypes=[np.float32])


def cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the cosine between two arrays of one size."""
    x, y = np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))
