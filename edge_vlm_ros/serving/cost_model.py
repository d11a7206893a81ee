"""What an answer is going to cost on this chip, from what its work has cost so far."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST_SAMPLES = 64


@dataclass(slots=True)
class CostModel:
    """Milliseconds of each kind of work, measured; the newest measurements count.

    A piece of a prefill costs something for being run, something for each of its tokens, and
    something for each token that it attends to: three numbers, fitted to the pieces that were run.

    Attributes:
        encode_ms: One run of the vision tower, of the size at start-up.
        decode_ms: One answer token, its choice included.
    """

    encode_ms: float = 0.0
    decode_ms: float = 0.0
    _samples: deque[tuple[int, int, float]] = field(
        default_factory=lambda: deque(maxlen=_MOST_SAMPLES)
    )

    def note_prefill(self, tokens: int, held: int, milliseconds: float) -> None:
        """Take note of a piece that was run.

        Args:
            tokens: In it.
            held: In the KV cache before it.
            milliseconds: What it took.
        """
        self._samples.append((tokens, held, milliseconds))

    def prefill_ms(self, pieces: Iterable[int], held: int) -> float:
        """Return what pieces are expected to cost, milliseconds.

        Args:
            pieces: Tokens of each, in order.
            held: Tokens in the KV cache before the first.
        """
        sizes = tuple(pieces)
        if not sizes or not self._samples:
            return 0.0
        base, per_token, per_held = self._fit()
        starts = accumulate(sizes, initial=held)
        return sum(
            base + per_token * size + per_held * start
            for size, start in zip(sizes, starts, strict=False)
        )

    def _fit(self) -> tuple[float, float, float]:
        """Fit the three numbers; none of them is below 0, for no work gives time back."""
        samples = np.asarray(self._samples, dtype=np.float64)
        terms = np.column_stack([np.ones(len(samples)), samples[:, 0], samples[:, 1]])
        kept = [0, 1, 2]
        while kept:
            found = np.linalg.lstsq(terms[:, kept], samples[:, 2], rcond=None)[0]
            lowest = int(found.argmin())
            if found[lowest] >= 0:
                whole = np.zeros(3)
                whole[kept] = found
                return float(whole[0]), float(whole[1]), float(whole[2])
            del kept[lowest]
        return 0.0, 0.0, 0.0
