"""The scheduler: a state machine between questions and one slow chip.

Rules, each held by a test:

* One work item at a time: `next_work` gives the next one only after `WorkDone` of the last.
* Of the questions that wait, the one of the highest priority is next; of equal ones, the one that
  came first. One that runs, from its first work item on, is not interrupted, but for `PREEMPT`. So
  a lower priority may wait for as long as higher ones keep coming: its deadline ends that.
* Where there is no room, the policy says who has to go (`QueuePolicy`): the newcomer, one that
  waits or the one that runs. Of cameras whose newest question wins, older ones that wait go.
* Every question that was asked gets exactly one `Ended` or `Rejected`.
* A question takes these steps, and may be cancelled or run out of time between any two of them::

    waiting -> Prepare* -> Render -> Encode* -> Prefill+ -> Decode+ -> ended

* Prefill is given out piece by piece, as the engine planned it (`Rendered.pieces`).
* A cancel takes effect at once, also while work for the question is under way: the question ends,
  the work's result is dropped (features of a frame are kept, they may serve the next question).
  Work may be stopped half-way then (`GivenUp`), which is no failure.
* Only what is not kept is prepared, and only that encoded. What cannot be prepared may be left out
  (`LeftOut`): the question goes on without it, and the next one that shows it tries again.
* Offered frames are prepared and encoded ahead, one after the other, while no question waits or
  runs; a question waits for the item under way and no longer. What is ready then, it uses.
* A newer offer takes the place of what still waits of the older one of the same camera, shown the
  same way; cameras take turns. A frame that was begun is carried through, however fast the camera,
  unless a question holds it up meanwhile.
* Every key that was offered gets exactly one `OfferEnded`. Its failure ends nothing but the offer.
* Pixels that nobody is going to encode any more, and features above the bounds, are `Evicted`;
  what the running question or the wanted prefix needs is not.
* One prefix is wanted in the KV cache, the newest. While no question waits or runs its frames are
  encoded and its tokens prefilled, piece by piece, before anything else is made ahead. A question
  uses as much of it as is there; then it is looked at again, and what was lost is made again.
* `PrefixReady` is told whenever all of it is there; after `PrefixFailed` it is no longer wanted.
* Work ahead takes its share of the time and no more, and leaves the KV cache to a conversation
  that is live (`Background`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_vlm_ros.scheduling.background import Background
from edge_vlm_ros.scheduling.events import (
    Cancelled,
    Decoded,
    Encoded,
    Failed,
    FramesOffered,
    LeftOut,
    Prefilled,
    PrefixForgotten,
    PrefixWanted,
    Prepared,
    QuestionAsked,
    Rendered,
    Tick,
    WorkDone,
)
from edge_vlm_ros.scheduling.feature_ledger import FeatureLedger
from edge_vlm_ros.scheduling.notices import (
    Ended,
    Ending,
    Evicted,
    Notice,
    Rejected,
)
from edge_vlm_ros.scheduling.question_queue import QuestionQueue, QueuePolicy
from edge_vlm_ros.scheduling.work import (
    Decode,
    Encode,
    Idle,
    Prefill,
    Prepare,
    QuestionOwner,
    Render,
    Work,
)
from edge_vlm_ros.scheduling.work_ahead import WorkAhead

if TYPE_CHECKING:
    from edge_vlm_ros.core import FeatureKey
    from edge_vlm_ros.scheduling.events import Event


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """The scheduler's bounds.

    Attributes:
        max_waiting: Questions that may wait beside the running one; 0 = none.
        max_cached_frames: Frames whose features are kept; also, how many offered ones may wait.
        max_cached_bytes: Bytes of features that are kept.
        policy: Who has to go where there is no room.
        newest_wins: Cameras of which only the newest question waits (see `QuestionQueue`).
        duty: Share of the chip's time that work ahead may take (see `Background`).
        live_ns: How long a conversation keeps the KV cache, nanoseconds (likewise).
    """

    max_waiting: int = 8
    max_cached_frames: int = 64
    max_cached_bytes: int = 256 * 2**20
    policy: QueuePolicy = QueuePolicy.QUEUE
    newest_wins: tuple[str, ...] = ()
    duty: float = 1.0
    live_ns: int = 0


@dataclass(slots=True)
class _Steps:
    """What is left to do for the running question."""

    asked: QuestionAsked
    to_prepare: deque[FeatureKey]
    rendered: Rendered | None = None
    to_encode: deque[FeatureKey] = field(default_factory=deque)
    pieces: deque[int] = field(default_factory=deque)
    prefilled: int = 0
    is_begun: bool = False

    @property
    def request_id(self) -> str:
        return self.asked.request_id

    def wants(self, key: FeatureKey) -> bool:
        """Return whether pixels under this key are still to be encoded."""
        return key in (self.asked.keys if self.rendered is None else self.to_encode)


class Scheduler:
    """Decides what the chip does next.

    Not safe for several threads at once: the owner holds a lock around every call.

    Args:
        settings: Bounds of queue and feature cache.
    """

    def __init__(self, settings: SchedulerSettings = SchedulerSettings()) -> None:
        self._queue = QuestionQueue(settings.max_waiting, settings.policy, settings.newest_wins)
        self._ledger = FeatureLedger(
            max_frames=settings.max_cached_frames, max_bytes=settings.max_cached_bytes
        )
        self._running: _Steps | None = None
        self._under_way: Work | None = None
        # Not known by the request_id: that may be asked again while its cancelled work still runs.
        self._under_way_for: _Steps | None = None
        self._ahead = WorkAhead(
            settings.max_cached_frames, Background(settings.duty, settings.live_ns)
        )
        self._prepared: dict[FeatureKey, None] = {}  # A set that keeps its order.
        self._now_ns = 0

    def __contains__(self, request_id: str) -> bool:
        """Whether this question waits or runs."""
        is_running = self._running is not None and self._running.request_id == request_id
        return is_running or request_id in self._queue

    @property
    def waiting(self) -> int:
        """Questions in the queue, the running one not counted."""
        return len(self._queue)

    @property
    def request_ids(self) -> tuple[str, ...]:
        """Every question that has not ended: the running one, then the others by their turn."""
        running = () if self._running is None else (self._running.request_id,)
        return (*running, *(asked.request_id for asked in self._queue.by_turn()))

    def handle(self, event: Event) -> tuple[Notice, ...]:
        """Take note of an event; return what follows from it beside work.

        Raises:
            ValueError: A request_id is asked twice, or `WorkDone` names other work than is under
                way.
        """
        return (*self._take(event), *self._release())

    def next_work(self) -> Work | Idle:
        """Say what to do now; unless it is `Idle`, `WorkDone` must follow before the next call.

        Raises:
            RuntimeError: Work is under way.
        """
        if self._under_way is not None:
            raise RuntimeError(f'work is under way: {self._under_way}')
        if self._running is None:
            work = self._ahead.next_work(self, self._now_ns)
        else:
            work = self._work_for(self._running)
        if isinstance(work, Idle):
            return work
        if self._running is not None:
            self._running.is_begun = True
        if isinstance(work, Encode):
            self._prepared.pop(work.key, None)  # The pixels go into the work.
        self._under_way, self._under_way_for = work, self._running
        return work

    def is_kept(self, key: FeatureKey) -> bool:
        """Return whether there are features under a key (see `Stock`)."""
        return key in self._ledger

    def is_prepared(self, key: FeatureKey) -> bool:
        """Return whether there are pixels under a key, to be encoded (see `Stock`)."""
        return key in self._prepared

    def _take(self, event: Event) -> list[Notice]:
        if isinstance(event, QuestionAsked):
            return self._ask(event)
        if isinstance(event, Cancelled):
            return self._end(event.request_id, Ending.CANCELLED)
        if isinstance(event, Tick):
            self._now_ns = event.now_ns
            return self._end_overdue(event.now_ns)
        if isinstance(event, FramesOffered):
            kept = filter(self.is_kept, dict.fromkeys(event.keys))
            return self._ahead.offer(event, kept, is_held_up=self._running is not None)
        if isinstance(event, PrefixWanted | PrefixForgotten):
            self._ahead.want(event)
            return self._pin()
        return self._finish_work(event)

    # --- questions -------------------------------------------------------------------------------

    def _ask(self, asked: QuestionAsked) -> list[Notice]:
        if not asked.request_id or asked.request_id in self:
            raise ValueError(f'request_id is empty or already asked: {asked.request_id!r}')
        if self._running is None:
            return self._start(asked)
        chosen = self._running.asked
        outdated = self._queue.take_outdated(asked)
        notices: list[Notice] = [Ended(each.request_id, Ending.OUTDATED) for each in outdated]
        if self._queue.preempts(asked, chosen):
            ended = Ended(chosen.request_id, Ending.PREEMPTED)
            return [*notices, ended, *self._start(asked)]
        replaced = self._queue.take_replaced(asked)
        if replaced is not None:
            notices.append(Ended(replaced.request_id, Ending.REPLACED))
        if self._queue.is_full:
            return [*notices, self._reject(asked)]
        if asked.priority > chosen.priority and not self._running.is_begun:
            self._queue.put_back(chosen)
            return notices + self._start(asked)
        self._queue.put(asked)
        return notices

    def _reject(self, asked: QuestionAsked) -> Rejected:
        return Rejected(asked.request_id, len(self._queue), self._queue.max_waiting)

    def _start(self, asked: QuestionAsked) -> list[Notice]:
        self._running = _Steps(asked, deque(dict.fromkeys(asked.keys)))
        return self._pin()

    def _end(self, request_id: str, ending: Ending) -> list[Notice]:
        if self._queue.discard(request_id):
            return [Ended(request_id, ending)]
        if self._running is None or self._running.request_id != request_id:
            return []
        notices: list[Notice] = [Ended(request_id, ending)]
        self._running = None
        following = self._queue.take()
        if following is not None:
            return notices + self._start(following)
        return notices + self._pin()

    def _end_overdue(self, now_ns: int) -> list[Notice]:
        asked = [] if self._running is None else [self._running.asked]
        # Those that wait first: none of them is started only to be ended.
        overdue = [
            question.request_id
            for question in [*self._queue.questions(), *asked]
            if 0 < question.deadline_ns <= now_ns
        ]
        return [
            notice for request_id in overdue for notice in self._end(request_id, Ending.DEADLINE)
        ]

    def _work_for(self, steps: _Steps) -> Work:
        owner = QuestionOwner(steps.request_id)
        # Some may be ready: kept from an earlier question, or made ahead.
        while steps.to_prepare and self._is_ready(steps.to_prepare[0]):
            steps.to_prepare.popleft()
        while steps.to_encode and steps.to_encode[0] in self._ledger:
            steps.to_encode.popleft()
        if steps.to_prepare:
            return Prepare(owner, steps.to_prepare[0])
        if steps.rendered is None:
            return Render(owner)
        if steps.to_encode:
            return Encode(owner, steps.to_encode[0])
        if steps.pieces:
            return Prefill(owner, steps.prefilled, steps.prefilled + steps.pieces[0])
        return Decode(owner)

    def _is_ready(self, key: FeatureKey) -> bool:
        return self.is_prepared(key) or self.is_kept(key)

    def _pin(self) -> list[Notice]:
        """Keep the features that are needed now, whatever the bounds; say what goes instead."""
        needed = set(self._ahead.prefix_keys)
        if self._running is not None:
            rendered = self._running.rendered
            needed.update(self._running.asked.keys, rendered.keys if rendered is not None else ())
        return [Evicted(key) for key in self._ledger.pin(needed)]

    # --- work that is over -----------------------------------------------------------------------

    def _finish_work(self, done: WorkDone) -> list[Notice]:
        work, outcome = done.work, done.outcome
        if work != self._under_way:
            raise ValueError(f'{work} is not under way, but {self._under_way}')
        self._under_way = None
        notices: list[Notice] = []
        if isinstance(work, Prepare) and isinstance(outcome, Prepared):
            self._prepared[work.key] = None
        if isinstance(work, Encode) and isinstance(outcome, Encoded):
            notices += map(Evicted, self._ledger.add(work.key, outcome.nbytes))
            notices += self._ahead.end_offer(work.key)
        is_question = isinstance(work.owner, QuestionOwner)
        if isinstance(outcome, Failed) or (is_question and not isinstance(work, Prepare)):
            self._ahead.unsettle()  # The KV cache may hold something else now.
        if is_question:
            return notices + self._finish_question_work(done)
        return [*notices, *self._ahead.finish(done, self._now_ns), *self._pin()]

    def _finish_question_work(self, done: WorkDone) -> list[Notice]:
        steps, outcome = self._running, done.outcome
        if steps is None or steps is not self._under_way_for:
            return []  # The question ended while this was under way.
        if isinstance(outcome, Failed):
            return self._end(steps.request_id, Ending.FAILED)
        if isinstance(outcome, Decoded) and outcome.is_last:
            self._ahead.answered(steps.asked.session_id, self._now_ns)
            return self._end(steps.request_id, Ending.ANSWERED)
        return self._advance(steps, done)

    def _advance(self, steps: _Steps, done: WorkDone) -> list[Notice]:
        work, outcome = done.work, done.outcome
        if isinstance(outcome, LeftOut):
            steps.to_prepare.popleft()
        if isinstance(outcome, Rendered):
            assert min(outcome.pieces) > 0, outcome.pieces
            steps.rendered = outcome
            steps.pieces.extend(outcome.pieces)
            steps.prefilled = outcome.reused_tokens
            steps.to_encode.extend(dict.fromkeys(outcome.keys))
            return self._pin()
        if isinstance(outcome, Prefilled):
            assert isinstance(work, Prefill)
            steps.pieces.popleft()
            steps.prefilled = work.stop
        return []

    def _release(self) -> list[Notice]:
        """Give up pixels that nobody is going to encode."""
        unwanted = [key for key in self._prepared if not self._is_wanted(key)]
        for key in unwanted:
            del self._prepared[key]
        return [Evicted(key) for key in unwanted]

    def _is_wanted(self, key: FeatureKey) -> bool:
        is_asked = self._running is not None and self._running.wants(key)
        return is_asked or self._ahead.wants(key)
