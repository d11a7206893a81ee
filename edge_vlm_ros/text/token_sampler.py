"""Choose the next token from logits, on the host.

Cost is what shapes this file: 151 thousand logits come with every token, and sorting them costs
more than all else together. So whole-vocabulary work is a few vectorised passes (maximum, exp,
sums by bin), and only a few tokens are ever sorted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import DeviceError

if TYPE_CHECKING:
    from edge_vlm_ros.core import SamplingOptions

_Floats: TypeAlias = 'NDArray[np.float32] | NDArray[np.float64]'
_Logits: TypeAlias = 'NDArray[np.floating]'
_Ids: TypeAlias = NDArray[np.intp]

_COLDEST = 1e-6
"""Temperatures below are greedy: there, a logit 1e-4 under the best stands at e^-100."""

_REACHES = (4.0, 12.0)
"""How far below the best token is looked, in logits over temperature, before looking at all."""

_BINS_PER_UNIT = 64.0
_BINS = 4096
"""Top-p's bins: a token more than 64 below the best one is in the last."""

_BLOCK = 512


class TokenSampler:
    """Choose tokens as `SamplingOptions` say: temperature, then top-k, then top-p of what is left.

    Among equal logits the lowest id counts as the higher. The same options and logits give the
    same tokens. Use from one thread at a time.

    Args:
        options: How to choose; `max_tokens` is `StopRule`'s.
    """

    def __init__(self, options: SamplingOptions) -> None:
        self._options = options
        self._generator = np.random.default_rng(options.seed % 2**64)
        self._scratch = np.empty((2, 0), np.float32)

    def choose(self, logits: _Logits) -> int:
        """Return the id of the next token.

        Args:
            logits: Any float type, (vocabulary,); left unchanged.

        Raises:
            DeviceError: The logits hold NaN or +inf, or nothing but -inf: the device computed
                nonsense.
        """
        best = int(np.argmax(logits))  # the first NaN, if there is one
        top = float(logits[best])
        if not np.isfinite(top):
            found = f'the best of {logits.size} logits is {top}, at token {best}'
            raise DeviceError(f'{found}: the device computed nonsense')
        temperature = self._options.temperature
        if temperature < _COLDEST:
            return best
        scaled, weights = self._scratch_for(logits.size)
        # Scaled so that the best token stands at 0: below, exp never overflows.
        np.subtract(logits, top, out=scaled, dtype=np.float32, casting='same_kind')
        np.divide(scaled, temperature, out=scaled)
        draw = float(self._generator.random())
        top_k, top_p = self._options.top_k, self._options.top_p
        if 0 < top_k < logits.size:
            ids = _largest(logits, scaled, top_k)
            kept_weights = np.exp(scaled[ids].astype(np.float64))
            if top_p < 1.0:
                wanted = top_p * float(kept_weights.sum())
                kept = _fewest(logits[ids], scaled[ids], kept_weights, wanted)
                ids, kept_weights = ids[kept], kept_weights[kept]
            return int(ids[_pick(kept_weights, draw)])
        np.exp(scaled, out=weights)
        if top_p < 1.0:
            ids = _nucleus(logits, scaled, weights, top_p)
            return int(ids[_pick(weights[ids], draw)])
        return _pick(weights, draw)

    def _scratch_for(self, size: int) -> NDArray[np.float32]:
        """Return two rows to work in, kept between tokens: fresh memory costs more than work."""
        if self._scratch.shape[1] != size:
            self._scratch = np.empty((2, size), np.float32)
        return self._scratch


def _nucleus(logits: _Logits, scaled: _Floats, weights: _Floats, top_p: float) -> _Ids:
    """Return the fewest ids, rising, that hold `top_p` of all weight, largest logits first."""
    wanted = top_p * float(weights.sum(dtype=np.float64))
    near = np.flatnonzero(scaled > -_REACHES[-1])
    if weights[near].sum(dtype=np.float64) < wanted:
        near = np.arange(scaled.size)
    return near[_fewest(logits[near], scaled[near], weights[near], wanted)]


def _fewest(logits: _Logits, scaled: _Floats, weights: _Floats, wanted: float) -> _Ids:
    """Return the indices, rising, of the largest logits whose weights reach `wanted`.

    They are not sorted but laid into bins; only the bin in which the sum passes `wanted` has to be
    sorted, and that by the logits themselves: scaling may round two of them to one.
    """
    bins = np.minimum(scaled * np.float32(-_BINS_PER_UNIT), np.float32(_BINS - 1)).astype(np.intp)
    sums = np.cumsum(np.bincount(bins, weights=weights))
    edge = min(int(np.searchsorted(sums, wanted)), sums.size - 1)
    is_taken = bins < edge
    doubtful = np.flatnonzero(bins == edge)
    doubtful = doubtful[np.argsort(-logits[doubtful], kind='stable')]
    reached = np.cumsum(weights[doubtful], dtype=np.float64) + (sums[edge - 1] if edge else 0.0)
    is_taken[doubtful[: int(np.searchsorted(reached, wanted)) + 1]] = True
    return np.flatnonzero(is_taken)


def _largest(logits: _Logits, scaled: _Floats, count: int) -> _Ids:
    """Return the ids of the `count` largest logits, rising; of equal ones the lowest ids.

    Selecting from the whole vocabulary costs a millisecond, so what stands near the top is looked
    at first.
    """
    ids: _Ids = np.arange(logits.size)
    for reach in _REACHES:
        near = np.flatnonzero(scaled > -reach)
        if near.size >= count:
            ids = near
            break
    found = logits[ids]
    least = np.partition(found, found.size - count)[found.size - count]
    above = ids[found > least]
    equal = ids[found == least][: count - above.size]
    return np.sort(np.concatenate([above, equal]))


def _pick(weights: _Floats, draw: float) -> int:
    """Return the index at which the running sum of weights passes `draw` (0 to 1) of the whole.

    Summed by blocks, so that only one block needs its running sum.
    """
    starts = np.arange(0, weights.size, _BLOCK)
    running = np.cumsum(np.add.reduceat(weights, starts, dtype=np.float64))
    passed = draw * running[-1]
    block = min(int(np.searchsorted(running, passed, side='right')), starts.size - 1)
    before = running[block - 1] if block else 0.0
    inside = weights[starts[block] : starts[block] + _BLOCK]
    sums = before + np.cumsum(inside, dtype=np.float64)
    index = int(np.searchsorted(sums, passed, side='right'))
    if index == inside.size:  # rounding: the draw fell on the block's very end
        index = int(np.flatnonzero(inside)[-1])
    return int(starts[block]) + index
