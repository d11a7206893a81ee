"""Whether to ask something that has failed: not at once, then ever more seldom, until it answers.

No thread; the clock is passed in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge_vlm_ros.core import NS_PER_S

if TYPE_CHECKING:
    from edge_vlm_ros.core import Clock

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0


class Circuit:
    """Remembers the failures of something; the owner holds a lock.

    After each failure it is left alone, for twice as long as the last time. Then one may try it,
    and its answer closes the circuit.

    Args:
        clock: Steady time.
        first_s: The first pause.
        longest_s: No pause is longer.
    """

    def __init__(
        self, clock: Clock, first_s: float = FIRST_PAUSE_S, longest_s: float = LONGEST_PAUSE_S
    ) -> None:
        self._clock = clock
        self._first_s = first_s
        self._longest_s = longest_s
        self._pause_s = 0.0
        self._until_ns = 0
        self._is_tried = False
        self.why = ''
        """Why it failed last; '' = it answers."""

    def is_open(self) -> bool:
        """Return whether it is to be left alone now."""
        return bool(self.why) and self._clock.now_ns() < self._until_ns

    def fail(self, why: str) -> None:
        """Take note that it has failed.

        Args:
            why: For people; not empty.
        """
        if self.is_open() and not self._is_tried:
            return  # Asked before it was known; that it failed, too, is no news.
        self._is_tried = False
        self._pause_s = min(self._longest_s, max(self._first_s, 2 * self._pause_s))
        self._until_ns = self._clock.now_ns() + round(self._pause_s * NS_PER_S)
        self.why = why

    def try_one(self) -> None:
        """Let one question through while it has not answered yet; others wait as long again."""
        if self.why:
            self._is_tried = True
            self._until_ns = self._clock.now_ns() + round(self._pause_s * NS_PER_S)

    def succeed(self) -> None:
        """Take note that it answers."""
        self._pause_s, self._until_ns, self.why = 0.0, 0, ''
        self._is_tried = False
