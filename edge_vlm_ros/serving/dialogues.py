"""Conversations in words, as any backend can be told them: what was asked, shown and said."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge_vlm_ros.core import EarlierTurn
from edge_vlm_ros.serving.sessions import Sessions

if TYPE_CHECKING:
    from edge_vlm_ros.core import Clock, Question
    from edge_vlm_ros.serving.settings import ServingSettings

MAX_TURNS = 256
"""Turns of a dialogue that are kept where the settings name no number."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One conversation so far.

    Attributes:
        turns: The finished ones, oldest first.
        holder: Who took part in all of them, or was told of those that it did not; '' = nobody.
    """

    turns: tuple[EarlierTurn, ...] = ()
    holder: str = ''

    @property
    def nbytes(self) -> int:
        """Bytes of what was shown and said."""
        return sum(turn.nbytes for turn in self.turns)

    @property
    def has_turns(self) -> bool:
        """Whether anything was said yet."""
        return bool(self.turns)

    def unknown_to(self, name: str) -> tuple[EarlierTurn, ...]:
        """Return what has to be retold to somebody; nothing to who was there."""
        return () if name == self.holder else self.turns


class Dialogues(Sessions[Dialogue]):
    """The conversations that go on, within a pipeline's bounds of sessions; see `Sessions`.

    Args:
        clock: Steady time.
        settings: The bounds.
    """

    def __init__(self, clock: Clock, settings: ServingSettings) -> None:
        super().__init__(
            clock,
            Dialogue,
            max_sessions=settings.max_sessions,
            max_bytes=settings.max_session_bytes,
            ttl_s=settings.session_ttl_s,
            max_turns=settings.max_session_turns or MAX_TURNS,
        )
        self._most_bytes = settings.max_session_bytes

    def add(self, before: Dialogue, question: Question, answer: str, holder: str) -> None:
        """Add a turn to a conversation, unless it was reset or went on meanwhile.

        Args:
            before: As `get` returned it when the question was asked.
            question: With its session.
            answer: What was said.
            holder: Who said it.
        """
        system_prompt = '' if before.turns else question.system_prompt
        turn = EarlierTurn(
            question.text, answer, question.frames, question.shown_as, system_prompt
        )
        turns = self._kept((*before.turns, turn))
        self.put(question.session_id, before, Dialogue(turns, holder))

    def _kept(self, turns: tuple[EarlierTurn, ...]) -> tuple[EarlierTurn, ...]:
        """Let go of the oldest turns that are too many, or too large; the last one stays."""
        system_prompt = turns[0].system_prompt
        turns = turns[-self.max_turns :]
        while len(turns) > 1 and Dialogue(turns).nbytes > self._most_bytes:
            turns = turns[1:]
        return (replace(turns[0], system_prompt=system_prompt), *turns[1:])
