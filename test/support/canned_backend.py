"""A backend without tokens, engine or files: canned words, as a server's would be."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge_vlm_ros.core import (
    NS_PER_S,
    Answer,
    AnswerChunk,
    BadRequestError,
    CancelledError,
    Clock,
    DeadlineError,
    DeviceError,
    EdgeVlmError,
    ErrorCode,
    FinishReason,
    NotReadyError,
    Question,
    SteadyClock,
    Timings,
)
from edge_vlm_ros.serving.backend import with_request_id
from edge_vlm_ros.serving.model_info import ModelInfo, ModelSpec, signed
from edge_vlm_ros.serving.settings import ServingSettings
from edge_vlm_ros.serving.step import OnStep, Step
from edge_vlm_ros.serving.stream import AnswerStream

if TYPE_CHECKING:
    from edge_vlm_ros.serving.backend import BackendType

PAUSE_S = 0.01


class CannedBackend:
    """Says how many frames it was shown and repeats the question, word by word.

    Each question has a thread of its own. One that holds 'long' is answered without end, one that
    holds 'fail' not at all, one that holds 'crash' takes the process down.

    Args:
        model: Its name; '' = 'canned'.
        clock: Steady time.
        on_work: Called before each word.
    """

    def __init__(
        self,
        model: str,
        clock: Clock | None = None,
        on_work: OnStep | None = None,
    ) -> None:
        self._info = ModelInfo(model=model or 'canned', chip='canned', max_images=2)
        self._clock = clock or SteadyClock()
        self._on_work = on_work
        self._streams: dict[str, AnswerStream] = {}
        self._sessions: set[str] = set()
        self._lock = threading.Lock()
        self._is_closed = False

    @classmethod
    def open(
        cls,
        spec: ModelSpec,
        *,
        settings: ServingSettings | None = None,
        clock: Clock | None = None,
        on_work: OnStep | None = None,
        on_loaded: Callable[[int, int], None] | None = None,
    ) -> CannedBackend:
        """Open it, in three parts; the model 'broken' cannot be.

        Raises:
            DeviceError: The model is 'broken'.
        """
        del settings
        if spec.model == 'broken':
            raise DeviceError('the server cannot be reached')
        for part in range(3):
            if on_loaded is not None:
                on_loaded(part + 1, 3)
        return cls(spec.model, clock, on_work)

    @property
    def info(self) -> ModelInfo:
        """What it calls itself."""
        return self._info

    def ask(
        self,
        question: Question,
        on_chunk: Callable[[AnswerChunk], None] | None = None,
        on_begun: Callable[[int], None] | None = None,
    ) -> AnswerStream:
        """Ask; see `Backend.ask`."""
        question = with_request_id(question)
        stream = AnswerStream(
            question.request_id,
            clock=self._clock,
            cancel=self.cancel,
            on_chunk=on_chunk,
            on_begun=on_begun,
        )
        with self._lock:
            if self._is_closed:
                raise NotReadyError('the backend is closed')
            if question.request_id in self._streams:
                raise BadRequestError(
                    f'request_id {question.request_id!r} is still running',
                    ErrorCode.DUPLICATE_REQUEST,
                )
            self._streams[question.request_id] = stream
        threading.Thread(target=self._answer, args=(question, stream), daemon=True).start()
        return stream

    def cancel(self, request_id: str = '') -> int:
        """Cancel one question, or all (''); return how many there were."""
        with self._lock:
            chosen = [s for name, s in self._streams.items() if request_id in {'', name}]
        return sum(self._fail(stream, CancelledError('cancelled')) for stream in chosen)

    def reset_session(self, session_id: str = '') -> int:
        """Forget one conversation, or all (''); return how many there were."""
        chosen = {name for name in self._sessions if session_id in {'', name}}
        self._sessions -= chosen
        return len(chosen)

    def close(self) -> None:
        """End every question."""
        self._is_closed = True
        self.cancel()

    def _answer(self, question: Question, stream: AnswerStream) -> None:
        stream.begin(self._clock.now_ns())
        if self._on_work is not None:
            self._on_work(Step('answer', question.request_id))
        if 'crash' in question.text:
            os._exit(7)
        if 'fail' in question.text:
            self._fail(stream, DeviceError('the server fell over'))
            return
        words = [f'{len(question.frames)} frames:', *question.text.split()]
        index = 0
        while index < len(words) or 'long' in question.text:
            if self._on_work is not None:
                self._on_work(Step('answer', question.request_id))
            if 0 < question.deadline_ns <= self._clock.now_ns():
                self._fail(stream, DeadlineError('out of time'))
                return
            if not stream.push(f'{words[index % len(words)]} '):
                return
            index += 1
            threading.Event().wait(PAUSE_S)
        if question.session_id:
            self._sessions.add(question.session_id)
        self._finish(stream, lambda text: self._good(question, text))

    def _good(self, question: Question, text: str) -> Answer:
        asked_ns = question.asked_ns or self._clock.now_ns()
        answer = Answer(
            question.request_id,
            text,
            FinishReason.STOP,
            session_id=question.session_id,
            timings=Timings(total_s=(self._clock.now_ns() - asked_ns) / NS_PER_S),
        )
        return signed(answer, self._info)

    def _fail(self, stream: AnswerStream, error: EdgeVlmError) -> bool:
        return self._finish(
            stream,
            lambda text: signed(Answer.failed(stream.request_id, error, text=text), self._info),
        )

    def _finish(self, stream: AnswerStream, make_answer: Callable[[str], Answer]) -> bool:
        with self._lock:
            self._streams.pop(stream.request_id, None)
        return stream.finish(make_answer)


if TYPE_CHECKING:
    _is_a_backend: BackendType = CannedBackend
