"""How a prompt is cut: pieces for the prefill nets, single tokens for the decode nets.

A run of static prefill nets costs the same however few its tokens are, one of dynamic nets is
cheaper the shorter it is; a step of the decode nets costs what its stage costs. A piece may begin
after so many rows only as the nets have history for: none at all in most builds. So there is a
choice, and it is made by what runs took when the model was loaded (`costs`).

A plan is a shortest path over the places from what is held to the prompt's end. From each: one
step; or a piece as far as it goes, or to the last row that another one may begin after. No other
end can be better: from one token further on, the same pieces are left and fewer tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

_PLANS_KEPT = 32


@dataclass(frozen=True, slots=True)
class RunCosts:
    """What runs take, seconds.

    Attributes:
        steps: Cache rows that a decode stage sees, and what a step through it takes; by rows.
        run_s: A run of the prefill nets, and
        token_s: each token of it on top; 0 where it always computes the longest.
    """

    steps: tuple[tuple[int, float], ...]
    run_s: float
    token_s: float = 0.0

    def step(self, held: int) -> float:
        """Seconds of a step after `held` rows, through the stage that the decode nets take."""
        return next((seconds for rows, seconds in self.steps if rows >= held), self.steps[-1][1])

    def piece(self, tokens: int) -> float:
        """Seconds of a piece for the prefill nets."""
        return self.run_s + self.token_s * tokens


@dataclass(frozen=True, slots=True)
class PieceRule:
    """Where pieces for the prefill nets may stand.

    Attributes:
        room: How many tokens a piece may have after so many rows.
        history: The last row that a piece may begin after.
        may_step: Whether fewer tokens than a piece holds may go through the decode nets where a
            piece could run them.
    """

    room: Callable[[int], int]
    history: int
    may_step: bool


class Planner:
    """Plans for one model on one chip.

    Args:
        costs: Measured on the chip.
        rule: What its prefill nets take.
    """

    def __init__(self, costs: RunCosts, rule: PieceRule) -> None:
        self.costs = costs
        self._rule = rule
        self.plan = lru_cache(_PLANS_KEPT)(self._plan)
        """`plan(held, tokens)`: tokens of each piece that appends `tokens` after `held`; 1 = a
        step of the decode nets."""

    def keep(self, held: int, total: int, extra_s: Callable[[int], float]) -> int:
        """Say how many of the held rows to go on from, so that the rest costs least.

        Args:
            held: Rows of the cache that a prompt begins with.
            total: Tokens of the prompt; above `held`.
            extra_s: What it costs besides to run the rows from a place on again.
        """
        # From further down the same pieces would run, with more tokens.
        cuts = {min(held, self._rule.history), held}
        first = min(cuts)
        best, _ = self._solve(first, total - first)
        return min(
            sorted(cuts, reverse=True),
            key=lambda at: best[at - first] + (extra_s(at) if at < held else 0.0),
        )

    def _plan(self, held: int, tokens: int) -> tuple[int, ...]:
        _, moves = self._solve(held, tokens)
        pieces: list[int] = []
        at = 0
        while at < tokens:
            pieces.append(moves[at])
            at += moves[at]
        return tuple(pieces)

    def _solve(self, held: int, tokens: int) -> tuple[list[float], list[int]]:
        """Give, for each place after `held`, the least cost from there and the first piece."""
        rule, costs = self._rule, self.costs
        best, moves = [0.0] * (tokens + 1), [1] * tokens
        for at in range(tokens - 1, -1, -1):
            row = held + at
            longest = min(rule.room(row), tokens - at)
            cost, move = costs.step(row) + best[at + 1], 1
            if longest > 1:
                if not rule.may_step:
                    cost = float('inf')
                # The longest one last: of equals it is taken.
                for piece in sorted({longest, min(longest, max(rule.history - row, 2))}):
                    through = costs.piece(piece) + best[at + piece]
                    if through <= cost:
                        cost, move = through, piece
            best[at], moves[at] = cost, move
        return best, moves
