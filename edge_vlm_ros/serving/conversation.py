"""Conversations: the turns and frames that a question follows on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edge_vlm_ros.core import BadRequestError, PromptPart, join_parts
from edge_vlm_ros.serving.sessions import Sessions

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
    def has_turns(self) -> bool:
        """Whether anything was said yet."""
        return self.history is not None

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
            shorter = shorter.with_past(family, again)
        return shorter, carried

    def with_past(self, family: ModelFamily, turn: PastTurn) -> Conversation:
        """Return the conversation with a turn that was spoken before, or elsewhere.

        Args:
            family: The model's; it writes the turn.
            turn: Its frames that were shown before are not shown again.
        """
        frames = self.new_frames(turn.frames)
        before = self.render_before(family, frames)
        words = family.render_suffix(turn.text, before.next_position, follows_images=bool(frames))
        again = PastTurn(turn.text, frames, turn.answer)
        return self.with_turn(join_parts((before, words)), again, '')

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


class SessionStore(Sessions[Conversation]):
    """The conversations that a chip goes on with; see `Sessions`."""

    def __init__(
        self,
        clock: Clock,
        *,
        max_sessions: int = 16,
        max_bytes: int = 256 * 2**20,
        ttl_s: float = 1800.0,
        max_turns: int = 0,
    ) -> None:
        super().__init__(
            clock,
            Conversation,
            max_sessions=max_sessions,
            max_bytes=max_bytes,
            ttl_s=ttl_s,
            max_turns=max_turns,
        )
