"""A question and how it wants to be answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from edge_vlm_ros.core.errors import BadRequestError

if TYPE_CHECKING:
    from edge_vlm_ros.core.frames import ShownAs, StoredFrame

MAX_QUESTION_BYTES = 64 * 1024
"""Longest question text accepted, UTF-8 bytes; far above any model's context."""


PENALTY_RANGE = (0.1, 2.0)
"""Of the repetition penalty. Published samplers take up to 2 (vLLM, sampling_params.py) and models
ask for 1.0 to 1.2; far below 1, scores would overflow."""

YES_NO = ('yes', 'no')
"""The choices of a question that is to be answered with yes or no."""


class Priority(IntEnum):
    """Which of the questions that wait is answered next: the highest, of equal ones the oldest.

    Whether one that runs is interrupted by a higher one is the queue's policy.
    """

    BACKGROUND = 0
    """Below every question that somebody waits for: standing questions, statistics."""

    NORMAL = 1

    URGENT = 2
    """The robot stands still, or should, until it is answered."""


_COLDEST = 1e-6
"""Below this temperature only the best token has any weight."""


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How the next token is chosen.

    Attributes:
        max_tokens: Most answer tokens; 0 = as many as the context holds.
        temperature: 0 = greedy.
        top_p: Nucleus; 1 = off.
        top_k: 0 = off; 1 = greedy, whatever the temperature.
        seed: Of the sampler; the same seed and question give the same answer.
        repetition_penalty: Scores of tokens that the answer has already are divided by it where
            positive, else multiplied; 1 = off, above makes them less likely.
        max_repeats: So many of the same token in a row end an answer as a loop; 0 = no loop ends
            it. 32 are 3 s of a chip that makes ten a second.
    """

    max_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    repetition_penalty: float = 1.0
    max_repeats: int = 32

    @property
    def is_greedy(self) -> bool:
        """Whether the best token is taken: then temperature, top_p and seed say nothing more."""
        return self.temperature < _COLDEST or self.top_k == 1

    def __post_init__(self) -> None:
        if self.max_tokens < 0 or self.top_k < 0:
            msg = f'max_tokens and top_k are 0 or more, not {self.max_tokens} and {self.top_k}'
            raise BadRequestError(msg)
        if self.max_repeats < 0 or self.max_repeats == 1:
            raise BadRequestError(f'max_repeats is 0 or at least 2, not {self.max_repeats}')
        if not 0.0 <= self.temperature <= 10.0:
            raise BadRequestError(f'temperature is from 0 to 10, not {self.temperature}')
        if not 0.0 < self.top_p <= 1.0:
            raise BadRequestError(f'top_p is above 0 and at most 1, not {self.top_p}')
        low, high = PENALTY_RANGE
        if not low <= self.repetition_penalty <= high:
            raise BadRequestError(
                f'repetition_penalty is from {low} to {high:.0f}, not {self.repetition_penalty}'
            )


@dataclass(frozen=True, slots=True)
class EarlierTurn:
    """A turn of a conversation, in words: as whoever did not take part in it can be told.

    Attributes:
        text: The question.
        answer: What was said.
        frames: Those the question showed, oldest first.
        shown_as: As `Question.shown_as`.
        system_prompt: Of the first turn; '' = the model's own.
    """

    text: str
    answer: str
    frames: tuple[StoredFrame, ...] = field(default=(), repr=False)
    shown_as: ShownAs | None = None
    system_prompt: str = ''

    @property
    def nbytes(self) -> int:
        """Bytes of the frames and of the words."""
        words = len(self.text) + len(self.answer) + len(self.system_prompt)
        return words + sum(frame.nbytes for frame in self.frames)


@dataclass(frozen=True, slots=True)
class Question:
    """One request, complete: nothing else is looked up to answer it.

    Attributes:
        text: What is asked; not empty, at most `MAX_QUESTION_BYTES` in UTF-8.
        request_id: The caller's name for it; unique among the running ones.
        frames: The chosen frames, oldest first; none = a text-only question (or, in a
            session that has turns, about the frames already shown).
        session_id: The conversation it belongs to; '' = none, nothing is remembered.
        system_prompt: '' = the model's own default.
        sampling: How tokens are chosen.
        choices: Answers to choose from; empty = free text.
        stop: Texts that end the answer and are no part of it.
        continues_session: It goes on with a conversation that must exist: where the session has
            no turn (any more), it is refused with UNKNOWN_SESSION and not answered without frames.
        asked_ns: Steady time when the question arrived, nanoseconds; where TTFT starts.
        deadline_ns: Steady time when it must be done; 0 = no deadline.
        shown_as: How all of its frames are shown; None = a single frame ALONE, several of which
            each is the only one of its camera as ONE_OF_IMAGES, else those of one camera side by
            side as a VIDEO and the others AMONG_OTHERS. A family that does not know of the one or
            the other shows AMONG_OTHERS instead.
        priority: Among the questions that wait.
        max_latency_s: Time from `asked_ns` within which its answer is to be done, seconds: so much
            is shown and said as that allows; 0 = whatever it takes. Unlike the deadline it ends
            nothing.
        preempts: Where the queue's policy is to preempt: it does. False = it waits for its turn,
            as one that has waited already does.
        earlier: All turns of its conversation so far, where another backend answered some of them:
            the conversation is these turns then, whatever is held of it. Empty = what is held.
    """

    text: str
    request_id: str = ''
    frames: tuple[StoredFrame, ...] = field(default=(), repr=False)
    session_id: str = ''
    system_prompt: str = ''
    sampling: SamplingOptions = SamplingOptions()
    choices: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    continues_session: bool = False
    asked_ns: int = 0
    deadline_ns: int = 0
    shown_as: ShownAs | None = None
    priority: Priority = Priority.NORMAL
    max_latency_s: float = 0.0
    preempts: bool = True
    earlier: tuple[EarlierTurn, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise BadRequestError('the question is empty')
        size = len(self.text.encode('utf-8', 'replace'))
        if size > MAX_QUESTION_BYTES:
            raise BadRequestError(
                f'the question has {size} bytes, the limit is {MAX_QUESTION_BYTES}'
            )
