"""Choose the next token from logits, on the host.

Cost is what shapes this file: 151 thousand logits come with every token, and sorting them, or
even weighing them all, costs more than everything else together. So the whole vocabulary is read
three times at most, by the cheapest passes there are: the maxima of columns of it, which show how
high the candidates are and how little all others can weigh together; a comparison; and where the
candidates are. Only those are weighed, in float64. Where the others might weigh too much after all
(a model that knows nothing), everything is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import DeviceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_vlm_ros.core import SamplingOptions

_Floats: TypeAlias = 'NDArray[np.float32] | NDArray[np.float64]'
_Logits: TypeAlias = 'NDArray[np.floating]'
_Ids: TypeAlias = NDArray[np.intp]

_REACH = 16.0
"""How far below the best token candidates of top-p are looked for, in logits over temperature."""

_MOST_DOUBT = 0.01
"""Where all others may weigh more than this (the best token weighs 1), all are weighed at once."""

_HEAVY = 6e-6
"""Where all were weighed: those above are mostly enough, the best one weighing 1."""

_ROWS = 64
"""Logits of a column. Fewer columns make the maxima dearer, more columns the steps after them."""

_BINS = 4096
_FEW = 512
"""Up to this many candidates, sorting is quicker than filling bins."""

_BLOCK = 512


class TokenSampler:
    """Choose tokens as `SamplingOptions` say: temperature, then top-k, then top-p of what is left.

    Before all that comes the repetition penalty, on tokens that the answer has already. The prompt
    does not count, unlike with transformers: there an answer avoids the words of its question, and
    where a conversation has turns already, the token that ends one.
    Source: Keskar et al. 2019, CTRL, section 4.1; transformers, RepetitionPenaltyLogitsProcessor.

    Among equal logits the lowest id counts as the higher. The same options and logits give the
    same tokens. Use from one thread at a time.

    Args:
        options: How to choose; `max_tokens` is `StopRule`'s.
    """

    def __init__(self, options: SamplingOptions) -> None:
        self._options = options
        self._generator = np.random.default_rng(options.seed % 2**64)
        self._scratch = np.empty(0, np.float32)

    def choose(self, logits: _Logits, seen: Sequence[int] = ()) -> int:
        """Return the id of the next token.

        Args:
            logits: Any float type, (vocabulary,); left unchanged.
            seen: The answer's tokens so far, for the repetition penalty.

        Raises:
            DeviceError: The logits hold NaN or +inf, or nothing but -inf: the device computed
                nonsense.
        """
        if seen and self._options.repetition_penalty != 1:
            logits = _penalised(logits, seen, self._options.repetition_penalty)
        if self._options.is_greedy:
            best = int(np.argmax(logits))  # the first NaN, if there is one
            _check(logits, float(logits[best]))
            return best
        columns = _column_maxima(logits)
        top = float(columns.max())  # NaN, if there is one
        _check(logits, top)
        with np.errstate(over='ignore'):  # Tokens ruled out with -3e38 become -inf when scaled.
            return self._draw(logits, columns, top)

    def _draw(self, logits: _Logits, columns: _Logits, top: float) -> int:
        options = self._options
        draw = float(self._generator.random())
        if 0 < options.top_k < logits.size:
            ids = _largest(logits, columns, options.top_k)
            weights = _weigh(logits[ids], top, options.temperature)
            if options.top_p < 1.0:
                kept = _fewest(logits[ids], weights, options.top_p * float(weights.sum()))
                ids, weights = ids[kept], weights[kept]
            return int(ids[_pick(weights, draw)])
        if options.top_p == 1.0:
            return _pick(self._weigh_all(logits, top), draw)
        kept_ids, kept_weights = self._nucleus(logits, columns, top)
        return int(kept_ids[_pick(kept_weights, draw)])

    def _nucleus(self, logits: _Logits, columns: _Logits, top: float) -> tuple[_Ids, _Floats]:
        """Return the fewest ids, rising, that hold `top_p` of all weight, and their weights.

        They are those of the largest logits.
        """
        temperature, top_p = self._options.temperature, self._options.top_p
        lowest = float(logits.dtype.type(top - _REACH * temperature))
        others = _most_below(columns, lowest, top, temperature)
        if others < _MOST_DOUBT:
            ids = _at_least(logits, columns, lowest)
            weights = _weigh(logits[ids], top, temperature)
            total = float(weights.sum())
            kept = _fewest(logits[ids], weights, top_p * total)
            if weights[kept].sum() >= top_p * (total + others):
                return ids[kept], weights[kept]
        all_weights = self._weigh_all(logits, top)
        wanted = top_p * float(all_weights.sum(dtype=np.float64))
        ids = np.flatnonzero(all_weights > _HEAVY)
        if all_weights[ids].sum(dtype=np.float64) < wanted:
            ids = np.arange(logits.size)
        kept = _fewest(logits[ids], all_weights[ids], wanted)
        return ids[kept], all_weights[ids[kept]]

    def _weigh_all(self, logits: _Logits, top: float) -> NDArray[np.float32]:
        """Weigh the whole vocabulary, in memory kept between tokens: fresh memory costs more."""
        if self._scratch.size != logits.size:
            self._scratch = np.empty(logits.size, np.float32)
        weights = self._scratch
        np.subtract(logits, top, out=weights, dtype=np.float32, casting='same_kind')
        np.divide(weights, self._options.temperature, out=weights)
        return np.exp(weights, out=weights)


def _penalised(logits: _Logits, seen: Sequence[int], penalty: float) -> _Logits:
    ids = np.unique(np.fromiter(seen, np.intp, len(seen)))
    changed: _Logits = logits.copy()
    with np.errstate(over='ignore'):  # -3e38 becomes -inf.
        changed[ids] = np.where(logits[ids] > 0, logits[ids] / penalty, logits[ids] * penalty)
    return changed


def check_logits(logits: _Logits) -> None:
    """Refuse scores that cannot be compared.

    Raises:
        DeviceError: They hold NaN or +inf, or nothing but -inf: the device computed nonsense.
    """
    _check(logits, float(logits.max()))


def _check(logits: _Logits, top: float) -> None:
    if not np.isfinite(top):
        found = f'the best of {logits.size} logits is {top}, at token {int(np.argmax(logits))}'
        raise DeviceError(f'{found}: the device computed nonsense')


def _weigh(logits: _Logits, top: float, temperature: float) -> NDArray[np.float64]:
    """Return softmax weights, not normalised: that of `top` is 1, so exp never overflows."""
    scaled: NDArray[np.float64] = (logits.astype(np.float64) - top) / temperature
    return np.exp(scaled)


def _column_maxima(logits: _Logits) -> _Logits:
    """Return the maxima of many small groups of at most `_ROWS` that together are all logits.

    The logits of a group stand far apart, so that numpy compares whole rows at once.
    """
    width = logits.size // _ROWS
    if not width:
        return logits
    maxima: _Logits = logits[: width * _ROWS].reshape(_ROWS, width).max(axis=0)
    return np.concatenate([maxima, logits[width * _ROWS :]])


def _most_below(columns: _Logits, lowest: float, top: float, temperature: float) -> float:
    """Return a weight that all logits below `lowest` together do not exceed.

    None of a column weighs more than its largest, nor more than `lowest` does.
    """
    weights = np.exp(
        np.minimum(columns, lowest).astype(np.float32) / temperature - top / temperature
    )
    return 1.001 * _ROWS * float(weights.sum())


def _largest(logits: _Logits, columns: _Logits, count: int) -> _Ids:
    """Return the ids of the `count` largest logits, rising; of equal ones the lowest ids.

    As many columns as are wanted reach the `count`-th largest maximum, so as many logits do.
    """
    if count <= columns.size:
        ids = _at_least(logits, columns, _nth_largest(columns, count))
    else:
        ids = np.arange(logits.size)
    found = logits[ids]
    least = _nth_largest(found, count)
    above = ids[found > least]
    equal = ids[found == least][: count - above.size]
    return np.sort(np.concatenate([above, equal]))


def _at_least(logits: _Logits, columns: _Logits, lowest: float) -> _Ids:
    """Return the ids, rising, of the logits that are `lowest` or above."""
    width = logits.size // _ROWS
    high = np.flatnonzero(columns >= lowest)
    if not width or high.size > _FEW:
        return np.flatnonzero(logits >= lowest)
    whole, rest = high[high < width], high[high >= width]
    ids = (np.arange(0, width * _ROWS, width)[:, None] + whole).ravel()
    ids = np.sort(ids[logits[ids] >= lowest])
    return np.concatenate([ids, rest + (_ROWS - 1) * width])


def _nth_largest(values: _Logits, count: int) -> float:
    place = values.size - count
    return float(np.partition(values, place)[place])


def _fewest(logits: _Logits, weights: _Floats, wanted: float) -> _Ids:
    """Return the indices, rising, of the largest logits whose weights reach `wanted`.

    Many are not sorted but laid into bins; only the bin in which the sum passes `wanted` has to
    be sorted, and that by the logits themselves: scaling may round two of them to one.
    """
    if logits.size <= _FEW:
        order = np.argsort(-logits, kind='stable')
        reached = np.cumsum(weights[order], dtype=np.float64)
        return np.sort(order[: int(np.searchsorted(reached, wanted)) + 1])
    # What weighs nothing may be -inf, or far below all else: it shares the last bin.
    weighing = logits if weights.min() > 0 else logits[weights > 0]
    high, low = float(weighing.max()), float(weighing.min())
    scale = np.float32((_BINS - 1) / max(high - low, 1e-30))
    bins = np.minimum((np.float32(high) - logits) * scale, np.float32(_BINS - 1)).astype(np.intp)
    sums = np.cumsum(np.bincount(bins, weights=weights))
    edge = min(int(np.searchsorted(sums, wanted)), sums.size - 1)
    is_taken = bins < edge
    doubtful = np.flatnonzero(bins == edge)
    doubtful = doubtful[np.argsort(-logits[doubtful], kind='stable')]
    reached = np.cumsum(weights[doubtful], dtype=np.float64) + (sums[edge - 1] if edge else 0.0)
    is_taken[doubtful[: int(np.searchsorted(reached, wanted)) + 1]] = True
    return np.flatnonzero(is_taken)


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
