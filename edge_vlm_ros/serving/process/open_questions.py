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
    BusyError,
    CancelledError,
    DeadlineError,
    EdgeVlmError,
    ErrorCode,
    Question,
    Timings,
)
from edge_vlm_ros.serving.frame_refs import frames_of
from edge_vlm_ros.serving.model_info import ModelInfo, signed
from edge_vlm_ros.serving.process.held_questions import has_to_go
from edge_vlm_ros.serving.process.known_sessions import KnownSessions, lost_session
from edge_vlm_ros.serving.settings import ServingSettings
from edge_vlm_ros.serving.stream import AnswerStream


@dataclass(slots=True)
class _Open:
    """A question that the model process has not finished.

    Attributes:
        question: What was asked.
        stream: Where its answer goes, and what has been said of it.
        asked_ns: Steady time when it came.
        is_held: It waits for a model; no process has it.
        has_said: A chunk of its answer has come: it cannot be asked again unnoticed.
        deaths: How many processes have died at work on it.
        cancelled_ns: Steady time when it was cancelled; 0 = it was not.
        is_over: It was ended from here; the process has not said so yet.
    """

    question: Question
    stream: AnswerStream
    asked_ns: int
    is_held: bool = True
    has_said: bool = False
    deaths: int = 0
    cancelled_ns: int = 0
    is_over: bool = False


class OpenQuestions:
    """Sees to it that each question ends, whatever becomes of the process; any thread.

    The register that outlives a model process: when one dies or hangs, the question whose answer
    has begun is ended from here, with what had been said; all others wait for the next process and
    are asked again, but for one that was under way in several deaths.
    Streams are called outside the lock, for who listens to them may call back.
    """

    def __init__(self) -> None:
        self.info: ModelInfo | None = None
        """The model that was loaded last; it stands in the answers made here."""

        self._open: dict[str, _Open] = {}
        self._sessions = KnownSessions()
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

    def check_new(self, request_id: str) -> None:
        """Refuse a request_id that is taken.

        Raises:
            BadRequestError: It is that of a question which is open (DUPLICATE_REQUEST).
        """
        with self._lock:
            if request_id in self._open:
                raise BadRequestError(
                    f'a question with request_id {request_id!r} is still running',
                    ErrorCode.DUPLICATE_REQUEST,
                )

    def make_room(
        self, question: Question, settings: ServingSettings, now_ns: int
    ) -> Callable[[], None] | None:
        """See that one more question may be held, as the queue of a loaded model would.

        Where nothing is held, as while a process takes questions, nothing stands in its way.

        Args:
            question: Would be held.
            settings: The queue's bounds and its policy.
            now_ns: Steady time.

        Returns:
            What ends the one that has to go, to be called outside every lock; None = none has to.

        Raises:
            BadRequestError: Its conversation was lost (UNKNOWN_SESSION; see `check_session`).
            BusyError: There is no room.
        """
        self.check_session(question.session_id)
        with self._lock:
            held = [known for known in self._open.values() if known.is_held]
            gone = has_to_go([known.question for known in held], question.priority, settings)
            if gone is not None:
                known = self._open.pop(gone[0].request_id)
                return partial(self._end, known, gone[1], now_ns)
        if len(held) >= settings.max_held:
            raise BusyError(
                f'{len(held)} questions wait for the model to be loaded, the queue holds '
                f'{settings.max_held}'
            )
        return None

    def hold(self, question: Question, stream: AnswerStream, now_ns: int) -> None:
        """Take in a question whose request_id is new; it is held until `give` hands it out."""
        with self._lock:
            if not self._open:
                self._since_ns = now_ns
            asked_ns = question.asked_ns or now_ns
            self._open[question.request_id] = _Open(question, stream, asked_ns)

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

    def relay(self, chunk: AnswerChunk) -> None:
        """Pass on a chunk of the model process; dropped when its question is over."""
        with self._lock:
            known = self._open.get(chunk.request_id)
            if known is not None:
                known.has_said = True
                if chunk.answer is not None:
                    del self._open[chunk.request_id]
                    if chunk.answer.success:
                        self._sessions.note(chunk.answer.session_id)
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

    def over_since_ns(self, request_id: str, now_ns: int) -> int:
        """Return since when a question that the process still has is over; 0 = it is not."""
        with self._lock:
            known = self._open.get(request_id)
            if known is None:
                return 0
            deadline_ns = known.question.deadline_ns
            overdue_ns = deadline_ns if 0 < deadline_ns <= now_ns else 0
            return min(filter(None, (known.cancelled_ns, overdue_ns)), default=0)

    def take_back(
        self, error: EdgeVlmError, under_way: str | None, now_ns: int, *, max_deaths: int
    ) -> None:
        """The process is gone: hold what it has not begun to answer, end what it has.

        Args:
            error: Why it is gone.
            under_way: The question it was at work on; '' = it was at work on none; None = that is
                not known: it may have been the one that was asked first.
            now_ns: Steady time.
            max_deaths: A question that was under way in so many deaths is ended, too.
        """
        with self._lock:
            given = [known for known in self._open.values() if not known.is_held]
            if under_way is None and given:
                under_way = given[0].question.request_id
            for known in given:
                known.deaths += known.question.request_id == under_way
            ended = [(known, self._end_of(known, error, now_ns, max_deaths)) for known in given]
            self._sessions.lose()
            for known, reason in ended:
                known.is_held = reason is None
                if reason is not None:
                    del self._open[known.question.request_id]
                    if reason.code is ErrorCode.UNKNOWN_SESSION:
                        self._sessions.forget(known.question.session_id)
        for known, reason in ended:
            if reason is not None:
                self._end(known, reason, now_ns)

    def _end_of(
        self, known: _Open, error: EdgeVlmError, now_ns: int, max_deaths: int
    ) -> EdgeVlmError | None:
        """Say how a question ends whose process is gone; None = it is asked again."""
        question = known.question
        if known.cancelled_ns:
            return CancelledError('the question was cancelled')
        if 0 < question.deadline_ns <= now_ns:
            return DeadlineError('the question ran out of time')
        if known.has_said or known.stream.done:
            return error
        if known.deaths >= max_deaths:
            return EdgeVlmError(
                f'{error.message}, at work on this question: {known.deaths} times so far',
                error.code,
            )
        if self._sessions.is_known(question.session_id):
            return lost_session(question.session_id)
        return None

    def check_session(self, session_id: str) -> None:
        """Refuse to go on with a conversation that was lost; the next time it begins anew.

        Raises:
            BadRequestError: It was lost with a process (UNKNOWN_SESSION).
        """
        with self._lock:
            if self._sessions.is_lost(session_id):
                self._sessions.forget(session_id)
                raise lost_session(session_id)

    def forget_session(self, session_id: str = '') -> None:
        """Have a conversation, or all (''), begin anew."""
        with self._lock:
            self._sessions.forget(session_id)

    def end_all(self, error: EdgeVlmError, now_ns: int) -> None:
        """End every question: there will be no process."""
        with self._lock:
            ended = list(self._open.values())
            self._open.clear()
            self._sessions.lose()
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
            frames = frames_of(question, known.asked_ns)
            return signed(replace(failed, frames=frames, timings=timings), self.info)

        known.stream.finish(answer)


def refused(
    question: Question, error: EdgeVlmError, now_ns: int, info: ModelInfo | None
) -> Answer:
    """Return the answer to a question that was not taken in."""
    failed = Answer.failed(question.request_id, error, session_id=question.session_id)
    frames = frames_of(question, question.asked_ns or now_ns)
    return signed(replace(failed, frames=frames), info)
