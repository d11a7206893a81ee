"""The one thread that touches the chip.

Questions, cancels and the end come from any thread; they change the scheduler under one lock, so
that a full queue, a cancel or a double request_id is answered at once, whatever the chip is doing.
The thread itself asks the scheduler for the next work item, does it without the lock, and reports.

Answers are handed to their streams outside the lock: whoever listens may call back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edge_vlm_ros.core import (
    AnswerChunk,
    BadRequestError,
    Clock,
    EdgeVlmError,
    ErrorCode,
    FinishReason,
    NotReadyError,
    Question,
    TooManyFramesError,
)
from edge_vlm_ros.scheduling import (
    Cancelled,
    Decode,
    Encode,
    Ended,
    Ending,
    Evicted,
    Failed,
    Idle,
    Notice,
    Outcome,
    Prefill,
    QuestionAsked,
    Scheduler,
    SchedulerSettings,
    Tick,
    Work,
    WorkDone,
)
from edge_vlm_ros.serving.conversation import SessionStore, name_frames
from edge_vlm_ros.serving.loading import LoadedModel
from edge_vlm_ros.serving.model_info import ChipModelInfo
from edge_vlm_ros.serving.model_steps import ModelSteps
from edge_vlm_ros.serving.running import Running
from edge_vlm_ros.serving.stream import AnswerStream

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Final:
    """An answer that is over and has still to be told."""

    running: Running
    reason: FinishReason
    code: ErrorCode = ErrorCode.NONE
    message: str = ''


class ChipWorker:
    """Answers questions one after the other on a thread of its own.

    Args:
        load: Opens engine and family; called on the worker's thread, which alone uses them.
        clock: Steady time.
        sessions: The conversations that go on.
        settings: The scheduler's bounds.
        on_work: Called on the worker's thread before each work item, and within long ones: a sign
            of life.
    """

    def __init__(
        self,
        load: Callable[[], LoadedModel],
        *,
        clock: Clock,
        sessions: SessionStore,
        settings: SchedulerSettings = SchedulerSettings(),  # noqa: B008 (frozen)
        on_work: Callable[[], None] | None = None,
    ) -> None:
        self._load = load
        self._clock = clock
        self._sessions = sessions
        self._settings = settings
        self._on_work = on_work
        self._changed = threading.Condition()
        self._running: dict[str, Running] = {}
        self._is_stopping = False
        self._started = threading.Event()
        self._start_error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name='chip-worker', daemon=True)

    @property
    def info(self) -> ChipModelInfo:
        """The model that is loaded; valid after `start`."""
        return self._info

    def start(self) -> None:
        """Load the model and warm it up; return when the first question can be asked.

        Raises:
            EdgeVlmError: Loading failed: `ModelFileError`, `DeviceError`, ...
        """
        self._thread.start()
        self._started.wait()
        if self._start_error is not None:
            self._thread.join()
            raise self._start_error

    def ask(
        self, question: Question, on_chunk: Callable[[AnswerChunk], None] | None = None
    ) -> AnswerStream:
        """Queue a question; from any thread.

        Args:
            question: With a request_id that no running question has.
            on_chunk: Called with every chunk, in order, on the thread that makes it.

        Raises:
            BadRequestError: The request_id is empty or belongs to a running question.
            NotReadyError: The worker is closed.
        """
        request_id = question.request_id
        stream = AnswerStream(request_id, clock=self._clock, cancel=self.cancel, on_chunk=on_chunk)
        running = Running(question, stream, {}, self._clock.now_ns())
        refusal: EdgeVlmError | None = None
        try:
            self._check(question)
            running.groups.update(name_frames(question.frames, self._frames_per_input))
        except EdgeVlmError as error:
            refusal = error
        with self._changed:
            if self._is_stopping:
                raise NotReadyError('the pipeline is closed')
            if not request_id or request_id in self._running:
                raise BadRequestError(
                    f'request_id {request_id!r} is empty or that of a running question',
                    ErrorCode.DUPLICATE_REQUEST,
                )
            if refusal is not None:
                finals = [_Final(running, FinishReason.ERROR, refusal.code, refusal.message)]
            else:
                self._running[request_id] = running
                asked = QuestionAsked(request_id, tuple(running.groups), question.deadline_ns)
                finals = self._apply(self._scheduler.handle(asked))
                self._changed.notify_all()
        self._deliver(finals)
        return stream

    def cancel(self, request_id: str = '') -> int:
        """Take one question back, or all ('' = all); return how many there were. Any thread."""
        with self._changed:
            # From the back: none of those that wait is started only to be ended.
            chosen = [request_id] if request_id else self._scheduler.request_ids[::-1]
            finals = [
                final
                for name in chosen
                for final in self._apply(self._scheduler.handle(Cancelled(name)))
            ]
        self._deliver(finals)
        return len(finals)

    def close(self, timeout_s: float = 10.0) -> bool:
        """End every question, free the chip, end the thread; return whether it ended in time."""
        with self._changed:
            self._is_stopping = True
            finals = [
                _Final(
                    running,
                    FinishReason.CANCELLED,
                    ErrorCode.CANCELLED,
                    'the pipeline was closed',
                )
                for running in self._running.values()
            ]
            self._running.clear()
            self._changed.notify_all()
        self._deliver(finals)
        if self._thread is threading.current_thread():
            return False
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # --- what questions ask for ------------------------------------------------------------------

    def _check(self, question: Question) -> None:
        """Refuse what this model cannot do, before anything is done."""
        limits = self._info.limits
        images = -(-len(question.frames) // self._frames_per_input)  # or more: `ModelSteps` sees
        if limits.max_images and images > limits.max_images:
            raise TooManyFramesError(
                f'{len(question.frames)} frames, the model takes {limits.max_images} in one prompt'
            )
        sampling = question.sampling
        wants_sampling = sampling.temperature > 0 or sampling.top_p < 1 or sampling.top_k > 0
        if wants_sampling and limits.samples_on_chip and not limits.has_logits:
            raise BadRequestError(
                f'{self._info.model} on {self._info.chip} chooses tokens on the chip: '
                'temperature, top_p and top_k cannot be set',
                ErrorCode.UNSUPPORTED_OPTION,
            )

    # --- the scheduler's word, under the lock ----------------------------------------------------

    def _apply(self, notices: Iterable[Notice]) -> list[_Final]:
        finals: list[_Final] = []
        for notice in notices:
            if isinstance(notice, Evicted):
                self._steps.forget(notice.frame)
                continue
            running = self._running.pop(notice.request_id)
            if isinstance(notice, Ended):
                finals.append(_final_of(running, notice.ending))
                continue
            message = (
                f'{notice.waiting} questions wait already, the queue holds {notice.max_waiting}; '
                f'this one would have been number {notice.waiting + 1}'
            )
            finals.append(_Final(running, FinishReason.ERROR, ErrorCode.BUSY, message))
        return finals

    # --- answers, outside the lock ---------------------------------------------------------------

    def _deliver(self, finals: Iterable[_Final]) -> None:
        for final in finals:
            running, turn = final.running, final.running.turn
            if final.code is ErrorCode.NONE and turn is not None:
                question = running.question
                after = turn.conversation.with_turn(
                    turn.prompt, turn.tokens, turn.new_frames, question.system_prompt
                )
                self._sessions.put(question.session_id, turn.conversation, after)
            now_ns = self._clock.now_ns()
            running.stream.finish(
                lambda text, final=final, now_ns=now_ns: final.running.answer(  # type: ignore[misc]
                    text,
                    final.reason,
                    code=final.code,
                    message=final.message,
                    now_ns=now_ns,
                    model=self._info.model,
                    chip=self._info.chip,
                ),
                running.tail if final.code is ErrorCode.NONE else '',
            )

    # --- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        loaded: LoadedModel | None = None
        try:
            try:
                loaded = self._open()
            except (Exception, SystemExit) as error:  # noqa: BLE001 (told by `start`)
                self._start_error = _known(error)
                return
            finally:
                self._started.set()
            self._answer_questions()
        finally:
            if loaded is not None:
                loaded.engine.close()

    def _open(self) -> LoadedModel:
        started_ns = self._clock.now_ns()
        loaded = self._load()
        self._steps = ModelSteps(loaded, self._clock, self._sessions)
        try:
            self._steps.warm_up()  # The very first run sets up caches and kernels.
            costs = self._steps.warm_up()
        except BaseException:
            loaded.engine.close()
            raise
        self._frames_per_input = loaded.family.frames_per_input
        limits = loaded.engine.limits
        load_s = (self._clock.now_ns() - started_ns) / 1e9
        self._info = ChipModelInfo(
            model=loaded.model,
            chip=loaded.chip,
            max_images=limits.max_images,
            load_s=round(load_s, 3),
            limits=limits,
            costs=costs,
        )
        self._scheduler = Scheduler(self._settings)
        _log.info('ready: %s on %s after %.2f s, %s', loaded.model, loaded.chip, load_s, costs)
        return loaded

    def _answer_questions(self) -> None:
        while True:
            with self._changed:
                now_ns = self._clock.now_ns()
                finals = self._apply(self._scheduler.handle(Tick(now_ns)))
                work = self._scheduler.next_work()
                if isinstance(work, Idle) and not finals and not self._is_stopping:
                    self._changed.wait()
                if self._is_stopping:
                    return
                running = None if isinstance(work, Idle) else self._running[work.request_id]
            self._deliver(finals)
            if running is None:
                continue
            outcome = self._do(work, running)
            with self._changed:
                if self._is_stopping:
                    return
                finals = self._apply(self._scheduler.handle(WorkDone(work, outcome)))
            self._deliver(finals)

    def _do(self, work: Work, running: Running) -> Outcome:
        """Do one work item; whatever goes wrong ends this question and no other."""
        started_ns = self._clock.now_ns()
        running.started_ns = running.started_ns or started_ns
        try:
            if self._on_work is not None:
                self._on_work()
            return self._steps.do(work, running, lambda: self._is_over(running))
        except (Exception, SystemExit) as error:  # noqa: BLE001 (vendor libraries call exit)
            running.error = _known(error)
            if running.error.code is ErrorCode.INTERNAL:
                _log.exception('%s failed', work)
            if isinstance(work, Encode | Prefill | Decode):
                self._steps.reset_kv()
            return Failed()
        finally:
            running.spend(work, started_ns, self._clock.now_ns())

    def _is_over(self, running: Running) -> bool:
        """Tell in the midst of a long step whether its question was ended or its time is over."""
        if self._on_work is not None:
            self._on_work()  # Whoever asks is alive.
        question = running.question
        is_ended = self._running.get(question.request_id) is not running
        return is_ended or 0 < question.deadline_ns <= self._clock.now_ns()


def _final_of(running: Running, ending: Ending) -> _Final:
    question = running.question
    if ending is Ending.ANSWERED:
        return _Final(running, running.reason)
    if ending is Ending.CANCELLED:
        return _Final(
            running, FinishReason.CANCELLED, ErrorCode.CANCELLED, 'the question was taken back'
        )
    if ending is Ending.DEADLINE:
        allowed_s = (question.deadline_ns - running.asked_ns) / 1e9
        message = f'the {allowed_s:.3g} s for this question were over before its answer was done'
        return _Final(running, FinishReason.DEADLINE, ErrorCode.DEADLINE, message)
    error = running.error
    assert error is not None
    return _Final(running, FinishReason.ERROR, error.code, error.message)


def _known(error: BaseException) -> EdgeVlmError:
    """Return an error of our own family for any error."""
    if isinstance(error, EdgeVlmError):
        return error
    if isinstance(error, SystemExit):
        return EdgeVlmError(f'the engine wanted to end the process: exit({error.code!r})')
    return EdgeVlmError(f'{type(error).__name__}: {error}')
