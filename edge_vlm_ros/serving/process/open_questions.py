"""The questions a model process was given and has not finished: the parent's memory of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_vlm_ros.core import (
    NS_PER_S,
    Answer,
    AnswerChunk,
    BadRequestError,
    EdgeVlmError,
    ErrorCode,
    FinishReason,
    FrameRef,
    Question,
    RawImage,
    StoredFrame,
    Timings,
)

_REASONS = {
    ErrorCode.CANCELLED: FinishReason.CANCELLED,
    ErrorCode.DEADLINE: FinishReason.DEADLINE,
}


@dataclass(slots=True)
class _Open:
    question: Question
    asked_ns: int
    deltas: list[str] = field(default_factory=list)
    cancelled_ns: int = 0
    is_over: bool = False  # Ended from here; the model process has not said so yet.


class OpenQuestions:
    """Sees to it that each question gets exactly one final chunk; safe from any thread.

    Args:
        on_chunk: Given every chunk, outside the lock.
        model: For answers made here.
        chip: Likewise.
    """

    def __init__(self, on_chunk: Callable[[AnswerChunk], None], *, model: str, chip: str) -> None:
        self._on_chunk = on_chunk
        self._model = model
        self._chip = chip
        self._open: dict[str, _Open] = {}
        self._since_ns = 0
        self._lock = threading.Lock()

    @property
    def since_ns(self) -> int:
        """Steady time since when there is no moment without an open question; 0 = none is open."""
        with self._lock:
            return self._since_ns if self._open else 0

    def __len__(self) -> int:
        with self._lock:
            return len(self._open)

    def add(self, question: Question, now_ns: int) -> None:
        """Note a question that is about to be asked.

        Raises:
            BadRequestError: Its request_id is empty or that of another one (DUPLICATE_REQUEST).
        """
        request_id = question.request_id
        with self._lock:
            if not request_id or request_id in self._open:
                raise BadRequestError(
                    f'request_id {request_id!r} is empty or that of a running question',
                    ErrorCode.DUPLICATE_REQUEST,
                )
            if not self._open:
                self._since_ns = now_ns
            self._open[request_id] = _Open(question, question.asked_ns or now_ns)

    def pass_on(self, chunk: AnswerChunk) -> None:
        """Take a chunk of the model process; dropped when the question is over."""
        with self._lock:
            known = self._open.get(chunk.request_id)
            if known is None:
                return
            if chunk.done:
                del self._open[chunk.request_id]
            if known.is_over:
                return
            known.deltas.append(chunk.delta)
        self._on_chunk(chunk)

    def cancel(self, request_id: str, now_ns: int) -> int:
        """Note that a question, or all (''), is taken back; return how many were not over."""
        with self._lock:
            listed = [request_id] if request_id else list(self._open)
            chosen = [self._open[name] for name in listed if name in self._open]
            running = [known for known in chosen if not known.is_over]
            for known in running:
                known.cancelled_ns = known.cancelled_ns or now_ns
            return len(running)

    def end_late(self, now_ns: int, late_s: float) -> None:
        """End what was cancelled or ran out of time and the model process did not end."""
        limit_ns = now_ns - round(late_s * NS_PER_S)
        finals: list[AnswerChunk] = []
        with self._lock:
            for known in self._open.values():
                if known.is_over:
                    continue
                if 0 < known.cancelled_ns <= limit_ns:
                    code, message = ErrorCode.CANCELLED, 'the question was taken back'
                elif 0 < known.question.deadline_ns <= limit_ns:
                    code, message = ErrorCode.DEADLINE, 'the question ran out of time'
                else:
                    continue
                known.is_over = True
                finals.append(self._final(known, code, message, now_ns))
        self._give_out(finals)

    def end_all(self, error: EdgeVlmError, now_ns: int) -> None:
        """End every question: no model process will."""
        with self._lock:
            finals = [
                self._final(known, error.code, error.message, now_ns)
                for known in self._open.values()
                if not known.is_over
            ]
            self._open.clear()
        self._give_out(finals)

    def end_one(self, request_id: str, error: EdgeVlmError, now_ns: int) -> None:
        """End one question that never reached a model process."""
        with self._lock:
            known = self._open.pop(request_id, None)
            if known is None or known.is_over:
                return
            final = self._final(known, error.code, error.message, now_ns)
        self._give_out([final])

    def _give_out(self, finals: list[AnswerChunk]) -> None:
        for final in finals:
            self._on_chunk(final)

    def _final(self, known: _Open, code: ErrorCode, message: str, now_ns: int) -> AnswerChunk:
        question = known.question
        answer = Answer(
            request_id=question.request_id,
            session_id=question.session_id,
            text=''.join(known.deltas),
            finish_reason=_REASONS.get(code, FinishReason.ERROR),
            error_code=code,
            message=message,
            frames=tuple(map(_reference, question.frames)),
            timings=Timings(total_s=max(0, now_ns - known.asked_ns) / NS_PER_S),
            model=self._model,
            chip=self._chip,
        )
        return AnswerChunk(question.request_id, len(known.deltas), '', answer)


def _reference(stored: StoredFrame) -> FrameRef:
    """Name a frame; the size of a compressed one is not known here."""
    image = stored.image
    size = (image.width, image.height) if isinstance(image, RawImage) else (0, 0)
    return FrameRef(stored.source, stored.stamp_ns, *size)
