"""The parent's side of a model process: start it, talk to it, start it again when it dies.

Three kinds of threads. Callers' own: `ask`, `cancel` and so on only put messages into a queue. One
that sends, so that a hanging child holds up no caller. One that supervises: it starts the child,
reads what it says, calls back, watches the time; all callbacks come from it, except the refusal of
a question that is asked while no model is ready.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from edge_vlm_ros.core import (
    NS_PER_S,
    AnswerChunk,
    CancelledError,
    Clock,
    DeviceError,
    EdgeVlmError,
    ErrorCode,
    NotReadyError,
    Question,
    SteadyClock,
)
from edge_vlm_ros.serving.model_info import ModelSpec
from edge_vlm_ros.serving.process.launcher import Child
from edge_vlm_ros.serving.process.messages import (
    AskMessage,
    CancelMessage,
    ChunkMessage,
    CloseMessage,
    EnginePhase,
    EngineState,
    OpenMessage,
    Report,
    Request,
    ResetMessage,
    StateMessage,
)
from edge_vlm_ros.serving.process.open_questions import OpenQuestions
from edge_vlm_ros.serving.process.settings import ProcessSettings
from edge_vlm_ros.serving.settings import ServingSettings

_log = logging.getLogger(__name__)

_TICK_S = 0.05
# What only a person who changes the set-up can mend: to start again would change nothing.
_DEPLOYER_CODES = frozenset(
    {ErrorCode.MODEL_FILE, ErrorCode.BAD_REQUEST, ErrorCode.UNSUPPORTED_OPTION}
)


@dataclass(frozen=True, slots=True)
class _End:
    """Why a child is gone."""

    error: EdgeVlmError
    was_ready: bool
    ready_s: float = 0.0

    @property
    def is_final(self) -> bool:
        return not self.was_ready and self.error.code in _DEPLOYER_CODES


class ModelProcess:
    """A model in a process of its own; the same questions and chunks as `VlmPipeline`.

    Every question that `ask` takes ends in exactly one final chunk, also when the process dies.

    Args:
        spec: Which model.
        on_chunk: Given every chunk.
        on_state: Given every change of state.
        settings: Bounds of queue, caches and sessions.
        process_settings: Bounds of the process itself.
        clock: Steady time.
    """

    def __init__(  # noqa: PLR0913 (keywords)
        self,
        spec: ModelSpec,
        *,
        on_chunk: Callable[[AnswerChunk], None],
        on_state: Callable[[EngineState], None] | None = None,
        settings: ServingSettings = ServingSettings(),  # noqa: B008 (frozen)
        process_settings: ProcessSettings = ProcessSettings(),  # noqa: B008 (frozen)
        clock: Clock | None = None,
    ) -> None:
        self._spec = spec
        self._settings = settings
        self._bounds = process_settings
        self._clock = clock or SteadyClock()
        self._on_state = on_state
        self._on_chunk = on_chunk
        self._open = OpenQuestions(self._give_chunk, model=spec.model, chip=spec.chip)
        self._state = EngineState(EnginePhase.CLOSED, message='not started')
        self._changed = threading.Condition()
        self._outbox: queue.SimpleQueue[Request | None] | None = None
        self._closing = threading.Event()
        self._supervisor: threading.Thread | None = None
        self._heard_ns = 0
        self._wake_read, self._wake_write = -1, -1

    @property
    def state(self) -> EngineState:
        """Where the process stands."""
        return self._state

    def start(self) -> None:
        """Start the process and return at once; `on_state` tells when it is ready.

        Also after a failure or `close`. Does nothing while it runs.
        """
        with self._changed:
            if self._supervisor is not None and self._supervisor.is_alive():
                return
            self._closing.clear()
            self._wake_read, self._wake_write = os.pipe()
            os.set_blocking(self._wake_write, False)
            self._state = EngineState(EnginePhase.STARTING, message='starting the model process')
            self._supervisor = threading.Thread(
                target=self._supervise, name='model-process', daemon=True
            )
            self._supervisor.start()

    def wait_ready(self, timeout_s: float | None = None) -> EngineState:
        """Wait until the process is ready, has failed or is closed; return its state."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._state.phase is not EnginePhase.STARTING, timeout_s
            )
            return self._state

    def ask(self, question: Question) -> None:
        """Ask; the answer comes chunk by chunk to `on_chunk`. Returns at once.

        While no model is ready the final chunk (NOT_READY, with the reason) comes before this
        returns, on the caller's thread.

        Raises:
            BadRequestError: The request_id is empty or that of a running question
                (DUPLICATE_REQUEST); no chunk follows.
        """
        self._open.add(question, self._clock.now_ns())
        with self._changed:
            is_ready = self._state.is_ready and not self._closing.is_set()
            reason = self._state.message or self._state.phase.value
            if is_ready:
                self._put(AskMessage(question))
        if not is_ready:
            error = NotReadyError(f'the model is not ready: {reason}')
            self._open.end_one(question.request_id, error, self._clock.now_ns())

    def cancel(self, request_id: str = '') -> int:
        """Take one question back, or all (''); return how many are not over. Returns at once."""
        number = self._open.cancel(request_id, self._clock.now_ns())
        if number:
            with self._changed:
                self._put(CancelMessage(request_id))
        return number

    def reset_session(self, session_id: str = '') -> None:
        """Forget one conversation, or all (''). Returns at once."""
        with self._changed:
            self._put(ResetMessage(session_id))

    def close(self) -> None:
        """End the process; safe to call twice, from any thread. Takes at most about `close_s`."""
        with self._changed:
            supervisor = self._supervisor
            self._closing.set()
            self._wake()
        if supervisor is not None and supervisor is not threading.current_thread():
            supervisor.join()

    def _put(self, message: Request) -> None:
        """Queue a message; the caller holds the lock."""
        if self._outbox is not None:
            self._outbox.put(message)
            self._wake()

    def _wake(self) -> None:
        """Let the supervising thread look at the time and at `_closing`."""
        if self._wake_write >= 0:
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_write, b'x')

    # --- the supervising thread ------------------------------------------------------------------

    def _supervise(self) -> None:
        try:
            self._tell(self._state)
            last = self._keep_running()
        except Exception as error:  # noqa: BLE001 (told by the state)
            _log.exception('the model process cannot be supervised')
            last = EngineState(
                EnginePhase.FAILED, None, ErrorCode.INTERNAL, f'{type(error).__name__}: {error}'
            )
        with self._changed:
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_read, self._wake_write = -1, -1
        self._tell(last)
        if last.phase is EnginePhase.FAILED:
            self._end_all(NotReadyError(f'the model is not ready: {last.message}'))

    def _keep_running(self) -> EngineState:
        """Start children until told to stop or it is of no use; return the last state."""
        bounds = self._bounds
        backoff_s, failed_starts, restarts = bounds.first_backoff_s, 0, 0
        while True:
            end = self._run_child(restarts)
            if self._closing.is_set():
                self._end_all(CancelledError('the model process was closed'))
                return EngineState(EnginePhase.CLOSED, restarts=restarts)
            failed_starts = 0 if end.was_ready else failed_starts + 1
            if end.ready_s >= bounds.healthy_s:
                backoff_s = bounds.first_backoff_s
            is_hopeless = end.is_final or failed_starts >= bounds.max_failed_starts
            code, message = end.error.code, end.error.message
            if is_hopeless:
                times = f' ({failed_starts} starts failed)' if failed_starts > 1 else ''
                state = EngineState(EnginePhase.FAILED, None, code, message + times, restarts)
            else:
                restarts += 1
                again = f'{message}; starting again in {backoff_s:g} s'
                state = EngineState(EnginePhase.STARTING, None, code, again, restarts)
            _log.error('%s', state.message)
            # First nobody can ask any more, then all that were asked are ended.
            self._set_state(state)
            self._end_all(end.error)
            if is_hopeless:
                return state
            self._tell(state)
            self._closing.wait(backoff_s)
            backoff_s = min(2 * backoff_s, bounds.max_backoff_s)
            if self._closing.is_set():
                return EngineState(EnginePhase.CLOSED, restarts=restarts)

    def _run_child(self, restarts: int) -> _End:
        try:
            child = Child()
        except OSError as error:
            return _End(DeviceError(f'no model process can be started: {error}'), was_ready=False)
        outbox: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        level = logging.getLogger().getEffectiveLevel()
        outbox.put(OpenMessage(self._spec, self._settings, level))
        sender = threading.Thread(
            target=_send_all, args=(child, outbox), name='model-process-sender', daemon=True
        )
        sender.start()
        self._heard_ns = self._clock.now_ns()
        self._ready_ns = 0
        self._failure: EngineState | None = None
        try:
            reason = self._listen(child, outbox, restarts)
            ready_ns = self._clock.now_ns() - self._ready_ns if self._ready_ns else 0
            return _End(reason, was_ready=ready_ns > 0, ready_s=ready_ns / NS_PER_S)
        finally:
            with self._changed:
                self._outbox = None
            child.kill()
            child.end(1.0)
            outbox.put(None)
            sender.join()
            child.channel.close()

    def _listen(
        self, child: Child, outbox: queue.SimpleQueue[Request | None], restarts: int
    ) -> EdgeVlmError:
        """Read what a child says until it is gone or has to go; return why."""
        sources = [child.channel.fileno(), self._wake_read]
        while True:
            is_watching = not self._ready_ns or len(self._open) > 0
            readable, _, _ = select.select(sources, [], [], _TICK_S if is_watching else None)
            if self._wake_read in readable:
                os.read(self._wake_read, 4096)
            if self._closing.is_set():
                self._close_child(child, outbox)
                return CancelledError('the model process was closed')
            if child.channel.fileno() in readable:
                try:
                    message = child.channel.receive()
                except (EOFError, OSError):
                    return self._death_of(child)
                self._take(message, outbox, restarts)
            now_ns = self._clock.now_ns()
            self._open.end_late(now_ns, self._bounds.late_s)
            stall = self._stall(now_ns)
            if stall is not None:
                return stall

    def _take(
        self, message: Report, outbox: queue.SimpleQueue[Request | None], restarts: int
    ) -> None:
        """Act on what a child says."""
        self._heard_ns = self._clock.now_ns()
        if isinstance(message, ChunkMessage):
            self._open.pass_on(message.chunk)
        elif isinstance(message, StateMessage):
            if message.state.phase is EnginePhase.FAILED:
                self._failure = message.state  # Told when the child is gone.
                return
            if message.state.is_ready:
                self._ready_ns = self._heard_ns
                with self._changed:
                    self._outbox = outbox
            self._tell(replace(message.state, restarts=restarts))

    def _stall(self, now_ns: int) -> DeviceError | None:
        """Tell what takes too long, if anything does."""
        bounds = self._bounds
        if not self._ready_ns:
            if now_ns - self._heard_ns > bounds.silence_s * NS_PER_S:
                return DeviceError(
                    f'nothing was heard of the model for {bounds.silence_s:g} s; '
                    f'the last was: {self._state.message}'
                )
            return None
        since_ns = self._open.since_ns
        if since_ns and now_ns - max(since_ns, self._heard_ns) > bounds.stall_s * NS_PER_S:
            return DeviceError(f'the chip did not finish a step within {bounds.stall_s:g} s')
        return None

    def _death_of(self, child: Child) -> EdgeVlmError:
        """Say why a child ended by itself."""
        how = child.end(timeout_s=2.0)
        if self._failure is not None:
            return EdgeVlmError(self._failure.message, self._failure.error_code)
        return EdgeVlmError(f'the model process {how}', ErrorCode.ENGINE_DIED)

    def _close_child(self, child: Child, outbox: queue.SimpleQueue[Request | None]) -> None:
        """Let a child end in order and pass on its last words; it is killed if it does not."""
        if not self._ready_ns:
            return  # Still loading: it has nothing to say.
        outbox.put(CloseMessage())
        stop_ns = self._clock.now_ns() + round(self._bounds.close_s * NS_PER_S)
        while (left_ns := stop_ns - self._clock.now_ns()) > 0:
            readable, _, _ = select.select([child.channel.fileno()], [], [], left_ns / NS_PER_S)
            if not readable:
                return
            try:
                message = child.channel.receive()
            except (EOFError, OSError):
                return
            if isinstance(message, ChunkMessage):
                self._open.pass_on(message.chunk)

    def _set_state(self, state: EngineState) -> None:
        with self._changed:
            self._state = state
            self._changed.notify_all()

    def _tell(self, state: EngineState) -> None:
        self._set_state(state)
        if self._on_state is None:
            return
        try:
            self._on_state(state)
        except Exception:  # noqa: BLE001 (the listener's own)
            _log.exception('on_state failed')

    def _give_chunk(self, chunk: AnswerChunk) -> None:
        try:
            self._on_chunk(chunk)
        except Exception:  # noqa: BLE001 (the listener's own)
            _log.exception('on_chunk failed for %s', chunk.request_id)

    def _end_all(self, error: EdgeVlmError) -> None:
        self._open.end_all(error, self._clock.now_ns())


def _send_all(child: Child, outbox: queue.SimpleQueue[Request | None]) -> None:
    """Send what is queued until None comes or the child is gone."""
    with contextlib.suppress(OSError):
        while (message := outbox.get()) is not None:
            child.channel.send(message)
