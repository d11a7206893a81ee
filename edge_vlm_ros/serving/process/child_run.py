"""One model process from its start to its end, as the parent's supervising thread follows it.

Nothing here waits without a limit, whatever the child does: it is read as far as it has written,
it is sent to by a thread of its own, and one that not even SIGKILL ends is left behind.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from edge_vlm_ros.core import (
    NO_NEEDS,
    NS_PER_S,
    CancelledError,
    Clock,
    DeviceError,
    EdgeVlmError,
    EndNeeds,
    ErrorCode,
)
from edge_vlm_ros.serving.ahead import OnAhead
from edge_vlm_ros.serving.process.channel import GarbledError
from edge_vlm_ros.serving.process.hearing import Hearing
from edge_vlm_ros.serving.process.launcher import Child
from edge_vlm_ros.serving.process.messages import (
    AheadMessage,
    AskMessage,
    BeatMessage,
    BegunMessage,
    ChunkMessage,
    CloseMessage,
    EnginePhase,
    EngineState,
    LogMessage,
    NeedsMessage,
    OpenMessage,
    PrefixMessage,
    Report,
    Request,
    StandingMessage,
    StateMessage,
)
from edge_vlm_ros.serving.process.open_questions import OpenQuestions
from edge_vlm_ros.serving.process.printed import OnLog
from edge_vlm_ros.serving.process.settings import ProcessSettings
from edge_vlm_ros.serving.process.step_watch import StepWatch
from edge_vlm_ros.serving.process.wire_frames import FrameSender
from edge_vlm_ros.serving.standing import Standing

Outbox: TypeAlias = 'queue.SimpleQueue[Request | Callable[[], Request] | None]'

TICK_S = 0.05
"""How often the time is looked at while there is something to watch."""

_TOLD_EVERY_NS = NS_PER_S
_MOST_AT_ONCE = 256
"""Messages that are taken before the time is looked at again."""

_MOST_GRACE_S = 60.0
"""How long one that must never be killed is waited for before it is left to itself."""

_LAST_WORDS_S = 2.0
"""Time a child has from closing its channel to its end."""

# What only a person who changes the set-up can mend: to start again would change nothing.
_DEPLOYER_CODES = frozenset(
    {ErrorCode.MODEL_FILE, ErrorCode.BAD_REQUEST, ErrorCode.UNSUPPORTED_OPTION}
)


@dataclass(frozen=True, slots=True)
class End:
    """Why a child is gone, or has to go.

    Attributes:
        error: For the questions that it had.
        was_ready: Its model was loaded.
        ready_s: For so long.
        under_way: The question that it was at work on, by request_id; '' = at work on none;
            None = not known.
        is_set_up_wrong: Another start would end likewise.
        cost: What it cost that it did not end in order; nothing where it did.
    """

    error: EdgeVlmError
    was_ready: bool = False
    ready_s: float = 0.0
    under_way: str | None = None
    is_set_up_wrong: bool = False
    cost: EndNeeds = NO_NEEDS


class ChildRun:
    """A child that is started here, followed, and gone after `close`.

    Belongs to the supervising thread, apart from `outbox`.

    Args:
        opening: The first message to it.
        questions: Where its chunks go, and whose time is watched.
        bounds: How long it may take for what.
        clock: Steady time.
        on_log: Given what it logs and prints.
        on_ahead: Given what it says of what is ready.

    Raises:
        OSError: No process can be started.
    """

    def __init__(  # noqa: PLR0913 (keywords)
        self,
        opening: OpenMessage,
        questions: OpenQuestions,
        *,
        bounds: ProcessSettings,
        clock: Clock,
        on_log: OnLog,
        on_ahead: OnAhead,
    ) -> None:
        self._on_ahead = on_ahead
        self._questions = questions
        self._bounds = bounds
        self._clock = clock
        self._child = Child()
        self._hearing = Hearing(self._child, opening.log_level, on_log, clock)
        self._heard_ns = clock.now_ns()
        self._ready_ns = 0
        self._watch: StepWatch | None = None
        self._told_ns = 0
        self._last_words = ''
        self._standing = Standing()
        self._failure: EngineState | None = None
        self._needs = NO_NEEDS
        self._is_heard = False
        self._asked_ns = 0
        self.outbox: Outbox = queue.SimpleQueue()
        """What is to be sent to it, or gives that when its turn has come; any thread may put
        something in."""

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
            on_state: Given each state it reports, but for a failure, which is why it is gone; and
                STALLED, READY when it falls silent and is heard again.
            wake: File descriptor that becomes readable when there is something new to watch.
            closing: Set to end it in order.
        """
        error = self._listen(on_state, wake, closing)
        if self._needs.grace_s:  # Else a kill, which `close` is for, costs nothing.
            self._ask_to_end()
        ready_ns = self._clock.now_ns() - self._ready_ns if self._ready_ns else 0
        step = self._watch.step if self._watch is not None else None
        failure = self._failure
        return End(
            error,
            was_ready=ready_ns > 0,
            ready_s=ready_ns / NS_PER_S,
            under_way=None if step is None or step.is_rest else step.request_id,
            is_set_up_wrong=failure is not None
            and (failure.is_set_up_wrong or failure.error_code in _DEPLOYER_CODES),
            cost=NO_NEEDS if self._child.was_in_order else self._needs,
        )

    def close(self, kill_s: float) -> str:
        """End it if it still runs, and free what it took.

        Args:
            kill_s: How long it may take to die.

        Returns:
            '', or a sentence about a process that cannot be killed.
        """
        left_behind = self._end_child(kill_s)
        self.outbox.put(None)
        self._sender.join()  # The channel is shut: no `send` waits any more.
        self._hearing.end()
        self._child.close()
        return left_behind

    def _end_child(self, kill_s: float) -> str:
        if not self._child.is_over and not self._may_kill():
            return self._child.leave_behind(self._needs.loss)
        return '' if self._child.end(0.0, kill_s) else self._child.leave_behind()

    def _may_kill(self) -> bool:
        """Whether it costs nothing, or it was asked to end and had its time."""
        if not self._needs.may_be_killed:
            return False
        waited_s = (self._clock.now_ns() - self._asked_ns) / NS_PER_S if self._asked_ns else 0.0
        return bool(self._ready_ns) or waited_s >= self._needs.grace_s

    def _send_all(self) -> None:
        """Send what is queued until None comes or the child is gone."""
        frames = FrameSender()
        with contextlib.suppress(OSError):
            while (message := self.outbox.get()) is not None:
                if callable(message):
                    message = message()
                if isinstance(message, AskMessage | PrefixMessage):
                    message = frames.pack(message)
                self._child.channel.send(message)

    def _listen(
        self, on_state: Callable[[EngineState], None], wake: int, closing: threading.Event
    ) -> EdgeVlmError:
        poll = self._hearing.poll(wake)
        while True:
            ready = self._hearing.wait(poll, TICK_S if self._is_watching() else None)
            if wake in ready:
                os.read(wake, 4096)
            if closing.is_set():
                self._end_in_order()
                return CancelledError('the model process was closed')
            if self._child.channel.fileno() in ready:
                error = self._take_all(on_state)
                if error is not None:
                    return error
            now_ns = self._clock.now_ns()
            self._questions.end_late(now_ns, self._bounds.late_s)
            stall = self._stall(now_ns, on_state)
            if stall is not None:
                return stall

    def _is_watching(self) -> bool:
        """Whether time matters: the child loads, works, or should."""
        watch = self._watch
        return watch is None or not watch.step.is_rest or len(self._questions) > 0

    def _take_all(self, on_state: Callable[[EngineState], None]) -> EdgeVlmError | None:
        """Act on what the child has said; return why it is gone, if it is."""
        try:
            for _ in range(_MOST_AT_ONCE):
                message = self._child.channel.receive_now()
                if message is None:
                    break
                self._take(message, on_state)
        except (EOFError, OSError):
            return self._cause_of_death()
        except GarbledError as error:
            return DeviceError(f'the model process has sent nonsense: {error}')
        return None

    def _take(self, message: Report, on_state: Callable[[EngineState], None]) -> None:
        """Act on what the child says."""
        now_ns = self._heard_ns = self._clock.now_ns()
        self._is_heard = True
        if isinstance(message, ChunkMessage):
            self._take_chunk(message, now_ns)
        elif isinstance(message, BegunMessage):
            self._questions.begin(message.request_id, message.begun_ns)
        elif isinstance(message, BeatMessage):
            if self._watch is not None:
                self._watch.hear(now_ns, message.step)
        elif isinstance(message, LogMessage):
            self._hearing.log_all([message.line])
        elif isinstance(message, AheadMessage):
            self._on_ahead(message.report)
        elif isinstance(message, NeedsMessage):
            self._needs = message.needs
        elif isinstance(message, StandingMessage):
            self._standing = message.standing
            on_state(self._now(EnginePhase.READY))
        elif isinstance(message, StateMessage):
            self._take_state(message.state, now_ns, on_state)

    def _take_state(
        self, state: EngineState, now_ns: int, on_state: Callable[[EngineState], None]
    ) -> None:
        if state.phase is EnginePhase.FAILED:
            self._failure = state
            return
        if state.is_ready:
            self._ready_ns = now_ns
            self._watch = StepWatch(state.info, now_ns, self._bounds.stall_s)
        self._last_words = state.message
        on_state(state)

    def _take_chunk(self, message: ChunkMessage, now_ns: int) -> None:
        chunk = message.chunk
        self._questions.relay(chunk)
        if self._watch is None:
            return
        if chunk.done:
            self._watch.hear_final(chunk.request_id, now_ns)
        else:
            self._watch.hear(now_ns)

    def _stall(self, now_ns: int, on_state: Callable[[EngineState], None]) -> DeviceError | None:
        """Say what takes too long, if anything does; before that, tell of the silence."""
        watch = self._watch
        if watch is None:
            silence_s = self._bounds.silence_s
            if now_ns - self._heard_ns <= silence_s * NS_PER_S:
                return None
            last = self._last_words or 'starting the model process'
            return DeviceError(
                f'nothing was heard of the model for {silence_s:g} s; the last was: {last}'
            )
        since_ns = self._questions.since_ns
        over_ns = self._questions.over_since_ns(watch.step.request_id, now_ns)
        self._tell(watch, watch.silence_s(now_ns, since_ns), now_ns, on_state)
        verdict = watch.verdict(now_ns, since_ns, over_ns)
        return DeviceError(verdict) if verdict else None

    def _tell(
        self,
        watch: StepWatch,
        silence_s: float,
        now_ns: int,
        on_state: Callable[[EngineState], None],
    ) -> None:
        """Tell of a silence, and of its end."""
        if not watch.is_told(silence_s):
            if self._told_ns:
                self._told_ns = 0
                on_state(self._now(EnginePhase.READY))
        elif now_ns - self._told_ns >= _TOLD_EVERY_NS:
            self._told_ns = now_ns
            message = f'no sign of life for {silence_s:.1f} s {watch.step}'
            on_state(self._now(EnginePhase.STALLED, message))

    def _now(self, phase: EnginePhase, message: str = '') -> EngineState:
        """Make the state of a child that is ready, or was until it fell silent."""
        info = self._standing.info or (self._watch.info if self._watch is not None else None)
        return EngineState(phase, info, message=message, standing=self._standing)

    def _cause_of_death(self) -> EdgeVlmError:
        """Say why it ended by itself."""
        how = self._child.end(_LAST_WORDS_S, self._bounds.kill_s)
        if self._failure is not None:
            return EdgeVlmError(self._failure.message, self._failure.error_code)
        how = how or 'closed its channel and does not end'
        return EdgeVlmError(f'the model process {how}', ErrorCode.ENGINE_DIED)

    def _end_in_order(self) -> None:
        """Let it end by itself and pass on its last words; it is killed if it does not.

        One that was not heard of yet has nothing to say, and nothing to give back.
        """
        self._take_pending()
        if self._is_heard:
            self.outbox.put(CloseMessage())
            self._asked_ns = self._clock.now_ns()
            self._take_last_words(self._bounds.close_s)

    def _ask_to_end(self) -> None:
        """Have one that must not simply be killed give back what it holds, in its time."""
        if self._asked_ns or self._child.is_over:
            return
        self._child.ask_to_end()
        self._asked_ns = self._clock.now_ns()
        grace_s = min(self._needs.grace_s, _MOST_GRACE_S)
        self._take_last_words(min(self._bounds.close_s, grace_s) if self._ready_ns else grace_s)

    def _take_last_words(self, limit_s: float) -> None:
        """Read on until it is gone: it must not have to wait for a reader."""
        poll = self._hearing.poll()
        stop_ns = self._clock.now_ns() + round(limit_s * NS_PER_S)
        is_open = True
        while is_open and (left_ns := stop_ns - self._clock.now_ns()) > 0:
            if self._child.channel.fileno() in self._hearing.wait(poll, left_ns / NS_PER_S):
                is_open = self._take_pending()
        if not is_open:
            self._child.is_over_within(_LAST_WORDS_S)

    def _take_pending(self) -> bool:
        """Take the last words that have come; return whether more may come."""
        try:
            for _ in range(_MOST_AT_ONCE):
                message = self._child.channel.receive_now()
                if message is None:
                    break
                self._take_last(message)
        except (EOFError, OSError, GarbledError):
            return False
        return True

    def _take_last(self, message: Report) -> None:
        self._is_heard = True
        if isinstance(message, ChunkMessage):
            self._questions.relay(message.chunk)
        elif isinstance(message, LogMessage):
            self._hearing.log_all([message.line])
        elif isinstance(message, NeedsMessage):
            self._needs = message.needs
