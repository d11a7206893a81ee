"""The sampling heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from support.sophgo.reference.arithmetic import Array


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

    `ids` are penalised, each once. Of the rest of the candidates after the first five, those are
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
