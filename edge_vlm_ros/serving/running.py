"""One question while it is being answered: what is known of it, and what it has cost so far."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from edge_vlm_ros.core import (
    NO_DETECTIONS,
    NS_PER_S,
    Answer,
    BadFrame,
    Detections,
    EdgeVlmError,
    ErrorCode,
    FeatureKey,
    FinishReason,
    FrameRef,
    PromptPart,
    Question,
    Readiness,
    StoredFrame,
    Timings,
    VisionFeatures,
)
from edge_vlm_ros.scheduling import Encode, Prefill, Prepare, QuestionAsked, Render, Work
from edge_vlm_ros.serving.conversation import Conversation, PastTurn, SessionStore
from edge_vlm_ros.serving.frame_refs import claimed_size, reference
from edge_vlm_ros.serving.model_info import ModelInfo
from edge_vlm_ros.serving.shown_frames import FrameGroup, ShownFrames
from edge_vlm_ros.serving.stream import AnswerStream
from edge_vlm_ros.text import ClosedAnswer, FreeText, match_choice


@dataclass(slots=True)
class Turn:
    """A question's prompt, and the answer as far as it goes.

    Attributes:
        before: The conversation as the session has it.
        conversation: What the question follows on: `before`, less the turns that had to go.
        new_frames: Frames shown for the first time in this turn.
        prompt: All tokens before the answer.
        answer: The answer as far as it goes.
        run: Its tokens that the KV cache holds after the prompt.
        reused_tokens: Tokens of the prompt that the KV cache held already.
        features: By key; those that the rest of the prompt needs.
        readiness: How much was there before the question came.
    """

    before: Conversation
    conversation: Conversation
    new_frames: tuple[ShownFrames, ...]
    prompt: PromptPart
    answer: FreeText | ClosedAnswer
    run: list[int] = field(default_factory=list)
    reused_tokens: int = 0
    features: dict[FeatureKey, VisionFeatures] = field(default_factory=dict)
    readiness: Readiness = Readiness.NONE

    @property
    def frames(self) -> tuple[ShownFrames, ...]:
        """All frames of the prompt; `VisionSpan.image` is an index into them."""
        return (*self.conversation.frames, *self.new_frames)

    @property
    def keys(self) -> tuple[FeatureKey, ...]:
        """Their names."""
        return tuple(frame.key for frame in self.frames)

    def needed(self, start: int) -> tuple[FeatureKey, ...]:
        """Name the features that are needed for the prompt's tokens from `start` on."""
        keys = self.keys
        unfinished = [keys[span.image] for span in self.prompt.spans if span.stop > start]
        return tuple(dict.fromkeys(unfinished))


@dataclass(slots=True)
class Running:
    """A question that waits or runs. The `ChipWorker`'s thread fills it in.

    Attributes:
        question: What was asked, with its request_id.
        stream: Where the answer goes.
        groups: The question's frames by key, oldest first.
        submitted_ns: Steady time when it came, nanoseconds.
        started_ns: Steady time of its first work item; 0 = none yet.
        first_text_ns: Steady time of the first text given out; 0 = none yet.
        first_token_ns: Steady time of the first token; 0 = none yet.
        last_token_ns: Steady time of the last token.
        head_ns: What choosing the first token took, nanoseconds.
        spent_ns: By kind of work.
        left_out: Frames of which nothing can be made, so that the question goes on without them.
        shown: Those of them that were prepared: for this question, or before.
        turn: Set once the prompt is written.
        reason: Why the answer ended; NONE while it goes on.
        tail: The last piece of text, for the final chunk.
        error: Why it failed.
        detections: The places that a good answer names in a frame.
        notes: What the caller should know of how a good answer came about, for people.
    """

    question: Question
    stream: AnswerStream
    groups: dict[FeatureKey, FrameGroup]
    submitted_ns: int
    started_ns: int = 0
    first_text_ns: int = 0
    first_token_ns: int = 0
    last_token_ns: int = 0
    head_ns: int = 0
    spent_ns: dict[type[Work], int] = field(default_factory=dict)
    shown: dict[FeatureKey, ShownFrames] = field(default_factory=dict)
    left_out: tuple[BadFrame, ...] = ()
    turn: Turn | None = None
    reason: FinishReason = FinishReason.NONE
    tail: str = ''
    error: EdgeVlmError | None = None
    detections: Detections = NO_DETECTIONS
    notes: list[str] = field(default_factory=list)

    @property
    def asked_ns(self) -> int:
        """Where TTFT and total time start, steady nanoseconds."""
        return self.question.asked_ns or self.submitted_ns

    @property
    def asked(self) -> QuestionAsked:
        """What the scheduler needs to know of it."""
        question = self.question
        return QuestionAsked(
            question.request_id,
            tuple(self.groups),
            question.deadline_ns,
            question.priority,
            question.session_id,
            question.preempts,
        )

    def begin(self, started_ns: int) -> None:
        """Take note that its first work item begins."""
        if not self.started_ns:
            self.started_ns = started_ns
            self.stream.begin(started_ns)

    def note_token(self, started_ns: int, now_ns: int) -> None:
        """Take note that a token was chosen, or the choices were scored.

        Args:
            started_ns: Steady time when that began, nanoseconds.
            now_ns: Steady time.
        """
        if not self.first_token_ns:
            self.first_token_ns = now_ns
            self.head_ns = now_ns - started_ns
        self.last_token_ns = now_ns

    def spend(self, work: Work, started_ns: int, stopped_ns: int) -> None:
        """Add to what a kind of work has cost."""
        spent_ns = self.spent_ns.get(type(work), 0)
        self.spent_ns[type(work)] = spent_ns + stopped_ns - started_ns

    def timings(self, now_ns: int) -> Timings:
        """Return what each stage has cost up to now."""
        turn = self.turn

        def seconds(*kinds: type[Work]) -> float:
            return sum(self.spent_ns.get(kind, 0) for kind in kinds) / NS_PER_S

        first_ns = self.first_text_ns or self.first_token_ns
        return Timings(
            queue_s=max(0, (self.started_ns or now_ns) - self.asked_ns) / NS_PER_S,
            prepare_s=seconds(Prepare),
            encode_s=seconds(Encode),
            prefill_s=seconds(Render, Prefill) + self.head_ns / NS_PER_S,
            decode_s=(self.last_token_ns - self.first_token_ns) / NS_PER_S,
            time_to_first_token_s=max(0, first_ns - self.asked_ns) / NS_PER_S if first_ns else 0.0,
            total_s=max(0, now_ns - self.asked_ns) / NS_PER_S,
            prompt_tokens=len(turn.prompt) if turn else 0,
            cached_prompt_tokens=turn.reused_tokens if turn else 0,
            vision_tokens=turn.prompt.vision_tokens if turn else 0,
            answer_tokens=len(turn.answer.tokens) if turn else 0,
        )

    def frame_refs(self) -> tuple[FrameRef, ...]:
        """Return the frames that the answer used (or, early, those of the question)."""
        return tuple(
            reference(stored, size, self.asked_ns)
            for stored, size in (self._asked() if self.turn is None else _shown(self.turn.frames))
        )

    @property
    def bad_frames(self) -> tuple[BadFrame, ...]:
        """The question's frames that cannot be decoded."""
        shown = [self.shown[key].prepared.bad_frames for key in self.groups if key in self.shown]
        return (*self.left_out, *chain.from_iterable(shown))

    def note_damage(self) -> None:
        """Note what the answer is not about, once all of the question's frames are prepared."""
        bad = self.bad_frames
        if bad:
            tried = len(self.left_out) + sum(len(group.frames) for group in self.groups.values())
            self.notes.append(
                f'{len(bad)} of {tried} frames could not be decoded: {bad[0].reason}'
            )

    def _asked(self) -> Iterator[tuple[StoredFrame, tuple[int, int]]]:
        """Give the question's frames, with their sizes as far as those are known."""
        for key, group in self.groups.items():
            if key in self.shown:
                yield from _shown([self.shown[key]])
            else:
                yield from ((stored, claimed_size(stored)) for stored in group.frames)

    def finish(
        self, error: EdgeVlmError | None, sessions: SessionStore, info: ModelInfo, now_ns: int
    ) -> None:
        """Give out its answer, which is over; a whole one becomes a turn of its conversation.

        Args:
            error: Why it is not whole; None = it is.
            sessions: The conversations that go on.
            info: The model.
            now_ns: Steady time, nanoseconds.
        """
        question, turn = self.question, self.turn
        if error is None and turn is not None:
            past = PastTurn(question.text, turn.new_frames, tuple(turn.answer.said))
            after = turn.conversation.with_turn(turn.prompt, past, question.system_prompt)
            sessions.put(question.session_id, turn.before, after)
        make_answer = partial(
            self.answer, error=error, now_ns=now_ns, model=info.model, chip=info.chip
        )
        self.stream.finish(make_answer, self.tail if error is None else '')

    def answer(
        self, text: str, *, error: EdgeVlmError | None, now_ns: int, model: str, chip: str
    ) -> Answer:
        """Make the final answer; `error` says why it is not whole, None = it is."""
        question = self.question
        choice, probability = self._choice(text) if error is None else ('', None)
        return Answer(
            request_id=question.request_id,
            text=text,
            finish_reason=FinishReason.of_error(error.code) if error else self.reason,
            error_code=error.code if error else ErrorCode.NONE,
            message=error.message if error else '; '.join(self.notes),
            session_id=question.session_id,
            frames=self.frame_refs(),
            timings=self.timings(now_ns),
            model=model,
            chip=chip,
            choice=choice,
            choice_probability=probability,
            bad_frames=self.bad_frames,
            readiness=self.turn.readiness if self.turn else Readiness.NONE,
            detections=NO_DETECTIONS if error else self.detections,
        )

    def _choice(self, text: str) -> tuple[str, float | None]:
        """Return which of the choices the answer is, and how probable, where that is known."""
        if self.turn is not None and isinstance(self.turn.answer, ClosedAnswer):
            return self.turn.answer.choice, self.turn.answer.probability
        return match_choice(text, self.question.choices), None


def _shown(frames: Iterable[ShownFrames]) -> Iterator[tuple[StoredFrame, tuple[int, int]]]:
    for frame in frames:
        for stored, size in zip(frame.group.frames, frame.prepared.sizes, strict=True):
            if size != (0, 0):  # Else it could not be decoded: its neighbour was shown.
                yield stored, size
