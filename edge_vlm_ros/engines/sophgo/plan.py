"""How a prompt is cut: pieces for the prefill nets, single tokens for the decode nets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

_STEPS_OF_A_PIECE = 20
"""Steps that cost as much as a prefill of the whole graph, until both were measured. Source: the
published times of Qwen2-VL 7B, 2.15 s and 0.109 s."""
_WEIGHT = 0.25
"""Of the newest time in the running mean."""


@dataclass(slots=True)
class StepCosts:
    """What steps took lately, seconds; 0 = not known yet.

    Attributes:
        piece_s: One run of the prefill nets.
        step_s: One run of the decode nets.
    """

    piece_s: float = 0.0
    step_s: float = 0.0

    def note_piece(self, seconds: float) -> None:
        """Take in what a run of the prefill nets took."""
        self.piece_s = _mean(self.piece_s, seconds)

    def note_step(self, seconds: float) -> None:
        """Take in what a run of the decode nets took."""
        self.step_s = _mean(self.step_s, seconds)

    def steps_beat_restart(self, tokens: int) -> bool:
        """Return whether so many steps after a prefix cost less than to start again."""
        if self.piece_s and self.step_s:
            return self.steps_are_cheaper(tokens)
        return tokens <= _STEPS_OF_A_PIECE

    def steps_are_cheaper(self, tokens: int) -> bool:
        """Return whether so many steps cost less than one piece of fixed cost."""
        return bool(self.piece_s and self.step_s) and tokens * self.step_s < self.piece_s


def _mean(before: float, seconds: float) -> float:
    return before + _WEIGHT * (seconds - before) if before else seconds


def cut(
    tokens: int, held: int, room: Callable[[int], int], costs: StepCosts | None
) -> Iterator[int]:
    """Cut `tokens` tokens after `held` into pieces.

    Args:
        tokens: To be cut.
        held: Rows that the cache holds.
        room: How many tokens a piece of the prefill nets may have after so many rows.
        costs: Where a short piece costs what a long one costs; None = it costs less.

    Yields:
        Tokens of each piece; 1 = a run of the decode nets.
    """
    while tokens:
        piece = min(room(held), tokens)
        if piece < 2 or (costs is not None and costs.steps_are_cheaper(piece)):
            piece = 1
        yield piece
        tokens -= piece
        held += piece
