"""The parent's side of a model process: start it, talk to it, start it again when it dies.

Three kinds of threads. Callers' own: `ask`, `cancel` and so on only put messages into a queue. One
that sends, so that a hanging child holds up no caller. One that supervises: it starts the child,
reads what it says, calls back, watches the time. Callbacks come from it, and from a caller whose
own call ends a question at once.

A death costs the answer that had begun, and no other: the rest is asked again, of the next child.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from edge_vlm_ros.core import (
    NS_PER_S,
    Answer,
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
from edge_vlm_ros.serving.backend import with_request_id
from edge_vlm_ros.serving.model_info import ModelInfo, ModelSpec
from edge_vlm_ros.serving.process.aftermath import Aftermath
from edge_vlm_ros.serving.process.child_run import TICK_S, ChildRun, End, Outbox
from edge_vlm_ros.serving.process.held_questions import to_ask
from edge_vlm_ros.serving.process.messages import (
    AskMessage,
    CancelMessage,
    EnginePhase,
    EngineState,
    OpenMessage,
    Request,
    ResetMessage,
)
from edge_vlm_ros.serving.process.open_questions import OpenQuestions, refused
from edge_vlm_ros.serving.process.printed import LogLine, OnLog, log_line
from edge_vlm_ros.serving.process.restarts import Restarts
from edge_vlm_ros.serving.process.settings import ProcessSettings
from edge_vlm_ros.serving.process.state_log import log_state
from edge_vlm_ros.serving.process.wishes import Wishes
from edge_vlm_ros.serving.settings import ServingSettings
from edge_vlm_ros.serving.stream import AnswerStream

_log = logging.getLogger(__name__)
_PACKAGE = 'edge_vlm_ros'

_CLOSING_KILL_S = 2.0
"""How long `close` waits for a killed process. `ros2 launch` gives a node 5 s after SIGINT and 5 s
more after SIGTERM."""

_MARGIN_S = 5.0


class ModelProcess(Wishes):
    """A `Backend` in a process of its own, started again when it dies.

    Questions that come while the model loads, or is loaded again, wait for it; each no longer than
    its own deadline. So do those that a process had when it died or hung, but for the one whose
    answer had begun, and one that was under way in `max_deaths` deaths. Every question that `ask`
    takes ends in exactly one final chunk.

    A question that means to go on with a conversation that died with a process gets
    UNKNOWN_SESSION, once; after that the conversation begins anew.

    Args:
        spec: Which model.
        on_state: Given every change of state, on the supervising thread; None = it is logged.
        on_log: Given what the process logs and prints, on the supervising thread; None = it goes
            to Python's logging.
        log_level: Least level that is given; None = that of this package's logger.
        settings: Bounds of queue, caches and sessions.
        process_settings: Bounds of the process itself.
        clock: Steady time.
    """

    def __init__(  # noqa: PLR0913 (keywords)
        self,
        spec: ModelSpec,
        *,
        on_state: Callable[[EngineState], None] | None = None,
        on_log: OnLog | None = None,
        log_level: int | None = None,
        settings: ServingSettings = ServingSettings(),  # noqa: B008 (frozen)
        process_settings: ProcessSettings = ProcessSettings(),  # noqa: B008 (frozen)
        clock: Clock | None = None,
    ) -> None:
        super().__init__()
        self._spec = spec
        self._settings = settings
        self._bounds = process_settings
        self._clock = clock or SteadyClock()
        self._on_state = on_state or log_state
        self._on_log = on_log or log_line
        self._log_level = log_level
        self._open = OpenQuestions()
        self._state = EngineState(EnginePhase.CLOSED, message='not started')
        self._lock = threading.Lock()
        self._outbox: Outbox | None = None
        self._closing = threading.Event()
        self._supervisor: threading.Thread | None = None
        self._wake_read, self._wake_write = -1, -1

    @property
    def state(self) -> EngineState:
        """Where the process stands."""
        return self._state

    @property
    def info(self) -> ModelInfo | None:
        """The model, also while it is loaded again; None until it has been loaded once."""
        return self._state.info

    @property
    def held(self) -> int:
        """Questions that wait for the model to be loaded."""
        return self._open.held

    def start(self) -> None:
        """Start the process and return at once; `on_state` reports when it is ready.

        Also after a failure or `close`. Does nothing while it runs.
        """
        with self._lock:
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

    def ask(
        self,
        question: Question,
        on_chunk: Callable[[AnswerChunk], None] | None = None,
        on_begun: Callable[[int], None] | None = None,
    ) -> AnswerStream:
        """Ask, and return at once; see `Backend.ask`.

        Where the model failed or was closed, or more questions wait for it than the queue holds,
        the final chunk (NOT_READY, BUSY) comes before this returns, on the caller's thread.

        Raises:
            BadRequestError: A question of this request_id has not ended (DUPLICATE_REQUEST); no
                chunk follows.
        """
        question = with_request_id(question)
        stream = AnswerStream(
            question.request_id,
            clock=self._clock,
            cancel=self.cancel,
            on_chunk=on_chunk,
            on_begun=on_begun,
        )
        now_ns = self._clock.now_ns()
        answer: Answer | None = None
        end_other: Callable[[], None] | None = None
        with self._lock:
            self._open.check_new(question.request_id)
            try:
                self._check_ready()
                end_other = self._open.make_room(question, self._settings, now_ns)
            except EdgeVlmError as error:
                answer = refused(question, error, now_ns, self.info)
            else:
                self._open.hold(question, stream, now_ns)
                if self._outbox is not None:
                    self._give(self._open.give())
        if end_other is not None:
            end_other()
        if answer is not None:
            refusal = answer
            stream.finish(lambda _: refusal)
        return stream

    def cancel(self, request_id: str = '') -> int:
        """Cancel one question, or all (''); return how many were not over. Returns at once.

        A question that waits for the model ends before this returns, another within `late_s`.
        """
        number = self._open.cancel(request_id, self._clock.now_ns())
        with self._lock:
            self._put(CancelMessage(request_id))
        return number

    def reset_session(self, session_id: str = '') -> None:
        """Forget one conversation, or all (''). Returns at once."""
        self._open.forget_session(session_id)
        with self._lock:
            self._put(ResetMessage(session_id))

    def close(self) -> None:
        """End the process; safe to call twice, from any thread.

        Takes at most about `close_s`, and 2 s more where the process cannot even be killed.
        """
        with self._lock:
            supervisor = self._supervisor
            self._closing.set()
            self._wake()
        if supervisor is not None and supervisor is not threading.current_thread():
            # Bounded by what it does; the limit is for callbacks that never return.
            supervisor.join(self._bounds.close_s + _CLOSING_KILL_S + _MARGIN_S)

    def _check_ready(self) -> None:
        """Refuse questions that no model would answer; the caller holds the lock.

        Raises:
            NotReadyError: The model failed, or was closed.
        """
        state = self._state
        will_answer = state.phase not in {EnginePhase.FAILED, EnginePhase.CLOSED}
        if self._closing.is_set() or not will_answer:
            raise NotReadyError(f'the model is not ready: {state.message or state.phase.value}')

    def _give(self, questions: Sequence[Question]) -> None:
        """Ask the process; the caller holds the lock."""
        for question in questions:
            self._put(AskMessage(question))

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
            self._report(self._state)
            last = self._keep_running()
        except Exception as error:  # noqa: BLE001 (reported by the state)
            _log.exception('the model process cannot be supervised')
            last = EngineState(
                EnginePhase.FAILED, None, ErrorCode.INTERNAL, f'{type(error).__name__}: {error}'
            )
        with self._lock:
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_read, self._wake_write = -1, -1
        # First nobody can ask any more, then all that were asked are ended.
        self._set_state(last)
        reason: EdgeVlmError = CancelledError('the model process was closed')
        if last.phase is EnginePhase.FAILED:
            reason = EdgeVlmError(last.message, last.error_code)
        self._open.end_all(reason, self._clock.now_ns())
        self._report(last)

    def _keep_running(self) -> EngineState:
        """Start children until told to stop, or until that is of no use; return the last state."""
        bounds, restarts = self._bounds, Restarts(self._bounds)
        aftermath = Aftermath(self._spec)
        while True:
            aftermath.note_start()
            run, end = self._run_child(restarts.number)
            end = aftermath.explained(end)
            if self._closing.is_set():
                left_behind = run.close(min(_CLOSING_KILL_S, bounds.kill_s)) if run else ''
                if left_behind or end.cost.loss:
                    text = left_behind or end.error.message
                    self._log(LogLine(logging.ERROR, __name__, text))
                break
            goes_on = restarts.go_on(end)
            if goes_on:
                self._begin_again(end, restarts)
            left_behind = run.close(bounds.kill_s) if run else ''
            if left_behind or not goes_on:
                return self._given_up(end, left_behind, restarts)
            self._wait(restarts.backoff_s)
            if self._closing.is_set():
                break
            if hopeless := aftermath.hopeless():
                return self._given_up(end, hopeless, restarts)
        return EngineState(EnginePhase.CLOSED, self.info, restarts=restarts.number)

    def _begin_again(self, end: End, restarts: Restarts) -> None:
        """Say that another child will be started; hold the questions that it can answer."""
        again = f'{end.error.message}; starting again in {restarts.backoff_s:g} s'
        state = EngineState(
            EnginePhase.STARTING, self.info, end.error.code, again, restarts.number
        )
        self._set_state(state)
        if end.was_ready and end.under_way == '':
            self._drop_wish(end.error.message)
        self._open.take_back(
            end.error,
            end.under_way if end.was_ready else '',
            self._clock.now_ns(),
            max_deaths=self._bounds.max_deaths,
        )
        self._report(state)

    def _given_up(self, end: End, why: str, restarts: Restarts) -> EngineState:
        """Make the state in which no other child will be started, be it for the device's sake."""
        message, code = end.error.message, end.error.code
        if restarts.failed_starts > 1:
            message += f' ({restarts.failed_starts} starts failed)'
        if why:
            message, code = f'{message}; {why}', ErrorCode.DEVICE
        return EngineState(EnginePhase.FAILED, self.info, code, message, restarts.number)

    def _wait(self, seconds: float) -> None:
        """Let time pass, or less when told to stop; questions that wait are ended when due."""
        stop_ns = self._clock.now_ns() + round(seconds * NS_PER_S)
        while (left_ns := stop_ns - self._clock.now_ns()) > 0:
            if self._closing.wait(min(TICK_S, left_ns / NS_PER_S)):
                return
            self._open.end_late(self._clock.now_ns(), self._bounds.late_s)

    def _run_child(self, restarts: int) -> tuple[ChildRun | None, End]:
        """Follow a child until it is gone, or has to go; then it has still to be closed."""
        level = self._log_level or logging.getLogger(_PACKAGE).getEffectiveLevel()
        try:
            run = ChildRun(
                OpenMessage(self._spec, self._settings, level),
                self._open,
                bounds=self._bounds,
                clock=self._clock,
                on_log=self._log,
                on_ahead=self._report_ahead,
            )
        except OSError as error:
            return None, End(DeviceError(f'no model process can be started: {error}'))
        try:
            end = run.follow(
                lambda state: self._child_state(run, state, restarts),
                self._wake_read,
                self._closing,
            )
        except BaseException:
            run.close(_CLOSING_KILL_S)
            raise
        finally:
            self._turn_to(None)
            with self._lock:
                self._outbox = None
        return run, end

    def _child_state(self, run: ChildRun, state: EngineState, restarts: int) -> None:
        """Take a state that a child says it is in."""
        state = replace(state, restarts=restarts, info=state.info or self.info)
        self._set_state(state)
        if state.is_ready:
            with self._lock:
                self._outbox = run.outbox
                self._give(to_ask(self._open.give(), self._settings.queue_policy))
            self._turn_to(run.outbox)
        self._report(state)

    def _set_state(self, state: EngineState) -> None:
        with self._lock:
            self._state = state
            self._open.info = state.info

    def _report(self, state: EngineState) -> None:
        try:
            self._on_state(state)
        except Exception:  # noqa: BLE001 (the listener's own)
            _log.exception('on_state failed')

    def _log(self, line: LogLine) -> None:
        try:
            self._on_log(line)
        except Exception:  # noqa: BLE001 (the listener's own)
            _log.exception('on_log failed')
