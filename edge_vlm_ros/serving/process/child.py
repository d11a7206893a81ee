"""The model process: a `Backend` at the other end of a `Channel`.

Started by `launcher.launch`, never by hand. It ends when told to, when its parent ends, or when a
chip library takes it down; then the parent starts another one. How it ends is `ending`'s.

Three threads beside those of the backend: the main thread opens the backend and puts messages to
it, one reads messages, so that an end is also heard while the model loads, and one ends it all.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import queue
import signal
import socket
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from edge_vlm_ros.core import (
    Answer,
    AnswerChunk,
    EdgeVlmError,
    Question,
    SetupError,
    SteadyClock,
    listen_needs,
)
from edge_vlm_ros.serving.ahead import PreparesAhead
from edge_vlm_ros.serving.model_info import signed
from edge_vlm_ros.serving.process.channel import Channel, GarbledError
from edge_vlm_ros.serving.process.ending import Ending, Status, end, end_with_parent
from edge_vlm_ros.serving.process.messages import (
    AheadMessage,
    AskMessage,
    BeatMessage,
    BegunMessage,
    CancelMessage,
    ChunkMessage,
    CloseMessage,
    EnginePhase,
    EngineState,
    LoadProgress,
    LogMessage,
    NeedsMessage,
    OfferMessage,
    OpenMessage,
    PrefixMessage,
    Report,
    Request,
    ResetMessage,
    StandingMessage,
    StateMessage,
)
from edge_vlm_ros.serving.process.printed import LogLine
from edge_vlm_ros.serving.process.wire_frames import FrameReceiver
from edge_vlm_ros.serving.standing import TellsStanding
from edge_vlm_ros.serving.step import CHIP_THREAD, REST, Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_vlm_ros.serving.backend import Backend

_log = logging.getLogger(__name__)

_PR_SET_NAME = 15  # From the kernel's linux/prctl.h.
_PROCESS_NAME = b'edge-vlm-model'  # at most 15 bytes
_BEAT_NS = 200_000_000
_IO_BY_LINES = 1  # From stdio.h: _IOLBF, of glibc and musl.


class _ToParent(logging.Handler):
    """Sends what is logged here to the parent, whose log it becomes part of.

    Args:
        send: Sends a message.
    """

    def __init__(self, send: Callable[[Report], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        try:
            text = self.format(record)
        except Exception as error:  # noqa: BLE001 (a record that cannot be written)
            text = f'{record.msg!r}: {type(error).__name__}: {error}'
        self._send(LogMessage(LogLine(record.levelno, record.name, text)))


def main(descriptor: int, parent: int) -> None:
    """Run the model process.

    Args:
        descriptor: The channel's socket.
        parent: The parent's process id.
    """
    # Ctrl-C in a terminal reaches every process at once: the parent ends this one in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_NAME, _PROCESS_NAME, 0, 0, 0)
    ending = Ending()
    ending.heed_signals()
    end_with_parent(parent)
    _print_by_lines()
    threading.excepthook = partial(_on_lost_thread, ending)
    end(_Service(Channel(socket.socket(fileno=descriptor)), ending).run())


def _on_lost_thread(ending: Ending, lost: threading.ExceptHookArgs) -> None:
    """A thread that answers questions has failed: end the process, so that another one starts."""
    if lost.exc_value is not None:
        _log.critical('thread %s failed', lost.thread, exc_info=lost.exc_value)
    if lost.thread is not None and lost.thread.name == CHIP_THREAD:
        ending.fail()


def _print_by_lines() -> None:
    """Have each printed line go out at once: into a pipe, C and Python print whole pages."""
    libc = ctypes.CDLL(None)
    with contextlib.suppress(ValueError, AttributeError):  # Another C library than glibc or musl.
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, 'stdout'), None, _IO_BY_LINES, 0)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors='backslashreplace')


class _Service:
    """Puts messages to a backend and its answers to messages."""

    def __init__(self, channel: Channel, ending: Ending) -> None:
        self._channel = channel
        self._ending = ending
        self._inbox: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._clock = SteadyClock()
        self._beaten_ns = 0
        self._step = REST
        self._loaded = 0

    def run(self) -> int:
        """Serve until the end, which comes from elsewhere; return the status of a failure."""
        threading.Thread(target=self._read, name='reader', daemon=True).start()
        opening = self._inbox.get()
        assert isinstance(opening, OpenMessage)
        logging.basicConfig(
            level=opening.log_level, format='%(message)s', handlers=[_ToParent(self._send)]
        )
        logging.captureWarnings(capture=True)
        listen_needs(lambda needs: self._send(NeedsMessage(needs)))
        backend: Backend | None = None
        try:
            backend = self._open(opening)
        except EdgeVlmError as error:
            if not self._ending.is_asked:
                self._fail(error)
        except BaseException as error:  # noqa: BLE001 (reported to the parent)
            _log.critical('the model cannot be loaded', exc_info=error)
            self._fail(EdgeVlmError(f'{type(error).__name__}: {error}'))
        self._ending.opened(backend)
        if backend is not None:
            self._send(StateMessage(EngineState(EnginePhase.READY, backend.info)))
            try:
                self._serve(backend)
            except Exception as error:  # noqa: BLE001 (logged; another process answers)
                _log.critical('the model process fails', exc_info=error)
                self._ending.fail()
        if self._ending.is_asked:
            threading.Event().wait()  # The end is under way.
        return Status.FAILED

    def _read(self) -> None:
        """Put messages into the inbox; an end is told at once, whatever the others do."""
        try:
            while True:
                message = self._channel.receive()
                if isinstance(message, CloseMessage) and not self._ending.is_open:
                    self._ending.close()  # What came before it cannot be questions.
                else:
                    self._inbox.put(message)
        except (EOFError, OSError):
            self._ending.parent_gone()
        except GarbledError as error:
            _log.critical('the parent has sent nonsense: %s', error)
            self._ending.fail()

    def _open(self, opening: OpenMessage) -> Backend:
        # Imported here, so that what is missing or broken is reported and not only printed.
        from edge_vlm_ros.serving.backend import open_backend

        self._send(StateMessage(EngineState(EnginePhase.STARTING, message='loading the model')))
        return open_backend(
            opening.spec,
            settings=opening.settings,
            clock=self._clock,
            on_work=self._beat,
            on_loaded=self._report_progress,
        )

    def _serve(self, backend: Backend) -> NoReturn:
        frames = FrameReceiver()
        self._listen(backend)
        while True:
            message = self._inbox.get()
            if isinstance(message, AskMessage | PrefixMessage):
                message = frames.unpack(message)
            if isinstance(message, AskMessage):
                self._ask(backend, message.question)
            elif isinstance(message, PrefixMessage | OfferMessage):
                _prepare(backend, message)
            elif isinstance(message, CancelMessage):
                backend.cancel(message.request_id)
            elif isinstance(message, ResetMessage):
                backend.reset_session(message.session_id)
            elif isinstance(message, CloseMessage):
                self._ending.close()

    def _listen(self, backend: Backend) -> None:
        """Pass on what the backend says unasked."""
        if isinstance(backend, PreparesAhead):
            backend.listen_ahead(lambda report: self._send(AheadMessage(report)))
        if isinstance(backend, TellsStanding):
            backend.listen_standing(lambda standing: self._send(StandingMessage(standing)))

    def _ask(self, backend: Backend, question: Question) -> None:
        try:
            backend.ask(question, self._send_chunk, partial(self._send_begun, question.request_id))
        except EdgeVlmError as error:
            failed = Answer.failed(question.request_id, error, session_id=question.session_id)
            answer = signed(failed, backend.info)
            self._send_chunk(AnswerChunk(question.request_id, 0, '', answer))

    def _send_chunk(self, chunk: AnswerChunk) -> None:
        if not self._ending.is_silent:  # Else the parent asks the next process.
            self._send(ChunkMessage(chunk))

    def _send_begun(self, request_id: str, begun_ns: int) -> None:
        self._send(BegunMessage(request_id, begun_ns))

    def _beat(self, step: Step) -> None:
        now_ns = self._clock.now_ns()
        if step != self._step or now_ns - self._beaten_ns >= _BEAT_NS:
            self._beaten_ns, self._step = now_ns, step
            self._send(BeatMessage(step))

    def _report_progress(self, loaded: int, total: int) -> None:
        self._ending.check()
        if loaded <= self._loaded:
            return  # It only asks whether to go on.
        self._loaded = loaded
        loading = LoadProgress(loaded, total)
        self._send(
            StateMessage(
                EngineState(EnginePhase.STARTING, message=f'loading: {loading}', loading=loading)
            )
        )

    def _fail(self, error: EdgeVlmError) -> None:
        is_set_up_wrong = isinstance(error, SetupError)
        state = EngineState(
            EnginePhase.FAILED,
            error_code=error.code,
            message=error.message,
            is_set_up_wrong=is_set_up_wrong,
        )
        self._send(StateMessage(state))

    def _send(self, report: Report) -> None:
        # When the parent is gone nobody listens, and this process is about to end.
        with contextlib.suppress(OSError):
            self._channel.send(report)


def _prepare(backend: Backend, message: PrefixMessage | OfferMessage) -> None:
    """Have something made ready, by a backend that can."""
    if not isinstance(backend, PreparesAhead):
        return
    try:
        if isinstance(message, PrefixMessage):
            backend.want_prefix(message.prefix)
        else:
            backend.offer_frames(message.frames, message.shown_as)
    except EdgeVlmError as error:  # It is being closed, or has never heard of such frames.
        _log.warning('nothing is made ready: %s', error.message)
