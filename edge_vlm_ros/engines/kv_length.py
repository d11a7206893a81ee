"""The KV cache as every engine counts it: a number of tokens."""

from __future__ import annotations


class KvLength:
    """How many rows of the cache hold tokens. Rows after them are stale, and masked or cut off.

    Engines whose rows stay where they are need no more than this number; those that keep tensors
    or tokens of their own add them in a subclass. `GuardedEngine` alone counts rows in.
    """

    def __init__(self) -> None:
        self._length = 0

    @property
    def length(self) -> int:
        """Tokens the cache holds."""
        return self._length

    def truncate(self, length: int) -> None:
        """Forget every token from `length` on. Nothing is copied or cleared on the chip.

        Raises:
            ValueError: `length` is negative or above the present length.
        """
        if not 0 <= length <= self._length:
            raise ValueError(f'cannot truncate {self._length} tokens to {length}')
        self._length = length

    def grow(self, tokens: int) -> None:
        """Count rows that were written after the last one."""
        assert tokens >= 0, tokens
        self._length += tokens
