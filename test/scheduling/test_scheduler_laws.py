"""The scheduler as a state machine: whatever comes, in whatever order, its rules hold."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_vlm_ros.core import FrameKey
from edge_vlm_ros.scheduling import (
    AHEAD,
    Cancelled,
    Decode,
    Decoded,
    Encode,
    Encoded,
    Ended,
    Evicted,
    Failed,
    FrameArrived,
    GivenUp,
    Idle,
    Prefill,
    Prefilled,
    Prepare,
    Prepared,
    QuestionAsked,
    Rejected,
    Render,
    Rendered,
    Scheduler,
    SchedulerSettings,
    Tick,
    WorkDone,
)

FRAMES = [FrameKey(camera, '/image', stamp) for camera in 'ab' for stamp in range(4)]
frames = st.lists(st.sampled_from(FRAMES), max_size=4, unique=True).map(tuple)


class SchedulerMachine(RuleBasedStateMachine):
    """Plays callers, cameras, clock and chip."""

    @initialize(
        max_waiting=st.integers(0, 3),
        max_frames=st.integers(0, 5),
        max_bytes=st.integers(0, 60),
    )
    def begin(self, max_waiting, max_frames, max_bytes):
        self.max_waiting = max_waiting
        self.scheduler = Scheduler(SchedulerSettings(max_waiting, max_frames, max_bytes))
        self.asked = {}
        self.ended = set()
        self.kept = {}
        self.now_ns = 0
        self.work = Idle()
        self.rendered = {}
        self.prefilled = {}
        self.order = []

    def take(self, notices):
        for notice in notices:
            if isinstance(notice, Evicted):
                del self.kept[notice.frame]
                continue
            assert isinstance(notice, Ended | Rejected)
            assert notice.request_id in self.asked
            assert notice.request_id not in self.ended, 'a question ends once'
            self.ended.add(notice.request_id)

    @property
    def open(self):
        return [name for name in self.asked if name not in self.ended]

    @rule(frames=frames, patience_ns=st.integers(0, 5))
    def ask(self, frames, patience_ns):
        name = f'q{len(self.asked)}'
        is_full = len(self.open) > self.max_waiting
        deadline_ns = self.now_ns + patience_ns if patience_ns else 0
        self.asked[name] = QuestionAsked(name, frames, deadline_ns)
        self.take(self.scheduler.handle(self.asked[name]))
        assert (name in self.ended) == is_full, 'turned away when the queue is full, and only then'

    @rule(data=st.data())
    @precondition(lambda self: self.asked)
    def cancel(self, data):
        name = data.draw(st.sampled_from(sorted(self.asked)))
        self.take(self.scheduler.handle(Cancelled(name)))
        assert name in self.ended

    @rule(step_ns=st.integers(0, 3))
    def tick(self, step_ns):
        self.now_ns += step_ns
        self.take(self.scheduler.handle(Tick(self.now_ns)))
        for name in self.open:
            assert not 0 < self.asked[name].deadline_ns <= self.now_ns

    @rule(frame=st.sampled_from(FRAMES))
    def see(self, frame):
        self.take(self.scheduler.handle(FrameArrived(frame)))

    @rule()
    @precondition(lambda self: isinstance(self.work, Idle))
    def begin_work(self):
        self.work = work = self.scheduler.next_work()
        if isinstance(work, Idle):
            assert not self.open, 'the chip does not idle while somebody waits'
            return
        if work.request_id == AHEAD:
            assert not self.open, 'questions come first'
            return
        assert work.request_id == self.open[0], 'in the order they came'
        if isinstance(work, Prepare | Encode):
            assert work.frame not in self.kept, 'nothing is encoded twice'
        if isinstance(work, Render):
            assert work.request_id not in self.rendered
            missing = [f for f in self.asked[work.request_id].frames if f not in self.kept]
            assert set(missing) <= self.prepared_for(work.request_id)
        if isinstance(work, Prefill):
            rendered = self.rendered[work.request_id]
            done = self.prefilled[work.request_id]
            borders = [rendered.reused_tokens + n for n in accumulate(rendered.pieces, initial=0)]
            assert (work.start, work.stop) == (done, borders[borders.index(done) + 1])
            assert set(rendered.frames) <= self.kept.keys(), 'what is in use stays'
        if isinstance(work, Decode):
            rendered = self.rendered[work.request_id]
            assert self.prefilled[work.request_id] == rendered.prompt_tokens

    def prepared_for(self, name):
        return {w.frame for w in self.order if isinstance(w, Prepare) and w.request_id == name}

    @rule()
    @precondition(lambda self: not isinstance(self.work, Idle))
    def give_up_work(self):
        """Whatever the reason: nothing is lost and nothing is done twice."""
        work, self.work = self.work, Idle()
        self.take(self.scheduler.handle(WorkDone(work, GivenUp())))
        if work.request_id in self.open:
            self.begin_work()
            assert self.work == work

    @rule(data=st.data(), fails=st.integers(0, 9))
    @precondition(lambda self: not isinstance(self.work, Idle))
    def end_work(self, data, fails):
        work, self.work = self.work, Idle()
        if fails == 0:
            self.take(self.scheduler.handle(WorkDone(work, Failed())))
            return
        self.order.append(work)
        if isinstance(work, Prepare):
            outcome = Prepared()
        elif isinstance(work, Render):
            pieces = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=5))
            reused = data.draw(st.integers(0, 50))
            outcome = Rendered(tuple(pieces), reused, data.draw(frames))
            self.rendered[work.request_id] = outcome
            self.prefilled[work.request_id] = reused
        elif isinstance(work, Encode):
            outcome = Encoded(data.draw(st.integers(0, 20)))
            self.kept[work.frame] = outcome.nbytes
        elif isinstance(work, Prefill):
            outcome = Prefilled()
            self.prefilled[work.request_id] = work.stop
        else:
            outcome = Decoded(data.draw(st.booleans()))
        self.take(self.scheduler.handle(WorkDone(work, outcome)))

    @rule(data=st.data(), items=st.integers(1, 12))
    @precondition(lambda self: isinstance(self.work, Idle))
    def work_on(self, data, items):
        """Several items on end, so that questions get far."""
        for _ in range(items):
            self.begin_work()
            if isinstance(self.work, Idle):
                return
            self.end_work(data, fails=1)

    @invariant()
    def knows_the_same_as_we(self):
        if not hasattr(self, 'scheduler'):
            return
        assert list(self.scheduler.request_ids) == self.open
        assert all(self.scheduler.has_features(frame) for frame in self.kept)
        assert not any(self.scheduler.has_features(f) for f in FRAMES if f not in self.kept)

    def teardown(self):
        """Every question ends once the chip does its work and nobody interferes."""
        if not hasattr(self, 'scheduler'):
            return
        for _ in range(10_000):
            if isinstance(self.work, Idle):
                self.begin_work()
                if isinstance(self.work, Idle):
                    break
            work, self.work = self.work, Idle()
            self.order.append(work)
            outcome = {
                Prepare: Prepared(),
                Render: Rendered((4, 6)),
                Encode: Encoded(1),
                Prefill: Prefilled(),
                Decode: Decoded(is_last=True),
            }[type(work)]
            if isinstance(work, Render):
                self.rendered[work.request_id] = outcome
                self.prefilled[work.request_id] = 0
            if isinstance(work, Encode):
                self.kept[work.frame] = 1
            if isinstance(work, Prefill):
                self.prefilled[work.request_id] = work.stop
            self.take(self.scheduler.handle(WorkDone(work, outcome)))
        assert self.ended == set(self.asked), 'no question is lost'


SchedulerMachine.TestCase.settings = settings(
    max_examples=50, stateful_step_count=40, deadline=None
)
test_the_scheduler_keeps_its_rules = SchedulerMachine.TestCase
