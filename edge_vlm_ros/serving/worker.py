"""The one thread that touches the chip.

Questions, offered frames, cancels and the end come from any thread; they change the scheduler
under one lock, so that a full queue, a cancel or a double request_id is answered at once, whatever
the chip is doing. The thread itself asks the scheduler for the next work item, does it without the
lock, and reports. A second one only watches the time: a deadline holds also while the first sits
in a native call.

Answers are handed to their streams outside the lock: whoever listens may call back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from edge_vlm_ros.core import (
    NS_PER_S,
    AnswerChunk,
    BadRequestError,
    CancelledError,
    Clock,
    EdgeVlmError,
    ErrorCode,
    FeatureKey,
    NotReadyError,
    Prefix,
    Question,
    ShownAs,
    StoredFrame,
)
from edge_vlm_ros.scheduling import (
    Cancelled,
    Evicted,
    Failed,
    FramesOffered,
    Idle,
    Notice,
    OfferEnded,
    Outcome,
    PrefixFailed,
    PrefixReady,
    QuestionOwner,
    Scheduler,
    SchedulerSettings,
    Tick,
    Work,
    WorkDone,
)
from edge_vlm_ros.serving.abilities import check_question
from edge_vlm_ros.serving.ahead import OnAhead
from edge_vlm_ros.serving.ahead_desk import AheadDesk, Wish
from edge_vlm_ros.serving.conversation import SessionStore
from edge_vlm_ros.serving.doing import Doing
from edge_vlm_ros.serving.endings import Final, error_of, known_error
from edge_vlm_ros.serving.hear_signals import wait_for
from edge_vlm_ros.serving.load_stop import LoadStop
from edge_vlm_ros.serving.loading import LoadedModel
from edge_vlm_ros.serving.model_info import ChipModelInfo
from edge_vlm_ros.serving.model_steps import ModelSteps
from edge_vlm_ros.serving.running import Running
from edge_vlm_ros.serving.shown_frames import FrameGroup, grouping, thin_out
from edge_vlm_ros.serving.step import CHIP_THREAD, OnStep
from edge_vlm_ros.serving.stream import AnswerStream

_log = logging.getLogger(__name__)

_LONGEST_WAIT_NS = 3600 * NS_PER_S  # Above some weeks, waiting fails.


class ChipWorker:
    """Answers questions one after the other on a thread of its own.

    Args:
        load: Opens engine and family; called on the worker's thread, which alone uses them.
        clock: Steady time.
        sessions: The conversations that go on.
        settings: The scheduler's bounds.
        on_work: Called on the worker's thread before each work item, within long ones, and when
            there is nothing to do: a sign of life.
        stop: Is told of the parts that `load` loads, and may stop it.
    """

    def __init__(  # noqa: PLR0913 (keywords)
        self,
        load: Callable[[], LoadedModel],
        *,
        clock: Clock,
        sessions: SessionStore,
        settings: SchedulerSettings = SchedulerSettings(),  # noqa: B008 (frozen)
        on_work: OnStep | None = None,
        stop: LoadStop | None = None,
    ) -> None:
        self._load = load
        self.loading = stop or LoadStop()
        """Follows the load, and may stop it."""
        self._clock = clock
        self._sessions = sessions
        self._settings = settings
        self._on_work = on_work
        self._changed = threading.Condition()
        self._running: dict[str, Running] = {}
        self._ahead = AheadDesk()
        self._evicted: list[FeatureKey] = []
        self._is_stopping = False
        self._started = threading.Event()
        self._start_error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=CHIP_THREAD, daemon=True)
        self._watch = threading.Thread(target=self._watch_time, name='chip-time', daemon=True)

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
        try:
            wait_for(self._started)
        except BaseException:  # A signal's: the process may end after it.
            self._is_stopping = True
            self.loading.give_up(self._thread)
            raise
        if self._start_error is not None:
            self._thread.join()
            raise self._start_error
        self._watch.start()

    def ask(
        self,
        question: Question,
        on_chunk: Callable[[AnswerChunk], None] | None = None,
        on_begun: Callable[[int], None] | None = None,
    ) -> AnswerStream:
        """Queue a question; from any thread.

        Args:
            question: With a request_id that no running question has.
            on_chunk: Called with every chunk, in order, on the thread that makes it.
            on_begun: Called once when its work begins, with the steady time in nanoseconds.

        Raises:
            BadRequestError: The request_id is empty or belongs to a running question.
            NotReadyError: The worker is closed.
        """
        submitted_ns = self._clock.now_ns()
        request_id = question.request_id
        stream = AnswerStream(
            request_id,
            clock=self._clock,
            cancel=self.cancel,
            on_chunk=on_chunk,
            on_begun=on_begun,
        )
        groups = self._group(question.frames, question.shown_as, self._info.limits.max_images)
        running = Running(question, stream, groups, submitted_ns)
        refusal: EdgeVlmError | None = None
        try:
            check_question(question, len(groups), self._info)
        except EdgeVlmError as error:
            refusal = error
        with self._changed:
            self._check_open()
            if not request_id or request_id in self._running:
                raise BadRequestError(
                    f'request_id {request_id!r} is empty or that of a running question',
                    ErrorCode.DUPLICATE_REQUEST,
                )
            if refusal is not None:
                finals = [Final(running, refusal)]
            else:
                self._running[request_id] = running
                finals = self._apply(self._scheduler.handle(running.asked))
                self._changed.notify_all()
        self._deliver(finals)
        return stream

    def offer(self, frames: Sequence[StoredFrame], shown_as: ShownAs | None = None) -> None:
        """Have frames prepared and encoded while no question is there; from any thread.

        Args:
            frames: As a question would show them.
            shown_as: As `Question.shown_as`.

        Raises:
            NotReadyError: The worker is closed.
        """
        groups = self._group(frames, shown_as)
        with self._changed:
            self._check_open()
            self._ahead.offered.update(groups)
            self._apply(self._scheduler.handle(FramesOffered(tuple(groups))))
            self._changed.notify_all()

    def want(self, prefix: Prefix | None) -> None:
        """Have a prefix put into the KV cache while no question is there; from any thread.

        Raises:
            NotReadyError: The worker is closed.
        """
        groups = self._group(prefix.frames, prefix.shown_as) if prefix is not None else {}
        with self._changed:
            self._check_open()
            event = self._ahead.wish(prefix, groups)
            self._apply(self._scheduler.handle(event))
            self._changed.notify_all()

    def listen_ahead(self, on_ahead: OnAhead) -> None:
        """Have reports of work ahead given to `on_ahead`, on the worker's thread."""
        with self._changed:
            self._ahead.listen(on_ahead)

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
            closed = CancelledError('the pipeline was closed')
            finals = [Final(running, closed) for running in self._running.values()]
            self._running.clear()
            self._ahead.clear()
            self._changed.notify_all()
        self._deliver(finals)
        if self._thread is threading.current_thread():
            return False
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # --- what questions ask for ------------------------------------------------------------------

    def _group(
        self, frames: Sequence[StoredFrame], shown_as: ShownAs | None, most: int = 0
    ) -> dict[FeatureKey, FrameGroup]:
        groups = self._group_frames(frames, shown_as)
        # What cannot be shown in one prompt anyway is left out before it is prepared.
        return {group.key: group for group in thin_out(groups, most or len(groups))}

    def _check_open(self) -> None:
        if self._is_stopping:
            raise NotReadyError('the pipeline is closed')

    # --- the scheduler's word, under the lock ----------------------------------------------------

    def _apply(self, notices: Iterable[Notice]) -> list[Final]:
        finals: list[Final] = []
        for notice in notices:
            if isinstance(notice, Evicted):
                self._evicted.append(notice.key)
            elif isinstance(notice, OfferEnded | PrefixReady | PrefixFailed):
                self._ahead.take(notice)
            else:
                running = self._running.pop(notice.request_id)
                finals.append(Final(running, error_of(running, notice)))
        return finals

    # --- answers, outside the lock ---------------------------------------------------------------

    def _deliver(self, finals: Iterable[Final]) -> None:
        for final in finals:
            now_ns = self._clock.now_ns()
            final.running.finish(final.error, self._sessions, self._info, now_ns)

    # --- the time --------------------------------------------------------------------------------

    def _watch_time(self) -> None:
        while True:
            with self._changed:
                if self._is_stopping:
                    return
                now_ns = self._clock.now_ns()
                finals = self._apply(self._scheduler.handle(Tick(now_ns)))
                if not finals:
                    asked = (running.question.deadline_ns for running in self._running.values())
                    next_ns = min((due_ns for due_ns in asked if due_ns), default=0)
                    left_ns = min(max(0, next_ns - now_ns), _LONGEST_WAIT_NS)
                    self._changed.wait(left_ns / NS_PER_S if next_ns else None)
            self._deliver(finals)

    # --- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        loaded: LoadedModel | None = None
        try:
            try:
                loaded = self._open()
            except BaseException as error:  # noqa: BLE001 (told by `start`; see `_do`)
                self._start_error = known_error(error)
                return
            finally:
                self._started.set()
            self._answer_questions()
        finally:
            if loaded is not None:
                loaded.close()

    def _open(self) -> LoadedModel:
        started_ns = self._clock.now_ns()
        loaded = self.loading.keep(self._load())
        self._steps = ModelSteps(loaded, self._clock, self._sessions)
        try:
            self.loading.check()
            self._steps.warm_up()  # The very first run sets up caches and kernels.
            self.loading.check()
            costs = self._steps.warm_up()
        except BaseException:
            loaded.close()
            raise
        self._doing = Doing(self._steps, self._clock, self._on_work)
        self._group_frames = grouping(loaded.family)
        load_s = (self._clock.now_ns() - started_ns) / 1e9
        self._info = loaded.info(load_s, costs)
        self._scheduler = Scheduler(self._settings)
        _log.info('ready: %s on %s after %.2f s, %s', loaded.model, loaded.chip, load_s, costs)
        return loaded

    def _answer_questions(self) -> None:
        while True:
            with self._changed:
                now_ns = self._clock.now_ns()
                finals = self._apply(self._scheduler.handle(Tick(now_ns)))
                work = self._scheduler.next_work()
                self._forget_evicted()
                is_told = self._ahead.is_told
                is_idle = isinstance(work, Idle) and is_told and not finals
                if is_idle and self._doing.is_rest and not self._is_stopping:
                    self._changed.wait(work.wait_s(now_ns) if isinstance(work, Idle) else 0)
                if self._is_stopping:
                    return
                do = None if isinstance(work, Idle) else self._doer(work)
            self._deliver(finals)
            self._ahead.tell()
            if isinstance(work, Idle) or do is None:
                self._doing.rest()
                continue
            outcome = do()
            done = WorkDone(work, outcome, self._clock.now_ns() - now_ns)
            with self._changed:
                if self._is_stopping:
                    return
                if not isinstance(work.owner, QuestionOwner):
                    self._ahead.note(done, self._steps.ahead)
                finals = self._apply(self._scheduler.handle(done))
            self._deliver(finals)

    def _forget_evicted(self) -> None:
        """Forget between two work items, never within one: it may be about the same frames."""
        self._steps.forget(self._evicted)
        self._evicted.clear()

    def _doer(self, work: Work) -> Callable[[], Outcome]:
        """Find what a work item needs, under the lock; return what does it."""
        if isinstance(work.owner, QuestionOwner):
            running = self._running[work.owner.request_id]
            return partial(self._doing.do, work, running, partial(self._is_over, running))
        return partial(self._do_ahead, work, self._ahead.subject(work.owner))

    def _do_ahead(self, work: Work, subject: FrameGroup | Wish) -> Outcome:
        """Do one work item that is no question's; whatever goes wrong ends no question."""
        outcome = self._doing.do_ahead(work, subject, self._has_question)
        if not isinstance(outcome, EdgeVlmError):
            return outcome
        with self._changed:
            self._ahead.note_failure(work.owner, outcome)
        return Failed()

    def _has_question(self) -> bool:
        """Tell in the midst of work ahead whether a question has come."""
        self._doing.beat()
        return self._is_stopping or bool(self._running)

    def _is_over(self, running: Running) -> bool:
        """Tell in the midst of a long step whether its question was ended or its time is over."""
        self._doing.beat()
        question = running.question
        is_ended = self._running.get(question.request_id) is not running
        return is_ended or 0 < question.deadline_ns <= self._clock.now_ns()
