"""A backend without tokens, frames or engine: canned words. As a server would be."""

from __future__ import annotations

import threading

from edge_vlm_ros.core import (
    NS_PER_S,
    Answer,
    BadRequestError,
    CancelledError,
    DeadlineError,
    DeviceError,
    ErrorCode,
    FinishReason,
    NotReadyError,
    SteadyClock,
    Timings,
)
from edge_vlm_ros.serving.backend import with_request_id
from edge_vlm_ros.serving.model_info import ModelInfo, signed
from edge_vlm_ros.serving.stream import AnswerStream

PAUSE_S = 0.01


class CannedBackend:
    """Answers every question with as many words as it has, each on a thread of its own.

    A question that holds 'long' is answered without end, one that holds 'fail' not at all, one
    that holds 'crash' takes the process down.
    """

    def __init__(self, model, clock=None, on_work=None):
        self._info = ModelInfo(model=model or 'canned', chip='canned', max_images=2)
        self._clock = clock or SteadyClock()
        self._on_work = on_work or (lambda: None)
        self._streams = {}
        self._sessions = set()
        self._lock = threading.Lock()
        self._is_closed = False

    @classmethod
    def open(cls, spec, *, settings=None, clock=None, on_work=None, on_loaded=None):
        if spec.model == 'broken':
            raise DeviceError('the server cannot be reached')
        for part in range(3):
            if on_loaded is not None:
                on_loaded(part + 1, 3)
        return cls(spec.model, clock, on_work)

    @property
    def info(self):
        return self._info

    def ask(self, question, on_chunk=None):
        question = with_request_id(question)
        stream = AnswerStream(
            question.request_id, clock=self._clock, cancel=self.cancel, on_chunk=on_chunk
        )
        with self._lock:
            if self._is_closed:
                raise NotReadyError('the backend is closed')
            if question.request_id in self._streams:
                raise BadRequestError('it is still running', ErrorCode.DUPLICATE_REQUEST)
            self._streams[question.request_id] = stream
        threading.Thread(target=self._answer, args=(question, stream), daemon=True).start()
        return stream

    def cancel(self, request_id=''):
        with self._lock:
            chosen = [s for name, s in self._streams.items() if request_id in {'', name}]
        return sum(self._end(stream, CancelledError('taken back')) for stream in chosen)

    def reset_session(self, session_id=''):
        chosen = {name for name in self._sessions if session_id in {'', name}}
        self._sessions -= chosen
        return len(chosen)

    def close(self):
        self._is_closed = True
        self.cancel()

    def _answer(self, question, stream):
        words = [f'{len(question.frames)} frames:', *question.text.split()]
        if 'crash' in question.text:
            import os

            os._exit(7)
        if 'fail' in question.text:
            self._end(stream, DeviceError('the server fell over'))
            return
        index = 0
        while index < len(words) or 'long' in question.text:
            self._on_work()
            if 0 < question.deadline_ns <= self._clock.now_ns():
                self._end(stream, DeadlineError('out of time'))
                return
            if not stream.push(f'{words[index % len(words)]} '):
                return
            index += 1
            threading.Event().wait(PAUSE_S)
        if question.session_id:
            self._sessions.add(question.session_id)
        self._finish(stream, lambda text: self._good(question, text))

    def _good(self, question, text):
        total_s = (self._clock.now_ns() - question.asked_ns) / NS_PER_S if question.asked_ns else 0
        answer = Answer(
            question.request_id,
            text,
            FinishReason.STOP,
            session_id=question.session_id,
            timings=Timings(total_s=total_s),
        )
        return signed(answer, self._info)

    def _end(self, stream, error):
        return self._finish(
            stream,
            lambda text: signed(Answer.failed(stream.request_id, error, text=text), self._info),
        )

    def _finish(self, stream, make_answer):
        with self._lock:
            self._streams.pop(stream.request_id, None)
        return stream.finish(make_answer)
