"""Answers: chunk by chunk, and whole."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from edge_vlm_ros.core.clock import NS_PER_S
from edge_vlm_ros.core.detection import NO_DETECTIONS, Detections
from edge_vlm_ros.core.errors import ErrorCode
from edge_vlm_ros.core.prefix import Readiness

if TYPE_CHECKING:
    from edge_vlm_ros.core.errors import EdgeVlmError
    from edge_vlm_ros.core.frames import BadFrame, FrameRef


class FinishReason(IntEnum):
    """How an answer ended; `msg/Answer.msg` holds the same constants."""

    NONE = 0
    STOP = 1
    LENGTH = 2
    CONTEXT = 3
    STOP_STRING = 4
    CANCELLED = 5
    DEADLINE = 6
    PREEMPTED = 7
    ERROR = 8

    @classmethod
    def of_error(cls, code: ErrorCode) -> FinishReason:
        """Return how a question has ended that failed with a code; the one place that decides.

        Args:
            code: Any but `ErrorCode.NONE`: how a good answer ended is the model's doing.
        """
        assert code is not ErrorCode.NONE
        return _ENDS_OF_THEIR_OWN.get(code, cls.ERROR)


_ENDS_OF_THEIR_OWN = {
    ErrorCode.CANCELLED: FinishReason.CANCELLED,
    ErrorCode.DEADLINE: FinishReason.DEADLINE,
    ErrorCode.PREEMPTED: FinishReason.PREEMPTED,
}
"""Nothing broke there: somebody decided that the question should end."""


@dataclass(frozen=True, slots=True)
class Timings:
    """What each stage of one answer cost. Seconds of steady time unless said.

    Attributes:
        queue_s: Question received to the start of its work: waiting for a frame, for the model to
            be loaded, for other questions.
        prepare_s: Frames decoded, resized, normalised for the vision tower; 0 when that was done
            before.
        encode_s: Vision tower and projector; 0 when the features were cached.
        prefill_s: Prompt into the KV cache, for this question alone.
        decode_s: First token to last token.
        time_to_first_token_s: Question received to first text given out.
        total_s: Question received to final chunk.
        prompt_tokens: All tokens before the answer, cached ones too.
        cached_prompt_tokens: Those found in the KV cache.
        vision_tokens: Placeholders filled from frames.
        answer_tokens: Tokens of the answer, the stop token not counted.
    """

    queue_s: float = 0.0
    prepare_s: float = 0.0
    encode_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    time_to_first_token_s: float = 0.0
    total_s: float = 0.0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    vision_tokens: int = 0
    answer_tokens: int = 0

    @classmethod
    def outside(
        cls, *, asked_ns: int, now_ns: int, begun_ns: int = 0, first_text_ns: int = 0
    ) -> Timings:
        """Return what is known where the work is not done: there a question may end, too.

        Args:
            asked_ns: Steady time when the question came, nanoseconds.
            now_ns: Steady time of its end.
            begun_ns: Steady time when work for it began; 0 = it only waited.
            first_text_ns: Steady time of its first text; 0 = none came.
        """

        def seconds(stop_ns: int) -> float:
            return max(0, stop_ns - asked_ns) / NS_PER_S

        return cls(
            queue_s=seconds(begun_ns or now_ns),
            time_to_first_token_s=seconds(first_text_ns) if first_text_ns else 0.0,
            total_s=seconds(now_ns),
        )

    @property
    def run_s(self) -> float:
        """From the start of its work to the final chunk; 0 where it only waited."""
        return max(0.0, self.total_s - self.queue_s)

    @property
    def tokens_per_second(self) -> float:
        """Decode speed after the first token; 0 with fewer than two tokens."""
        if self.answer_tokens < 2 or self.decode_s <= 0:
            return 0.0
        return (self.answer_tokens - 1) / self.decode_s


@dataclass(frozen=True, slots=True)
class AnswerChunk:
    """One chunk of an answer.

    Attributes:
        request_id: The question's.
        sequence: 0, 1, 2, ... within the request.
        delta: New text, whole characters only; may be empty in the final chunk.
        answer: Set in the final chunk and only there.
    """

    request_id: str
    sequence: int
    delta: str
    answer: Answer | None = None

    @property
    def done(self) -> bool:
        """Whether this is the request's final chunk."""
        return self.answer is not None


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer, or how the question failed.

    Attributes:
        request_id: The question's.
        session_id: The question's.
        text: All deltas joined; partial text after a cancel, deadline or late error.
        finish_reason: How it ended.
        error_code: `NONE` unless it failed.
        message: For people; never part of the answer.
        frames: The frames used, oldest first.
        timings: What each stage cost.
        model: Catalogue name or path of the model that is loaded; '' = none has been yet.
        chip: 'cpu', 'bm1684x', ...; '' = as above.
        choice: Which of the question's choices it was; '' when none fits or none were given.
        choice_probability: Of `choice`, given that the answer is one of the choices, by the
            model's scores; None = not known.
        bad_frames: Those of the cameras that cannot be decoded, which the answer is not about.
        readiness: How much of it was there before the question came.
        detections: The places that it names in a frame.
    """

    request_id: str
    text: str
    finish_reason: FinishReason
    error_code: ErrorCode = ErrorCode.NONE
    message: str = ''
    session_id: str = ''
    frames: tuple[FrameRef, ...] = ()
    timings: Timings = Timings()
    model: str = ''
    chip: str = ''
    choice: str = ''
    choice_probability: float | None = None
    bad_frames: tuple[BadFrame, ...] = ()
    readiness: Readiness = Readiness.NONE
    detections: Detections = NO_DETECTIONS

    @classmethod
    def failed(
        cls, request_id: str, error: EdgeVlmError, *, session_id: str = '', text: str = ''
    ) -> Answer:
        """Return the answer to a question that failed.

        Args:
            request_id: The question's.
            error: Why.
            session_id: The question's.
            text: What had been said before it failed.
        """
        return cls(
            request_id=request_id,
            text=text,
            finish_reason=FinishReason.of_error(error.code),
            error_code=error.code,
            message=error.message,
            session_id=session_id,
        )

    @property
    def success(self) -> bool:
        """Whether the answer may be acted on."""
        return self.error_code is ErrorCode.NONE
