"""The KV cache as the engines that never move it see it: a number."""

from __future__ import annotations


class KvLength:
    """How many rows of the cache hold tokens. What lies behind them is stale, and masked."""

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

    def grow(self, tokens: int) -> None:
        """Count rows that were written behind the last one."""
        assert tokens >= 0, tokens
        self._length += tokens
