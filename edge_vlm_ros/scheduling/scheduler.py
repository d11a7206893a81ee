"""The scheduler: a state machine between questions and one slow chip.

Rules, each held by a test:

* One work item at a time: `next_work` gives the next one only after `WorkDone` of the last.
* Questions are answered in the order they came; a full queue turns the newcomer away.
* Every question that was asked gets exactly one `Ended` or `Rejected`.
* A question takes these steps, and may be cancelled or run out of time between any two of them::

    waiting -> Prepare* -> Render -> Encode* -> Prefill+ -> Decode+ -> ended

* Prefill is given out piece by piece, as the engine planned it (`Rendered.pieces`).
* A cancel takes effect at once, also while work for the question is under way: the question ends,
  the work's result is dropped (features of a frame are kept, they may serve the next question).
  Work may be stopped half-way then (`GivenUp`), which is no failure.
* Only frames whose features are not kept are prepared and encoded.
* A question comes before work ahead of any question; among arrived frames the newest of each
  camera counts.

Where preparing ahead of the question goes further later (prefixes in the KV cache), it is more
events and more work here; nothing else moves.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_vlm_ros.scheduling.events import (
    Cancelled,
    Decoded,
    Encoded,
    Failed,
    FrameArrived,
    Prefilled,
    Prepared,
    QuestionAsked,
    Rendered,
    Tick,
    WorkDone,
)
from edge_vlm_ros.scheduling.feature_ledger import FeatureLedger
from edge_vlm_ros.scheduling.notices import Ended, Ending, Evicted, Notice, Rejected
from edge_vlm_ros.scheduling.work import (
    AHEAD,
    Decode,
    Encode,
    Idle,
    Prefill,
    Prepare,
    Render,
    Work,
)

if TYPE_CHECKING:
    from edge_vlm_ros.core import FrameKey
    from edge_vlm_ros.scheduling.events import Event


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """The scheduler's bounds.

    Attributes:
        max_waiting: Questions that may wait beside the running one; 0 = none.
        max_cached_frames: Frames whose features are kept.
        max_cached_bytes: Bytes of features that are kept.
    """

    max_waiting: int = 8
    max_cached_frames: int = 64
    max_cached_bytes: int = 256 * 2**20


@dataclass(slots=True)
class _Steps:
    """What is left to do for the running question."""

    asked: QuestionAsked
    to_prepare: deque[FrameKey]
    rendered: Rendered | None = None
    to_encode: deque[FrameKey] = field(default_factory=deque)
    pieces: deque[int] = field(default_factory=deque)
    prefilled: int = 0

    @property
    def request_id(self) -> str:
        return self.asked.request_id


class Scheduler:
    """Decides what the chip does next.

    Not safe for several threads at once: the owner holds a lock around every call.

    Args:
        settings: Bounds of queue and feature cache.
    """

    def __init__(self, settings: SchedulerSettings = SchedulerSettings()) -> None:
        self._max_waiting = settings.max_waiting
        self._ledger = FeatureLedger(
            max_frames=settings.max_cached_frames, max_bytes=settings.max_cached_bytes
        )
        self._waiting: OrderedDict[str, QuestionAsked] = OrderedDict()
        self._running: _Steps | None = None
        self._under_way: Work | None = None
        # Not told by the request_id: that may be asked anew while its cancelled work still runs.
        self._under_way_for: _Steps | None = None
        self._arrived: dict[tuple[str, str], FrameKey] = {}
        self._prepared_ahead: FrameKey | None = None

    def __contains__(self, request_id: str) -> bool:
        """Whether this question waits or runs."""
        is_running = self._running is not None and self._running.request_id == request_id
        return is_running or request_id in self._waiting

    @property
    def waiting(self) -> int:
        """Questions in the queue, the running one not counted."""
        return len(self._waiting)

    @property
    def request_ids(self) -> tuple[str, ...]:
        """Every question that has not ended: the running one, then those that wait, in order."""
        running = () if self._running is None else (self._running.request_id,)
        return (*running, *self._waiting)

    def has_features(self, frame: FrameKey) -> bool:
        """Tell whether a frame's features are kept."""
        return frame in self._ledger

    def handle(self, event: Event) -> tuple[Notice, ...]:
        """Take note of an event; return what follows from it beside work.

        Raises:
            ValueError: A request_id is asked twice, or `WorkDone` names other work than is under
                way.
        """
        if isinstance(event, QuestionAsked):
            return tuple(self._ask(event))
        if isinstance(event, Cancelled):
            return tuple(self._end(event.request_id, Ending.CANCELLED))
        if isinstance(event, Tick):
            return tuple(self._end_overdue(event.now_ns))
        if isinstance(event, FrameArrived):
            self._arrived[event.frame.camera, event.frame.topic] = event.frame
            return ()
        return tuple(self._finish_work(event))

    def next_work(self) -> Work:
        """Say what to do now; unless it is `Idle`, `WorkDone` must follow before the next call.

        Raises:
            RuntimeError: Work is under way.
        """
        if self._under_way is not None:
            raise RuntimeError(f'work is under way: {self._under_way}')
        work = self._work_ahead() if self._running is None else self._work_for(self._running)
        if not isinstance(work, Idle):
            self._under_way, self._under_way_for = work, self._running
        return work

    def _ask(self, asked: QuestionAsked) -> list[Notice]:
        if not asked.request_id or asked.request_id in self:
            raise ValueError(f'request_id is empty or already asked: {asked.request_id!r}')
        if self._running is None:
            return self._start(asked)
        if len(self._waiting) >= self._max_waiting:
            return [Rejected(asked.request_id, len(self._waiting), self._max_waiting)]
        self._waiting[asked.request_id] = asked
        return []

    def _start(self, asked: QuestionAsked) -> list[Notice]:
        evicted = self._ledger.pin(asked.frames)
        missing = [frame for frame in dict.fromkeys(asked.frames) if frame not in self._ledger]
        self._running = _Steps(asked, deque(missing))
        return [Evicted(frame) for frame in evicted]

    def _end(self, request_id: str, ending: Ending) -> list[Notice]:
        if self._waiting.pop(request_id, None) is not None:
            return [Ended(request_id, ending)]
        if self._running is None or self._running.request_id != request_id:
            return []
        notices: list[Notice] = [Ended(request_id, ending)]
        self._running = None
        if self._waiting:
            _, asked = self._waiting.popitem(last=False)
            return notices + self._start(asked)
        return notices + [Evicted(frame) for frame in self._ledger.pin(())]

    def _end_overdue(self, now_ns: int) -> list[Notice]:
        asked = [] if self._running is None else [self._running.asked]
        # Those that wait first: none of them is started only to be ended.
        overdue = [
            question.request_id
            for question in [*self._waiting.values(), *asked]
            if 0 < question.deadline_ns <= now_ns
        ]
        return [
            notice for request_id in overdue for notice in self._end(request_id, Ending.DEADLINE)
        ]

    def _work_for(self, steps: _Steps) -> Work:
        request_id = steps.request_id
        for queue in (steps.to_prepare, steps.to_encode):
            while queue and queue[0] in self._ledger:  # Encoded ahead in the meantime.
                queue.popleft()
        if steps.to_prepare:
            return Prepare(request_id, steps.to_prepare[0])
        if steps.rendered is None:
            return Render(request_id)
        if steps.to_encode:
            return Encode(request_id, steps.to_encode[0])
        if steps.pieces:
            return Prefill(request_id, steps.prefilled, steps.prefilled + steps.pieces[0])
        return Decode(request_id)

    def _work_ahead(self) -> Work:
        while self._arrived:
            frame = next(iter(self._arrived.values()))
            if frame not in self._ledger:
                is_prepared = frame == self._prepared_ahead
                return Encode(AHEAD, frame) if is_prepared else Prepare(AHEAD, frame)
            self._forget_arrived(frame)
        return Idle()

    def _forget_arrived(self, frame: FrameKey) -> None:
        if self._arrived.get((frame.camera, frame.topic)) == frame:
            del self._arrived[frame.camera, frame.topic]

    def _finish_work(self, done: WorkDone) -> list[Notice]:
        work, outcome = done.work, done.outcome
        if self._under_way is None or work != self._under_way:
            raise ValueError(f'{work} is not under way, but {self._under_way}')
        self._under_way = None
        assert not isinstance(work, Idle)
        notices: list[Notice] = []
        if isinstance(work, Encode) and isinstance(outcome, Encoded):
            notices += map(Evicted, self._ledger.add(work.frame, outcome.nbytes))
        if work.request_id == AHEAD:
            self._finish_ahead(work, outcome)
            return notices
        steps = self._running
        if steps is None or steps is not self._under_way_for:
            return notices  # The question ended while this was under way.
        if isinstance(outcome, Failed):
            return notices + self._end(work.request_id, Ending.FAILED)
        if isinstance(outcome, Decoded) and outcome.is_last:
            return notices + self._end(work.request_id, Ending.ANSWERED)
        notices += self._advance(steps, done)
        return notices

    def _finish_ahead(self, work: Work, outcome: object) -> None:
        assert isinstance(work, Prepare | Encode)
        if isinstance(outcome, Prepared):
            self._prepared_ahead = work.frame
            return
        self._prepared_ahead = None
        self._forget_arrived(work.frame)

    def _advance(self, steps: _Steps, done: WorkDone) -> list[Notice]:
        work, outcome = done.work, done.outcome
        if isinstance(outcome, Prepared):
            assert isinstance(work, Prepare)
            steps.to_prepare.remove(work.frame)
        elif isinstance(outcome, Rendered):
            assert min(outcome.pieces) > 0, outcome.pieces
            steps.rendered = outcome
            steps.pieces.extend(outcome.pieces)
            steps.prefilled = outcome.reused_tokens
            steps.to_encode.extend(dict.fromkeys(outcome.frames))
            evicted = self._ledger.pin({*steps.asked.frames, *outcome.frames})
            return [Evicted(frame) for frame in evicted]
        elif isinstance(outcome, Prefilled):
            assert isinstance(work, Prefill)
            steps.pieces.popleft()
            steps.prefilled = work.stop
        return []
