"""One question while a server answers it: what is known of it, and what it has cost so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from edge_vlm_ros.core import (
    NS_PER_S,
    Answer,
    BadFrame,
    BadOutputError,
    EdgeVlmError,
    ErrorCode,
    FinishReason,
    FrameRef,
    Question,
    Timings,
    plain_text,
)
from edge_vlm_ros.remote.events import ServerEvent, TokenScore, Usage
from edge_vlm_ros.scheduling import QuestionAsked
from edge_vlm_ros.serving.frame_refs import frames_of, reference
from edge_vlm_ros.serving.shown_frames import group_frames
from edge_vlm_ros.text import StopRule, match_choice
from edge_vlm_ros.text.repetition import RepetitionGuard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_vlm_ros.remote.exchange import Outcome
    from edge_vlm_ros.serving.remote.spoken import Spoken, SpokenFrame
    from edge_vlm_ros.serving.stream import AnswerStream

_LENGTH = 'length'
_STOP = 'stop'


@dataclass(slots=True)
class RemoteRun:
    """A question that waits, or that a server is answering.

    Attributes:
        question: What was asked, with its request_id.
        stream: Where the answer goes.
        submitted_ns: Steady time when it came, nanoseconds.
        started_ns: Steady time of its start; 0 = it waits.
        prepare_ns: What its frames took, nanoseconds.
        first_text_ns: Steady time of the first text; 0 = none yet.
        last_text_ns: Steady time of the last text.
        pieces: Pieces of text that came.
        frames: All frames that the server is shown; None = not known yet.
        bad_frames: Those of the cameras that cannot be decoded.
        model: That was asked.
        usage: As the server counts.
        scores: Of the tokens that were likely in the first place.
        reason: Why the answer ended; NONE while it goes on.
        tail: The last text, for the final chunk.
        error: Why it failed.
        notes: What the caller should know of how a good answer came about, for people.
        talk: Its conversation before and after it, once it is answered.
        is_over: It was ended: whatever a server still says comes too late.
    """

    question: Question
    stream: AnswerStream
    submitted_ns: int
    started_ns: int = 0
    prepare_ns: int = 0
    first_text_ns: int = 0
    last_text_ns: int = 0
    pieces: int = 0
    frames: tuple[SpokenFrame, ...] | None = None
    bad_frames: tuple[BadFrame, ...] = ()
    model: str = ''
    usage: Usage | None = None
    scores: tuple[TokenScore, ...] = ()
    reason: FinishReason = FinishReason.NONE
    tail: str = ''
    error: EdgeVlmError | None = None
    notes: list[str] = field(default_factory=list)
    talk: tuple[Spoken, Spoken] | None = None
    is_over: bool = False
    _said: list[str] = field(init=False, default_factory=list)
    _rule: StopRule = field(init=False)
    _guard: RepetitionGuard = field(init=False)
    _words: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._rule = StopRule((), stop_strings=self.question.stop)
        self._guard = RepetitionGuard(self.question.sampling.max_repeats)

    @property
    def asked_ns(self) -> int:
        """Where time to first token and total time start, steady nanoseconds."""
        return self.question.asked_ns or self.submitted_ns

    @property
    def has_said(self) -> bool:
        """Whether a word of the answer has come."""
        return self.pieces > 0

    @property
    def text(self) -> str:
        """The answer as far as it goes."""
        return ''.join(self._said) + self.tail

    @property
    def asked(self) -> QuestionAsked:
        """What the queue needs to know of it."""
        question = self.question
        keys = tuple(group.key for group in group_frames(question.frames, question.shown_as))
        return QuestionAsked(
            question.request_id,
            keys,
            question.deadline_ns,
            question.priority,
            question.session_id,
            question.preempts,
        )

    def begin(self, now_ns: int) -> None:
        """Take note that its work begins."""
        self.started_ns = now_ns
        self.stream.begin(now_ns)

    def take(self, event: ServerEvent, now_ns: int) -> bool:
        """Take text; return whether more is wanted.

        Raises:
            BadOutputError: The answer is a loop.
        """
        if self.is_over:
            return False
        self.first_text_ns = self.first_text_ns or now_ns
        self.last_text_ns = now_ns
        if not self.pieces:
            self.scores = event.scores
        self.pieces += 1
        self._guard.push(self._words.setdefault(event.text, len(self._words)))
        if self._guard.loop:
            raise BadOutputError(
                f'the model repeats itself: {event.text[:60]!r} over and over; ended after '
                f'{self.pieces} pieces of text'
            )
        shown = self._rule.show(event.text)
        if self._rule.reason is FinishReason.STOP_STRING:
            self.reason = FinishReason.STOP_STRING
            self.tail = shown
            return False
        self._said.append(shown)
        return self.stream.push(shown)

    def end(self, outcome: Outcome, max_tokens: int) -> None:
        """The server has ended its answer.

        Args:
            outcome: How.
            max_tokens: That were asked for.

        Raises:
            BadOutputError: It said nothing.
            EdgeVlmError: It ended it for a reason that makes it no answer.
        """
        self.usage = outcome.usage
        if self.reason is FinishReason.STOP_STRING:
            return
        self.tail = self._rule.finish()
        self.reason = self._reason(outcome, max_tokens)
        if not self.has_said:
            thought = ', though it has thought aloud' if outcome.has_thought else ''
            raise BadOutputError(
                f'the model said nothing (ended by {outcome.finish_reason}){thought}'
            )

    def _reason(self, outcome: Outcome, max_tokens: int) -> FinishReason:
        if outcome.finish_reason == _STOP:
            return FinishReason.STOP
        if outcome.finish_reason == _LENGTH:
            tokens = outcome.usage.answer_tokens if outcome.usage is not None else 0
            return FinishReason.CONTEXT if 0 < tokens < max_tokens else FinishReason.LENGTH
        raise EdgeVlmError(
            f'the server ended the answer by {outcome.finish_reason[:60]!r}',
            ErrorCode.BAD_OUTPUT,
        )

    def finish(self, error: EdgeVlmError | None, *, now_ns: int, model: str, chip: str) -> None:
        """Give out its answer, which is over.

        Args:
            error: Why it is not whole; None = it is.
            now_ns: Steady time, nanoseconds.
            model: That stands for the servers.
            chip: Likewise.
        """
        make_answer = partial(
            self._answer, error=error, now_ns=now_ns, model=self.model or model, chip=chip
        )
        self.stream.finish(make_answer, self.tail if error is None else '')

    def _answer(
        self, text: str, *, error: EdgeVlmError | None, now_ns: int, model: str, chip: str
    ) -> Answer:
        question = self.question
        choice = match_choice(text, question.choices) if error is None else ''
        return Answer(
            request_id=question.request_id,
            text=text,
            finish_reason=FinishReason.of_error(error.code) if error else self.reason,
            error_code=error.code if error else ErrorCode.NONE,
            message=error.message if error else '; '.join(self.notes),
            session_id=question.session_id,
            frames=self._frame_refs(),
            timings=self._timings(now_ns),
            model=model,
            chip=chip,
            choice=choice,
            choice_probability=choice_probability(choice, question.choices, self.scores),
            bad_frames=self.bad_frames,
        )

    def _frame_refs(self) -> tuple[FrameRef, ...]:
        if self.frames is None:
            return frames_of(self.question, self.asked_ns)
        return tuple(
            reference(frame.stored, (frame.image.width, frame.image.height), self.asked_ns)
            for frame in self.frames
        )

    def _timings(self, now_ns: int) -> Timings:
        """Return what was measured here; what the server spends on what is not known."""
        usage = self.usage or Usage()

        def seconds(start_ns: int, stop_ns: int) -> float:
            return max(0, stop_ns - start_ns) / NS_PER_S

        first_ns = self.first_text_ns
        return Timings(
            queue_s=seconds(self.asked_ns, self.started_ns or now_ns),
            prepare_s=self.prepare_ns / NS_PER_S,
            decode_s=seconds(first_ns, self.last_text_ns),
            time_to_first_token_s=seconds(self.asked_ns, first_ns) if first_ns else 0.0,
            total_s=seconds(self.asked_ns, now_ns),
            prompt_tokens=usage.prompt_tokens,
            cached_prompt_tokens=usage.cached_tokens,
            answer_tokens=usage.answer_tokens,
        )


def choice_probability(
    choice: str, choices: Sequence[str], scores: Sequence[TokenScore]
) -> float | None:
    """Return how probable a choice was among all of them, by the first token's scores.

    Args:
        choice: That the answer names; '' = none.
        choices: All.
        scores: Of the tokens that were likely in the first place; empty = the server gave none.

    Returns:
        None where that cannot be told: the choices begin alike, or nothing likely begins one.
    """
    if not choice or not scores:
        return None
    shares = dict.fromkeys(choices, 0.0)
    for score in scores:
        start = plain_text(score.text)
        begun = [each for each in choices if start and plain_text(each).startswith(start)]
        if len(begun) > 1:
            return None
        if begun:
            shares[begun[0]] += math.exp(min(0.0, score.logprob))
    total = sum(shares.values())
    return shares[choice] / total if shares[choice] > 0 else None
