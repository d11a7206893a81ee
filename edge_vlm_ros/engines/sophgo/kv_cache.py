"""The KV cache's length; its rows stay on the chip."""

from __future__ import annotations


class SophgoKvCache:
    """Counts the rows that hold tokens. Rows behind them are hidden by the masks."""

    def __init__(self) -> None:
        self._length = 0

    @property
    def length(self) -> int:
        """Tokens the cache holds."""
        return self._length

    def truncate(self, length: int) -> None:
        """Forget every token from `length` on. Nothing is copied or cleared.

        Raises:
            ValueError: `length` is negative or above the present length.
        """
        if not 0 <= length <= self._length:
            raise ValueError(f'cannot truncate {self._length} tokens to {length}')
        self._length = length

    def grow(self, length: int) -> None:
        """Note that rows up to `length` hold tokens now."""
        assert length >= self._length
        self._length = length
