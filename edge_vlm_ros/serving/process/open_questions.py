"""The questions a model process was given or will be: the parent's memory of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from edge_vlm_ros.core import (
    NS_PER_S,
    Answer,
    AnswerChunk,
    BadRequestError,
    CancelledError,
    DeadlineError,
    EdgeVlmError,
    ErrorCode,
    Priority,
    Question,
    Timings,
)
from edge_vlm_ros.scheduling import oldest_of_lowest
from edge_vlm_ros.serving.endings import frames_of, replaced_error
from edge_vlm_ros.serving.model_info import ModelInfo, signed
from edge_vlm_ros.serving.stream import AnswerStream


@dataclass(slots=True)
class _Open:
    """A question that the model process has not finished.

    Attributes:
        question: What was asked.
        stream: Where its answer goes, and what has been said of it.
        asked_ns: Steady time when it came.
        is_held: It waits for a model; no process was given it.
        cancelled_ns: Steady time when it was cancelled; 0 = it was not.
        is_over: It was ended from here; the process has not said so yet.
    """

    question: Question
    stream: AnswerStream
    asked_ns: int
    is_held: bool = True
    cancelled_ns: int = 0
    is_over: bool = False


class OpenQuestions:
    """Sees to it that each question ends, whatever becomes of the process; any thread.

    The register that outlives a model process: when one dies or hangs, the questions it was given
    are ended from here, with what had been said, and those it was not given wait for the next.
    Streams are called outside the lock, for who listens to them may call back.
    """

    def __init__(self) -> None:
        self.info: ModelInfo | None = None
        """The model that was loaded last; it stands in the answers made here."""

        self._open: dict[str, _Open] = {}
        self._since_ns = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._open)

    @property
    def held(self) -> int:
        """Questions that wait for a model."""
        with self._lock:
            return sum(known.is_held for known in self._open.values())

    @property
    def since_ns(self) -> int:
        """Steady time since when there is no moment without an open question; 0 = none is open."""
        with self._lock:
            return self._since_ns if self._open else 0

    def hold(self, question: Question, stream: AnswerStream, now_ns: int) -> None:
        """Take a question in; it is held until `give` hands it out.

        Raises:
            BadRequestError: Its request_id is that of a question which is open
                (DUPLICATE_REQUEST).
        """
        request_id = question.request_id
        with self._lock:
            if request_id in self._open:
                raise BadRequestError(
                    f'a question with request_id {request_id!r} is still running',
                    ErrorCode.DUPLICATE_REQUEST,
                )
            if not self._open:
                self._since_ns = now_ns
            self._open[request_id] = _Open(question, stream, question.asked_ns or now_ns)

    def give(self) -> list[Question]:
        """Hand out the questions that are held, oldest first; from now on a process has them."""
        with self._lock:
            held = [known for known in self._open.values() if known.is_held]
            for known in held:
                known.is_held = False
            return [known.question for known in held]

    def begin(self, request_id: str, begun_ns: int) -> None:
        """Take note that the process begins a question."""
        with self._lock:
            known = self._open.get(request_id)
        if known is not None:
            known.stream.begin(begun_ns)

    def replace_held(self, priority: Priority, now_ns: int) -> Callable[[], None] | None:
        """Take out the oldest of the lowest priority of those that are held, for a newcomer.

        Returns:
            What ends it, to be called outside every lock; None = all have a higher priority.
        """
        with self._lock:
            held = [known for known in self._open.values() if known.is_held]
            victim = oldest_of_lowest([known.question for known in held])
            if victim is None or victim.priority > priority:
                return None
            known = self._open.pop(victim.request_id)
        return partial(self._end, known, replaced_error(), now_ns)

    def relay(self, chunk: AnswerChunk) -> None:
        """Pass on a chunk of the model process; dropped when its question is over."""
        with self._lock:
            known = self._open.get(chunk.request_id)
            if known is not None and chunk.done:
                del self._open[chunk.request_id]
        if known is not None:
            known.stream.relay(chunk)

    def cancel(self, request_id: str, now_ns: int) -> int:
        """Cancel a question, or all (''); return how many were not over.

        Those that are held end now; the others when the process says so, or by `end_late`.
        """
        with self._lock:
            listed = [request_id] if request_id else list(self._open)
            chosen = [self._open[name] for name in listed if name in self._open]
            held = [known for known in chosen if known.is_held]
            for known in chosen:
                known.cancelled_ns = known.cancelled_ns or now_ns
            for known in held:
                del self._open[known.question.request_id]
        number = sum(not known.stream.done for known in chosen)
        for known in held:
            self._end(known, CancelledError('cancelled before the model was loaded'), now_ns)
        return number

    def end_late(self, now_ns: int, late_s: float) -> None:
        """End what was cancelled or ran out of time and the model process did not end.

        Args:
            now_ns: Steady time.
            late_s: How long the process may take for it. What is held has no process to wait for.
        """
        late_ns = now_ns - round(late_s * NS_PER_S)
        late: list[tuple[_Open, EdgeVlmError]] = []
        with self._lock:
            for known in self._open.values():
                if known.is_over:
                    continue
                limit_ns = now_ns if known.is_held else late_ns
                if 0 < known.cancelled_ns <= limit_ns:
                    late.append((known, CancelledError('the question was cancelled')))
                elif 0 < known.question.deadline_ns <= limit_ns:
                    late.append((known, DeadlineError('the question ran out of time')))
            for known, _ in late:
                known.is_over = True
                if known.is_held:
                    del self._open[known.question.request_id]
        for known, error in late:
            self._end(known, error, now_ns)

    def end_given(self, error: EdgeVlmError, now_ns: int) -> None:
        """End every question that the process was given: it is gone."""
        self._end_some(error, now_ns, with_held=False)

    def end_all(self, error: EdgeVlmError, now_ns: int) -> None:
        """End every question: there will be no process."""
        self._end_some(error, now_ns, with_held=True)

    def _end_some(self, error: EdgeVlmError, now_ns: int, *, with_held: bool) -> None:
        with self._lock:
            ended = [known for known in self._open.values() if with_held or not known.is_held]
            for known in ended:
                del self._open[known.question.request_id]
        for known in ended:
            self._end(known, error, now_ns)

    def _end(self, known: _Open, error: EdgeVlmError, now_ns: int) -> None:
        question = known.question

        def answer(text: str) -> Answer:
            failed = Answer.failed(
                question.request_id, error, session_id=question.session_id, text=text
            )
            timings = Timings.outside(
                asked_ns=known.asked_ns,
                now_ns=now_ns,
                begun_ns=known.stream.begun_ns,
                first_text_ns=known.stream.first_text_ns,
            )
            frames = frames_of(question)
            return signed(replace(failed, frames=frames, timings=timings), self.info)

        known.stream.finish(answer)
