"""The model process: a `Backend` at the other end of a `Channel`.

Started by `launcher.launch`, never by hand. It ends when told to, when its parent ends, or when a
chip library takes it down; then the parent starts another one.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

from edge_vlm_ros.core import (
    Answer,
    AnswerChunk,
    EdgeVlmError,
    ErrorCode,
    Question,
    SteadyClock,
)
from edge_vlm_ros.serving.model_info import signed
from edge_vlm_ros.serving.process.channel import Channel
from edge_vlm_ros.serving.process.messages import (
    AskMessage,
    BeatMessage,
    BegunMessage,
    CancelMessage,
    ChunkMessage,
    CloseMessage,
    EnginePhase,
    EngineState,
    LoadProgress,
    OpenMessage,
    Report,
    ResetMessage,
    StateMessage,
)

if TYPE_CHECKING:
    from edge_vlm_ros.serving.backend import Backend

_log = logging.getLogger(__name__)

# From the kernel's linux/prctl.h.
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PROCESS_NAME = b'edge-vlm-model'  # at most 15 bytes
_BEAT_NS = 200_000_000
_CLOSE_S = 3.5


def main(descriptor: int, parent: int) -> None:
    """Run the model process.

    Args:
        descriptor: The channel's socket.
        parent: The parent's process id.
    """
    # Ctrl-C in a terminal reaches every process at once: the parent ends this one in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent(parent)
    channel = Channel(socket.socket(fileno=descriptor))
    status = _Service(channel).run()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: a driver's threads or exit handlers may hang, and nothing is left to be done.
    os._exit(status)


def _end_with_parent(parent: int) -> None:
    """Have the kernel end this process with its parent, also while a driver hangs."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NAME, _PROCESS_NAME, 0, 0, 0)
    if os.getppid() != parent:  # It ended before it could be watched.
        os._exit(1)


class _Service:
    """Puts messages to a backend and its answers to messages."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._clock = SteadyClock()
        self._beaten_ns = 0

    def run(self) -> int:
        """Serve until the end; return the exit status."""
        try:
            opening = self._channel.receive()
        except (EOFError, OSError):
            return 0
        assert isinstance(opening, OpenMessage)
        logging.basicConfig(
            level=opening.log_level,
            stream=sys.stderr,
            format='[%(levelname)s] [model process] [%(name)s] %(message)s',
        )
        try:
            backend = self._open(opening)
        except EdgeVlmError as error:
            self._report(EnginePhase.FAILED, error.code, error.message)
            return 3
        except Exception as error:  # noqa: BLE001 (reported to the parent)
            _log.exception('the model cannot be loaded')
            message = f'{type(error).__name__}: {error}'
            self._report(EnginePhase.FAILED, ErrorCode.INTERNAL, message)
            return 3
        self._send(StateMessage(EngineState(EnginePhase.READY, backend.info)))
        try:
            self._serve(backend)
        finally:
            closing = threading.Thread(target=backend.close, daemon=True)
            closing.start()
            closing.join(_CLOSE_S)
        return 0

    def _open(self, opening: OpenMessage) -> Backend:
        # Imported here, so that what is missing or broken is reported and not only printed.
        from edge_vlm_ros.serving.backend import open_backend

        self._report(EnginePhase.STARTING, message='loading the model')
        return open_backend(
            opening.spec,
            settings=opening.settings,
            clock=self._clock,
            on_work=self._beat,
            on_loaded=self._report_progress,
        )

    def _serve(self, backend: Backend) -> None:
        while True:
            try:
                message = self._channel.receive()
            except (EOFError, OSError):
                return  # The parent is gone.
            if isinstance(message, AskMessage):
                self._ask(backend, message.question)
            elif isinstance(message, CancelMessage):
                backend.cancel(message.request_id)
            elif isinstance(message, ResetMessage):
                backend.reset_session(message.session_id)
            elif isinstance(message, CloseMessage):
                return

    def _ask(self, backend: Backend, question: Question) -> None:
        try:
            backend.ask(question, self._send_chunk, partial(self._send_begun, question.request_id))
        except EdgeVlmError as error:
            failed = Answer.failed(question.request_id, error, session_id=question.session_id)
            answer = signed(failed, backend.info)
            self._send_chunk(AnswerChunk(question.request_id, 0, '', answer))

    def _send_chunk(self, chunk: AnswerChunk) -> None:
        self._send(ChunkMessage(chunk))

    def _send_begun(self, request_id: str, begun_ns: int) -> None:
        self._send(BegunMessage(request_id, begun_ns))

    def _beat(self) -> None:
        now_ns = self._clock.now_ns()
        if now_ns - self._beaten_ns >= _BEAT_NS:
            self._beaten_ns = now_ns
            self._send(BeatMessage())

    def _report_progress(self, loaded: int, total: int) -> None:
        loading = LoadProgress(loaded, total)
        self._send(
            StateMessage(
                EngineState(EnginePhase.STARTING, message=f'loading: {loading}', loading=loading)
            )
        )

    def _report(
        self, phase: EnginePhase, code: ErrorCode = ErrorCode.NONE, message: str = ''
    ) -> None:
        self._send(StateMessage(EngineState(phase, None, code, message)))

    def _send(self, report: Report) -> None:
        # When the parent is gone nobody listens, and `_serve` is about to end.
        with contextlib.suppress(OSError):
            self._channel.send(report)
