"""The cheapest way to get a prompt into the cache.

Tokens enter as chunks, whose cost depends on the shape group alone (on how much history it takes)
and not on how many of their tokens count, or one by one through a decode group. So there is a
choice: a chunk after 130 tokens runs the group for 256 cached rows; ended early at a boundary,
the next one runs a cheaper group; and a few tokens are cheaper through decode steps (on an AX650N
up to 2 after nothing, up to 19 after 2048 tokens).

A plan is a shortest path over the positions from what is held to the prompt's end. From each
position: one decode step; or, with the cheapest group that has history enough, a chunk to the
prompt's end, to the chunk's end, or to a boundary in between. No other end can be better: between
two boundaries the same groups serve, so what is left never costs more from one token further on.

What is held need not be kept: a question after 303 tokens runs the group for 384 cached rows, and
after the 256 of them that fill whole chunks a cheaper one, with the 47 beyond run once more beside
it. Only borders less than a chunk below can be worth it: from one further down, the first chunk
would end where rows are held anyway.

Prompts longer than the longest history and one chunk end in decode steps, up to the capacity.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from edge_vlm_ros.engines.axera.costs import GroupCosts
from edge_vlm_ros.engines.axera.graphs import DecodeGroup, PrefillGroup, StackShapes

_PLANS_KEPT = 512


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a plan.

    Attributes:
        tokens: How many it appends.
        group: Of a chunk; None = through decode steps.
    """

    tokens: int
    group: PrefillGroup | None


_Option: TypeAlias = tuple[float, PrefillGroup]


class Planner:
    """Plans for one set of axmodels on one chip.

    Args:
        shapes: Of the set.
        costs: Measured on the chip.
    """

    def __init__(self, shapes: StackShapes, costs: GroupCosts) -> None:
        self._shapes, self._costs = shapes, costs
        self._boundaries = sorted({group.history for group in shapes.prefill})
        self._options = [self._cheapest(boundary) for boundary in self._boundaries]
        dearest = max((ms for ms in costs.prefill.values() if ms < math.inf), default=0.0)
        cheapest_step = min(costs.decode.values())
        # A run of steps takes no longer than a chunk: other work and cancels get in between.
        self._longest_run = max(1, int(dearest / cheapest_step)) if cheapest_step else 1
        self._longest_chunk = max(group.chunk for group in shapes.prefill)
        self._plans: dict[tuple[int, int], tuple[Piece, ...]] = {}

    def plan(self, held: int, tokens: int) -> tuple[Piece, ...]:
        """Give the pieces, in order, that append `tokens` after `held` rows.

        Each piece, too, is kept as the plan of itself: it is asked for again when it is run.
        """
        known = self._plans.get((held, tokens))
        if known is not None:
            return known
        if len(self._plans) > _PLANS_KEPT:
            self._plans.clear()
        found = self._plan(held, tokens)
        self._plans[held, tokens] = found
        at = held
        for piece in found:
            self._plans[at, piece.tokens] = (piece,)
            at += piece.tokens
        return found

    def by_chunks(self, held: int, tokens: int) -> tuple[Piece, ...]:
        """Append tokens with no decode step among them, as images need that steps cannot take.

        Returns:
            The cheapest group for each chunk in turn; () = no group takes so much history.
        """
        pieces: list[Piece] = []
        at = 0
        while at < tokens:
            options = self._usable(held + at)
            if not options:
                return ()
            whole = [option for option in options if option[1].chunk >= tokens - at]
            _, group = min(whole or options, key=lambda option: option[0] / option[1].chunk)
            pieces.append(Piece(min(tokens - at, group.chunk), group))
            at += group.chunk
        return tuple(pieces)

    def keep(self, held: int, total: int, may_cut: Callable[[int], bool]) -> int:
        """Say how many of the held rows to go on from, so that the rest costs least.

        Args:
            held: Rows of the cache that a prompt begins with.
            total: Tokens of the prompt; above `held`.
            may_cut: Whether the rows from a place on may be run again.
        """
        lowest = max(0, held - self._longest_chunk + 1)
        cuts = [at for at in self._boundaries if lowest <= at < held and may_cut(at)]
        if not cuts:
            return held
        first = cuts[0]
        best, _ = self._solve(first, total - first)
        return min((held, *reversed(cuts)), key=lambda at: best[at - first])

    def decode_group(self, row: int) -> DecodeGroup:
        """Give the cheapest decode group that sees `row` rows."""
        if len(self._shapes.decode) == 1:
            return self._shapes.decode[0]
        fitting = [group for group in self._shapes.decode if group.capacity > row]
        return min(fitting, key=lambda group: self._costs.decode[group.index])

    def _plan(self, held: int, tokens: int) -> tuple[Piece, ...]:
        _, moves = self._solve(held, tokens)
        return tuple(self._joined(moves))

    def _solve(self, held: int, tokens: int) -> tuple[list[float], list[Piece]]:
        """Give, for each place after `held`, the least cost from there and the first move."""
        assert held + tokens <= self._shapes.capacity, (held, tokens, self._shapes.capacity)
        steps = self._step_costs(held, tokens)
        best = [0.0] * (tokens + 1)
        moves: list[Piece] = [Piece(0, None)] * tokens
        for at in range(tokens - 1, -1, -1):
            cost, move = steps[at] + best[at + 1], Piece(1, None)
            for chunk_cost, group in self._usable(held + at):
                for stop in self._stops(held, at, tokens, group):
                    # The least slack goes to the chunk: rounding must not turn equals into steps.
                    through = chunk_cost + best[stop]
                    if through <= cost:
                        cost, move = through, Piece(stop - at, group)
            best[at], moves[at] = cost, move
        return best, moves

    def _step_costs(self, held: int, tokens: int) -> list[float]:
        costs: list[float] = []
        for row in range(held, held + tokens):
            if costs and not any(group.capacity == row for group in self._shapes.decode):
                costs.append(costs[-1])
            else:
                costs.append(self._costs.decode[self.decode_group(row).index])
        return costs

    def _usable(self, row: int) -> list[_Option]:
        place = bisect_right(self._boundaries, row - 1)
        return self._options[place] if place < len(self._options) else []

    def _cheapest(self, row: int) -> list[_Option]:
        """Give, for each chunk length, the cheapest group that takes `row` rows of history."""
        found: dict[int, _Option] = {}
        for group in self._shapes.prefill:
            cost = self._costs.prefill[group.index]
            known = found.get(group.chunk)
            if group.history >= row and (known is None or cost < known[0]):
                found[group.chunk] = (cost, group)
        return list(found.values())

    def _stops(self, held: int, at: int, tokens: int, group: PrefillGroup) -> Iterator[int]:
        """Give where a chunk may end: at boundaries within, then as far as it goes."""
        last = min(at + group.chunk, tokens)
        place = bisect_right(self._boundaries, held + at)
        for boundary in self._boundaries[place:]:
            if boundary >= held + last:
                break
            yield boundary - held
        yield last

    def _joined(self, moves: list[Piece]) -> Iterator[Piece]:
        """Follow the moves, single steps joined to runs."""
        at = run = 0
        while at < len(moves):
            move = moves[at]
            at += move.tokens
            if move.group is None:
                run += 1
            if run and (move.group is not None or run == self._longest_run or at == len(moves)):
                yield Piece(run, None)
                run = 0
            if move.group is not None:
                yield move
