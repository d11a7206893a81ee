"""Attention masks: additive, bfloat16 bit patterns, 0 = visible and -65536 = hidden.

Each shape group has one, made once; from run to run only what changed is written.

Source: AXERA-TECH/InternVL3-2B.axera and ax-llm (values and columns).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

VISIBLE = 0x0000
HIDDEN = 0xC780
"""-65536 as bfloat16."""


class Mask(Protocol):
    """The mask of one shape group, kept up to date.

    Attributes:
        bits: uint16, as the group takes it.
    """

    bits: NDArray[np.uint16]

    def update(self, held: int, tokens: int) -> range:
        """Set it for `tokens` tokens after `held` cached ones.

        Returns:
            The entries of `bits`, along its first axis, that were written.
        """
        ...


class PrefillMask:
    """The mask of one prefill group: uint16, (chunk, history + chunk).

    Columns [0, history) are cache rows, the others the chunk itself. Row i < tokens sees cache
    rows [0, held) and the chunk up to itself; rows from `tokens` on see nothing, which makes
    their attention uniform and their results worthless, as they must be.

    Args:
        chunk: Tokens of one run.
        history: Cache rows that the group takes.
    """

    def __init__(self, chunk: int, history: int) -> None:
        self.bits: NDArray[np.uint16] = np.full((chunk, history + chunk), HIDDEN, np.uint16)
        causal = np.tri(chunk, dtype=np.bool_)
        self._causal = np.where(causal, VISIBLE, HIDDEN).astype(np.uint16)
        self._chunk, self._history = chunk, history
        self._held = 0
        self._tokens = 0

    def update(self, held: int, tokens: int) -> range:
        """Set it for `tokens` tokens after `held` cached ones.

        Returns:
            The rows of `bits` that were written.
        """
        assert 0 <= held <= self._history, (held, self._history)
        assert 1 <= tokens <= self._chunk, (tokens, self._chunk)
        if held != self._held:
            first, last = 0, max(tokens, self._tokens)
            self._show_cache(min(tokens, self._tokens), held)
        else:
            first, last = sorted((tokens, self._tokens))
        if tokens > self._tokens:
            grown = slice(self._tokens, tokens)
            self.bits[grown, :held] = VISIBLE
            self.bits[grown, self._history :] = self._causal[grown]
        else:
            self.bits[tokens : self._tokens] = HIDDEN
        self._held, self._tokens = held, tokens
        return range(first, last)

    def _show_cache(self, rows: int, held: int) -> None:
        low, high = sorted((held, self._held))
        self.bits[:rows, low:high] = VISIBLE if held > self._held else HIDDEN


class DecodeMask:
    """The mask of one decode group: uint16, (capacity + 1,).

    Column r < capacity is cache row r, the last column the token itself, which its own step sees
    only there.

    Args:
        capacity: Cache rows that the group takes.
    """

    def __init__(self, capacity: int) -> None:
        self.bits: NDArray[np.uint16] = np.full(capacity + 1, HIDDEN, np.uint16)
        self.bits[capacity] = VISIBLE
        self._held = 0

    def update(self, held: int, tokens: int = 1) -> range:
        """Set it for one token whose K and V go to cache row `held`: rows [0, held) are visible.

        Returns:
            The columns of `bits` that were written.
        """
        assert 0 <= held < len(self.bits) - 1, (held, len(self.bits))
        assert tokens == 1, tokens
        low, high = sorted((held, self._held))
        self.bits[low:high] = VISIBLE if held > self._held else HIDDEN
        self._held = held
        return range(low, high)
