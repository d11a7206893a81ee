"""One model process from its start to its end, as the parent's supervising thread follows it."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import threading
from collections.abc import Callable
from dataclasses import dataclass

from edge_vlm_ros.core import (
    NS_PER_S,
    CancelledError,
    Clock,
    DeviceError,
    EdgeVlmError,
    ErrorCode,
)
from edge_vlm_ros.serving.process.launcher import Child
from edge_vlm_ros.serving.process.messages import (
    BegunMessage,
    ChunkMessage,
    CloseMessage,
    EnginePhase,
    EngineState,
    OpenMessage,
    Report,
    Request,
    StateMessage,
)
from edge_vlm_ros.serving.process.open_questions import OpenQuestions
from edge_vlm_ros.serving.process.settings import ProcessSettings

TICK_S = 0.05
"""How often the time is looked at while there is something to watch."""

# What only a person who changes the set-up can mend: to start again would change nothing.
_DEPLOYER_CODES = frozenset(
    {ErrorCode.MODEL_FILE, ErrorCode.BAD_REQUEST, ErrorCode.UNSUPPORTED_OPTION}
)


@dataclass(frozen=True, slots=True)
class End:
    """Why a child is gone.

    Attributes:
        error: For the questions that it had.
        was_ready: Its model was loaded.
        ready_s: For so long.
    """

    error: EdgeVlmError
    was_ready: bool
    ready_s: float = 0.0

    @property
    def is_final(self) -> bool:
        """Whether another start would end likewise."""
        return not self.was_ready and self.error.code in _DEPLOYER_CODES


class ChildRun:
    """A child that is started here, followed, and gone after `close`.

    Belongs to the supervising thread, apart from `outbox`.

    Args:
        opening: The first message to it.
        questions: Where its chunks go, and whose time is watched.
        bounds: How long it may take for what.
        clock: Steady time.

    Raises:
        OSError: No process can be started.
    """

    def __init__(
        self,
        opening: OpenMessage,
        questions: OpenQuestions,
        *,
        bounds: ProcessSettings,
        clock: Clock,
    ) -> None:
        self._questions = questions
        self._bounds = bounds
        self._clock = clock
        self._child = Child()
        self._heard_ns = clock.now_ns()
        self._ready_ns = 0
        self._last_words = ''
        self._failure: EngineState | None = None
        self.outbox: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        """What is to be sent to it; any thread may put something in."""

        self.outbox.put(opening)
        self._sender = threading.Thread(
            target=self._send_all, name='model-process-sender', daemon=True
        )
        self._sender.start()

    def follow(
        self, on_state: Callable[[EngineState], None], wake: int, closing: threading.Event
    ) -> End:
        """Read what it says until it is gone or has to go; return why.

        Args:
            on_state: Given each state it reports, but for a failure, which is why it is gone.
            wake: File descriptor that becomes readable when there is something new to watch.
            closing: Set to end it in order.
        """
        error = self._listen(on_state, wake, closing)
        ready_ns = self._clock.now_ns() - self._ready_ns if self._ready_ns else 0
        return End(error, was_ready=ready_ns > 0, ready_s=ready_ns / NS_PER_S)

    def close(self) -> None:
        """Kill it if it still runs, and free what it took."""
        self._child.kill()
        self._child.end(1.0)
        self.outbox.put(None)
        self._sender.join()
        self._child.channel.close()

    def _send_all(self) -> None:
        """Send what is queued until None comes or the child is gone."""
        with contextlib.suppress(OSError):
            while (message := self.outbox.get()) is not None:
                self._child.channel.send(message)

    def _listen(
        self, on_state: Callable[[EngineState], None], wake: int, closing: threading.Event
    ) -> EdgeVlmError:
        channel = self._child.channel
        sources = [channel.fileno(), wake]
        while True:
            is_watching = not self._ready_ns or len(self._questions) > 0
            readable, _, _ = select.select(sources, [], [], TICK_S if is_watching else None)
            if wake in readable:
                os.read(wake, 4096)
            if closing.is_set():
                self._end_in_order()
                return CancelledError('the model process was closed')
            if channel.fileno() in readable:
                try:
                    message = channel.receive()
                except (EOFError, OSError):
                    return self._cause_of_death()
                self._take(message, on_state)
            now_ns = self._clock.now_ns()
            self._questions.end_late(now_ns, self._bounds.late_s)
            stall = self._stall(now_ns)
            if stall is not None:
                return stall

    def _take(self, message: Report, on_state: Callable[[EngineState], None]) -> None:
        """Act on what the child says."""
        self._heard_ns = self._clock.now_ns()
        if isinstance(message, ChunkMessage):
            self._questions.relay(message.chunk)
        elif isinstance(message, BegunMessage):
            self._questions.begin(message.request_id, message.begun_ns)
        elif isinstance(message, StateMessage):
            state = message.state
            if state.phase is EnginePhase.FAILED:
                self._failure = state
                return
            if state.is_ready:
                self._ready_ns = self._heard_ns
            self._last_words = state.message
            on_state(state)

    def _stall(self, now_ns: int) -> DeviceError | None:
        """Tell what takes too long, if anything does."""
        bounds = self._bounds
        if not self._ready_ns:
            if now_ns - self._heard_ns > bounds.silence_s * NS_PER_S:
                last = self._last_words or 'starting the model process'
                return DeviceError(
                    f'nothing was heard of the model for {bounds.silence_s:g} s; '
                    f'the last was: {last}'
                )
            return None
        since_ns = self._questions.since_ns
        if since_ns and now_ns - max(since_ns, self._heard_ns) > bounds.stall_s * NS_PER_S:
            return DeviceError(f'the chip did not finish a step within {bounds.stall_s:g} s')
        return None

    def _cause_of_death(self) -> EdgeVlmError:
        """Say why it ended by itself."""
        how = self._child.end(timeout_s=2.0)
        if self._failure is not None:
            return EdgeVlmError(self._failure.message, self._failure.error_code)
        return EdgeVlmError(f'the model process {how}', ErrorCode.ENGINE_DIED)

    def _end_in_order(self) -> None:
        """Let it end by itself and pass on its last words; it is killed if it does not."""
        if not self._ready_ns:
            return  # Still loading: it has nothing to say.
        self.outbox.put(CloseMessage())
        channel = self._child.channel
        stop_ns = self._clock.now_ns() + round(self._bounds.close_s * NS_PER_S)
        while (left_ns := stop_ns - self._clock.now_ns()) > 0:
            readable, _, _ = select.select([channel.fileno()], [], [], left_ns / NS_PER_S)
            if not readable:
                return
            try:
                message = channel.receive()
            except (EOFError, OSError):
                return
            if isinstance(message, ChunkMessage):
                self._questions.relay(message.chunk)
