"""Conversations in words, as any backend can be told them: what was asked, shown and said."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_vlm_ros.core import NS_PER_S, EarlierTurn

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
        used_ns: Steady time of the last turn.
    """

    turns: tuple[EarlierTurn, ...] = ()
    holder: str = ''
    used_ns: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of what was shown and said."""
        return sum(turn.nbytes for turn in self.turns)

    def unknown_to(self, name: str) -> tuple[EarlierTurn, ...]:
        """Return what has to be retold to somebody; nothing to who was there."""
        return () if name == self.holder else self.turns


class Dialogues:
    """The conversations that go on, bounded as a pipeline's own; safe from any thread.

    Args:
        clock: Steady time.
        settings: Its bounds of sessions.
    """

    def __init__(self, clock: Clock, settings: ServingSettings) -> None:
        self._clock = clock
        self._settings = settings
        self._ttl_ns = round(settings.session_ttl_s * NS_PER_S)
        self._most_turns = settings.max_session_turns or MAX_TURNS
        self._dialogues: OrderedDict[str, Dialogue] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, session_id: str) -> Dialogue:
        """Return a conversation; an empty one where there is none ('' = always)."""
        with self._lock:
            self._forget_old()
            return self._dialogues.get(session_id, Dialogue())

    def add(self, before: Dialogue, question: Question, answer: str, holder: str) -> None:
        """Add a turn to a conversation, unless it was reset or went on meanwhile.

        Args:
            before: As `get` returned it when the question was asked.
            question: With its session.
            answer: What was said.
            holder: Who said it.
        """
        if not question.session_id:
            return
        system_prompt = '' if before.turns else question.system_prompt
        turn = EarlierTurn(
            question.text, answer, question.frames, question.shown_as, system_prompt
        )
        with self._lock:
            known = self._dialogues.get(question.session_id)
            if known is not before and (known is not None or before.turns):
                return
            turns = self._kept((*before.turns, turn))
            self._dialogues[question.session_id] = Dialogue(turns, holder, self._clock.now_ns())
            self._dialogues.move_to_end(question.session_id)
            self._forget_most()

    def reset(self, session_id: str = '') -> int:
        """Forget one conversation, or all (''); return how many there were."""
        with self._lock:
            if session_id:
                return int(self._dialogues.pop(session_id, None) is not None)
            number = len(self._dialogues)
            self._dialogues.clear()
            return number

    def _kept(self, turns: tuple[EarlierTurn, ...]) -> tuple[EarlierTurn, ...]:
        """Let go of the oldest turns that are too many, or too large; the last one stays."""
        system_prompt = turns[0].system_prompt
        turns = turns[-self._most_turns :]
        while len(turns) > 1 and Dialogue(turns).nbytes > self._settings.max_session_bytes:
            turns = turns[1:]
        first = turns[0]
        if first.system_prompt != system_prompt:
            first = EarlierTurn(
                first.text, first.answer, first.frames, first.shown_as, system_prompt
            )
        return (first, *turns[1:])

    def _forget_old(self) -> None:
        oldest_ns = self._clock.now_ns() - self._ttl_ns
        for session_id in [k for k, d in self._dialogues.items() if d.used_ns < oldest_ns]:
            del self._dialogues[session_id]

    def _forget_most(self) -> None:
        while len(self._dialogues) > 1 and (
            len(self._dialogues) > self._settings.max_sessions
            or sum(d.nbytes for d in self._dialogues.values()) > self._settings.max_session_bytes
        ):
            self._dialogues.popitem(last=False)
