"""Answers that repeat themselves without end.

A language model can fall into a loop, above all one of few bits: the same word, clause or line
over and over until max_tokens. A chip whose scores are NaN says token 0 (`!` in many vocabularies)
for ever. Neither is an answer that a robot should act on, and each token costs time on the chip.

A loop is known by its tokens: the answer's end has a period. Good answers repeat themselves, too,
but not for so long: a laugh, a rule of dashes, the rows of a table.
"""

from __future__ import annotations

LONGEST_PERIOD = 32
"""Tokens of the longest loop that is looked for: a sentence or two."""

FEWEST_REPEATS = 4
"""So often its period stands in a loop."""

MOST_PERIODIC = 64
"""So many tokens at the answer's end with a longer period are one."""

_SUSPICIOUS_OF_ONE = 8
_SUSPICIOUS = 16


class RepetitionGuard:
    """Follows the tokens of one answer.

    Args:
        most_of_one: So many of the same token in a row are a loop; 0 = nothing is.
    """

    def __init__(self, most_of_one: int) -> None:
        self._most_of_one = most_of_one
        self._tokens: list[int] = []
        # By period: how many tokens at the answer's end have it; 0 = not even two times one.
        self._runs = [0] * (LONGEST_PERIOD + 1)

    def push(self, token: int) -> None:
        """Take the answer's next token."""
        self._tokens.append(token)
        last, runs = len(self._tokens) - 1, self._runs
        for period in range(1, LONGEST_PERIOD + 1):
            repeats = last >= period and self._tokens[last - period] == token
            runs[period] = (runs[period] or period) + 1 if repeats else 0

    @property
    def is_suspicious(self) -> bool:
        """Whether the answer's end may be the beginning of a loop; then its text can wait."""
        return self._period(min(_SUSPICIOUS_OF_ONE, self._most_of_one), _SUSPICIOUS) > 0

    @property
    def loop(self) -> tuple[int, ...]:
        """The tokens of the loop that the answer is in, once; empty = it is in none."""
        period = self._period(self._most_of_one, MOST_PERIODIC)
        return tuple(self._tokens[-period:]) if period else ()

    def _period(self, of_one: int, of_more: int) -> int:
        """Return the shortest period of so many tokens at the end; 0 = there is none."""
        if not self._most_of_one:
            return 0
        for period in range(1, LONGEST_PERIOD + 1):
            wanted = of_one if period == 1 else max(of_more, FEWEST_REPEATS * period)
            if self._runs[period] >= wanted:
                return period
        return 0
