"""The KV cache as every engine counts it: a number of tokens, and the ways back from there."""

from __future__ import annotations


class KvLength:
    """How many rows of the cache hold tokens. Rows after them are stale, and masked or cut off.

    Engines whose rows stay where they are need no more than this number; those that keep tensors
    or tokens of their own add them in a subclass. `GuardedEngine` alone counts rows in.

    Args:
        snapshots: Of a cache that cannot be cut (`EngineLimits.can_truncate`), how many snapshots
            it keeps; None = it can be cut anywhere, and needs none.
    """

    def __init__(self, snapshots: int | None = None) -> None:
        self._length = 0
        self._most = snapshots
        self._snapshots: set[int] = set()

    @property
    def length(self) -> int:
        """Tokens the cache holds."""
        return self._length

    def truncate(self, length: int) -> None:
        """Forget every token from `length` on; see `KVCache.truncate`.

        Raises:
            ValueError: `length` is negative or above the present length, or the cache cannot go
                back to it.
        """
        if not 0 <= length <= self._length:
            raise ValueError(f'cannot truncate {self._length} tokens to {length}')
        if self._most is not None and length not in {0, self._length, *self._snapshots}:
            kept = ', '.join(map(str, sorted(self._snapshots))) or 'none'
            raise ValueError(
                f'cannot go back from {self._length} tokens to {length}: this cache cannot be '
                f'cut, and its snapshots are of {kept}'
            )
        if self._most is not None and length < self._length:
            self._go_back(length)
        for later in [at for at in self._snapshots if at > length]:
            self.drop_snapshot(later)
        self._length = length

    def take_snapshot(self) -> None:
        """Have `truncate` go back to the present length; see `KVCache.take_snapshot`.

        Raises:
            ValueError: As many as there may be are kept.
        """
        if self._most is None or not self._length or self._length in self._snapshots:
            return
        if len(self._snapshots) >= self._most:
            raise ValueError(f'{self._most} snapshots are kept, as many as there may be')
        self._keep(self._length)
        self._snapshots.add(self._length)

    def drop_snapshot(self, length: int) -> None:
        """Give up the snapshot of a length, if there is one."""
        if length in self._snapshots:
            self._snapshots.remove(length)
            self._let_go(length)

    def grow(self, tokens: int) -> None:
        """Count rows that were written after the last one."""
        assert tokens >= 0, tokens
        self._length += tokens

    # --- what a cache with a state brings --------------------------------------------------------

    def _keep(self, length: int) -> None:
        """Copy the state as it is, after `length` tokens."""

    def _go_back(self, length: int) -> None:
        """Bring back the copy of a length, or the state before any token; the copy stays."""

    def _let_go(self, length: int) -> None:
        """Free the copy of a length."""
