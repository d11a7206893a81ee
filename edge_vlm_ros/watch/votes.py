"""N of the last M looks: what keeps an answer that flickers from being an event."""

from __future__ import annotations

from collections import deque


class Votes:
    """The answers of the last looks, since the event began or ended.

    Args:
        begin: (looks, of): so many of the last so many mean that the event begins.
        end: Likewise that it ends.
    """

    def __init__(self, begin: tuple[int, int], end: tuple[int, int]) -> None:
        self._begin = begin
        self._end = end
        self._votes: deque[bool] = deque(maxlen=max(begin[1], end[1]))

    def add(self, *, means_event: bool) -> None:
        """Take note of a look."""
        self._votes.append(means_event)

    def clear(self) -> None:
        """Forget all: it has begun or ended, or nobody saw what came between."""
        self._votes.clear()

    @property
    def say_begin(self) -> bool:
        """Whether the looks say that the event begins."""
        looks, of = self._begin
        return sum(list(self._votes)[-of:]) >= looks

    @property
    def say_end(self) -> bool:
        """Whether the looks say that the event ends."""
        looks, of = self._end
        last = list(self._votes)[-of:]
        return len(last) - sum(last) >= looks
