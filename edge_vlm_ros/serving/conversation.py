"""Conversations: the turns and frames that a question follows on."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edge_vlm_ros.core import (
    NS_PER_S,
    BadRequestError,
    ErrorCode,
    PromptPart,
    join_parts,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edge_vlm_ros.core import Clock
    from edge_vlm_ros.families.base import ModelFamily
    from edge_vlm_ros.serving.shown_frames import ShownFrames


@dataclass(frozen=True, slots=True)
class PastTurn:
    """A finished turn, as it can be written again once older ones are forgotten.

    Attributes:
        text: The question.
        frames: Those shown in it for the first time.
        answer: The answer's tokens, without the stop token.
    """

    text: str
    frames: tuple[ShownFrames, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    """What was said and shown so far. Turns are added by making a new one.

    Attributes:
        system_prompt: Of the first turn; '' = the model's own.
        history: All tokens of the finished turns, without the last stop token; None = no turn yet.
        frames: All frames shown, oldest first; `VisionSpan.image` is an index into them.
        turns: The finished turns, oldest first.
    """

    system_prompt: str = ''
    history: PromptPart | None = field(default=None, repr=False)
    frames: tuple[ShownFrames, ...] = ()
    turns: tuple[PastTurn, ...] = field(default=(), repr=False)

    @property
    def nbytes(self) -> int:
        """Bytes of the frames kept."""
        return sum(frame.group.nbytes for frame in self.frames)

    def new_frames(self, frames: Sequence[ShownFrames]) -> tuple[ShownFrames, ...]:
        """Return those that this conversation has not seen yet."""
        seen = {frame.key for frame in self.frames}
        return tuple(frame for frame in frames if frame.key not in seen)

    def render_before(
        self, family: ModelFamily, frames: Sequence[ShownFrames], system_prompt: str = ''
    ) -> PromptPart:
        """Write the prompt up to the next question: all finished turns, new frames.

        Args:
            family: The model's.
            frames: Frames this conversation has not seen yet, oldest first.
            system_prompt: '' = the conversation's.

        Raises:
            BadRequestError: Another system prompt than the conversation began with.
        """
        inputs = [frame.prepared.inputs for frame in frames]
        if self.system_prompt or self.history is not None:
            self._check_system_prompt(system_prompt)
        if self.history is None:
            return family.render_prefix(inputs, system_prompt or self.system_prompt)
        position = self.history.next_position
        turn = family.render_next_turn(inputs, len(self.frames), position)
        return join_parts((self.history, turn))

    def with_turn(
        self,
        prompt: PromptPart,
        turn: PastTurn,
        system_prompt: str,
    ) -> Conversation:
        """Return the conversation after one more turn.

        Args:
            prompt: All of its tokens before the answer.
            turn: What was asked, shown and answered.
            system_prompt: The question's.
        """
        answer = answer_part(turn.answer, prompt.next_position, like=prompt)
        is_first = self.history is None and not self.system_prompt
        return Conversation(
            system_prompt=system_prompt if is_first else self.system_prompt,
            history=join_parts((prompt, answer)),
            frames=(*self.frames, *turn.frames),
            turns=(*self.turns, turn),
        )

    def without_oldest(
        self, family: ModelFamily, number: int, *, is_about_shown: bool
    ) -> tuple[Conversation, tuple[ShownFrames, ...]]:
        """Return the conversation without its oldest turns, as if they had never been.

        Args:
            family: The model's; it writes the other turns again.
            number: Turns to forget.
            is_about_shown: The next question brings no frames: those shown last are kept, also
                where their turn goes; the oldest turn that stays shows them.

        Returns:
            The conversation, and the frames kept that no turn of it shows: the next one has to.
        """
        if not number:
            return self, ()
        gone, kept = self.turns[:number], self.turns[number:]
        carried: tuple[ShownFrames, ...] = ()
        if is_about_shown and not any(turn.frames for turn in kept):
            carried = next((turn.frames for turn in reversed(gone) if turn.frames), ())
        shorter = Conversation(self.system_prompt)
        for turn in kept:
            again = PastTurn(turn.text, (*carried, *turn.frames), turn.answer)
            carried = ()
            before = shorter.render_before(family, again.frames)
            words = family.render_suffix(
                again.text, before.next_position, follows_images=bool(again.frames)
            )
            prompt = join_parts((before, words))
            shorter = shorter.with_turn(prompt, again, '')
        return shorter, carried

    def _check_system_prompt(self, system_prompt: str) -> None:
        if system_prompt not in {'', self.system_prompt}:
            raise BadRequestError(
                'the system prompt of a session is set by its first question; '
                'reset the session to change it'
            )


def answer_part(token_ids: Iterable[int], first_position: int, *, like: PromptPart) -> PromptPart:
    """Make a part of answer tokens, on as many position axes as `like` has."""
    tokens = np.fromiter(token_ids, dtype=np.int64)
    stop = first_position + len(tokens)
    positions = np.arange(first_position, stop, dtype=np.int64)
    shape = (*like.positions.shape[:-1], len(tokens))
    return PromptPart(tokens, np.broadcast_to(positions, shape), stop)


@dataclass(slots=True)
class _Session:
    conversation: Conversation
    used_ns: int


class SessionStore:
    """The conversations that go on, bounded by count, age and bytes; safe from any thread.

    Args:
        clock: Steady time.
        max_sessions: The one not used for longest goes first.
        max_bytes: Of the frames they keep; likewise.
        ttl_s: A session not used for so long is forgotten, seconds.
        max_turns: Turns of a conversation that are kept; 0 = as many as the context holds.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        max_sessions: int = 16,
        max_bytes: int = 256 * 2**20,
        ttl_s: float = 1800.0,
        max_turns: int = 0,
    ) -> None:
        self.max_turns = max_turns
        self._clock = clock
        self._max_sessions = max_sessions
        self._max_bytes = max_bytes
        self._ttl_ns = round(ttl_s * NS_PER_S)
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            self._forget_old()
            return len(self._sessions)

    def get(self, session_id: str, *, must_exist: bool = False) -> Conversation:
        """Return a session's conversation; a new one begins where there is none ('' = always).

        Raises:
            BadRequestError: It must exist, but has no turn or is gone (UNKNOWN_SESSION).
        """
        if not session_id and not must_exist:
            return Conversation()
        with self._lock:
            self._forget_old()
            session = self._sessions.get(session_id)
            if must_exist and (session is None or session.conversation.history is None):
                raise BadRequestError(
                    f'the conversation {session_id!r} is not known here (any more): it was not '
                    'used for long, made room for others, or the model was started again; '
                    'ask again with new frames to start a new one',
                    ErrorCode.UNKNOWN_SESSION,
                )
            if session is None:
                session = _Session(Conversation(), 0)
                self._sessions[session_id] = session
            self._use(session_id, session)
            self._forget_most()
            return session.conversation

    def peek(self, session_id: str) -> Conversation:
        """Return a session's conversation without using it; an empty one where there is none."""
        with self._lock:
            self._forget_old()
            session = self._sessions.get(session_id)
            return Conversation() if session is None else session.conversation

    def put(self, session_id: str, before: Conversation, after: Conversation) -> bool:
        """Replace `before` by `after`; not where the session was reset since. Tell whether."""
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None or session.conversation is not before:
                return False
            session.conversation = after
            self._use(session_id, session)
            self._forget_most()
            return True

    def reset(self, session_id: str = '') -> int:
        """Forget one session, or all of them ('' = all); return how many there were."""
        with self._lock:
            if session_id:
                return int(self._sessions.pop(session_id, None) is not None)
            number = len(self._sessions)
            self._sessions.clear()
            return number

    def _use(self, session_id: str, session: _Session) -> None:
        session.used_ns = self._clock.now_ns()
        self._sessions.move_to_end(session_id)

    def _forget_old(self) -> None:
        oldest_ns = self._clock.now_ns() - self._ttl_ns
        for session_id in [k for k, s in self._sessions.items() if s.used_ns < oldest_ns]:
            del self._sessions[session_id]

    def _forget_most(self) -> None:
        def nbytes() -> int:
            return sum(session.conversation.nbytes for session in self._sessions.values())

        # The last one is in use right now.
        while len(self._sessions) > 1 and (
            len(self._sessions) > self._max_sessions or nbytes() > self._max_bytes
        ):
            self._sessions.popitem(last=False)
