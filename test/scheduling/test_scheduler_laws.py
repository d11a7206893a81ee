"""The scheduler as a state machine: whatever comes, in whatever order, its rules hold."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_vlm_ros.core import ArrivalTime, FeatureKey, FrameKey, Priority, ShownAs
from edge_vlm_ros.scheduling import (
    Cancelled,
    Decode,
    Decoded,
    Encode,
    Encoded,
    Ended,
    Ending,
    Evicted,
    Failed,
    FrameOwner,
    FramesOffered,
    GivenUp,
    Idle,
    OfferEnded,
    Prefill,
    Prefilled,
    PrefixFailed,
    PrefixForgotten,
    PrefixOwner,
    PrefixReady,
    PrefixWanted,
    Prepare,
    Prepared,
    QuestionAsked,
    QuestionOwner,
    QueuePolicy,
    Rejected,
    Render,
    Rendered,
    Scheduler,
    SchedulerSettings,
    Tick,
    WorkDone,
)

KEYS = [
    FeatureKey((FrameKey(camera, '/image', stamp, ArrivalTime(stamp + 1)),), shown_as)
    for camera, shown_as in (('a', ShownAs.ALONE), ('a', ShownAs.VIDEO), ('b', ShownAs.ALONE))
    for stamp in range(3)
]
some_keys = st.lists(st.sampled_from(KEYS), max_size=4, unique=True).map(tuple)


class SchedulerMachine(RuleBasedStateMachine):
    """Plays callers, cameras, clock and chip."""

    @initialize(
        max_waiting=st.integers(0, 3),
        max_frames=st.integers(0, 5),
        max_bytes=st.integers(0, 60),
        policy=st.sampled_from(QueuePolicy),
        newest_wins=st.sets(st.sampled_from(['a', 'b'])),
        duty=st.sampled_from([1.0, 1.0, 0.5]),
        live_ns=st.sampled_from([0, 0, 4]),
    )
    def begin(  # noqa: PLR0913, PLR0917 (drawn)
        self, max_waiting, max_frames, max_bytes, policy, newest_wins, duty, live_ns
    ):
        self.max_waiting = 0 if policy is QueuePolicy.REJECT else max_waiting
        self.policy = policy
        self.newest_wins = newest_wins
        self.scheduler = Scheduler(
            SchedulerSettings(
                max_waiting, max_frames, max_bytes, policy, tuple(newest_wins), duty, live_ns
            )
        )
        self.asked = {}
        self.ended = set()
        self.reasons = {}
        self.begun = ''
        self.max_frames = max_frames
        self.max_bytes = max_bytes
        self.prepared = set()
        self.kept = {}
        self.offered = []
        self.wish = None
        self.wishes = 0
        self.is_whole = self.is_failed = False
        self.live = ('', 0)
        self.live_ns = live_ns
        self.now_ns = 0
        self.work = Idle()
        self.rendered = {}
        self.prefilled = {}

    def take(self, notices):
        for notice in notices:
            if isinstance(notice, Evicted):
                is_kept, is_prepared = notice.key in self.kept, notice.key in self.prepared
                assert is_kept != is_prepared, 'what is evicted was there'
                self.kept.pop(notice.key, None)
                self.prepared.discard(notice.key)
                continue
            if isinstance(notice, OfferEnded):
                self.offered.remove(notice.key)  # Once: there.
                continue
            if isinstance(notice, PrefixReady | PrefixFailed):
                assert notice.number == self.wish.number, 'the newest wish counts'
                assert not self.is_failed
                self.is_failed = isinstance(notice, PrefixFailed)
                self.is_whole = not self.is_failed
                continue
            assert isinstance(notice, Ended | Rejected)
            assert notice.request_id in self.asked
            assert notice.request_id not in self.ended, 'a question ends once'
            self.ended.add(notice.request_id)
            self.reasons[notice.request_id] = getattr(notice, 'ending', 'rejected')

    @property
    def open(self):
        """In the order they came."""
        return [name for name in self.asked if name not in self.ended]

    @property
    def in_turn(self):
        """The one begun, then the others: a higher priority first, of equal ones the oldest."""
        waiting = [name for name in self.open if name != self.begun]
        by_turn = [
            name for level in reversed(Priority) for name in waiting if self.level(name) is level
        ]
        return [name for name in self.open if name == self.begun] + by_turn

    def level(self, name):
        return self.asked[name].priority

    @rule(
        keys=some_keys,
        patience_ns=st.integers(0, 5),
        priority=st.sampled_from(Priority),
        session=st.sampled_from(['', '', 's', 't']),
    )
    def ask(self, keys, patience_ns, priority, session):
        name = f'q{len(self.asked)}'
        deadline_ns = self.now_ns + patience_ns if patience_ns else 0
        question = QuestionAsked(name, keys, deadline_ns, priority, session)
        expected = self.who_goes(question)
        before = set(self.ended)
        self.asked[name] = question
        self.take(self.scheduler.handle(question))
        gone = {each: self.reasons[each] for each in self.ended - before}
        assert gone == expected, 'who has to go, and only they'

    def who_goes(self, newcomer):
        """Say whom a newcomer ends, itself or others, in the plainest words there are."""
        if not self.open:
            return {}
        first, *waiting = self.in_turn
        shown = {frame.camera for key in newcomer.keys for frame in key.frames}
        gone = {}
        for name in waiting:
            cameras = {frame.camera for key in self.asked[name].keys for frame in key.frames}
            pointless = cameras and cameras <= shown and cameras <= self.newest_wins
            if pointless and self.level(name) <= newcomer.priority:
                gone[name] = Ending.OUTDATED
        waiting = [name for name in self.open if name in waiting and name not in gone]
        if self.policy is QueuePolicy.PREEMPT and newcomer.priority >= self.level(first):
            return {**gone, first: Ending.PREEMPTED}
        if len(waiting) < self.max_waiting:
            return gone
        lowest = min(map(self.level, waiting), default=None)
        is_possible = lowest is not None and lowest <= newcomer.priority
        if self.policy is QueuePolicy.REPLACE_OLDEST and is_possible:
            victim = next(name for name in waiting if self.level(name) is lowest)
            return {**gone, victim: Ending.REPLACED}
        return {**gone, newcomer.request_id: 'rejected'}

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

    @rule(keys=some_keys)
    def offer(self, keys):
        self.offered += [key for key in keys if key not in self.offered]
        self.take(self.scheduler.handle(FramesOffered(keys)))
        assert len(self.offered) <= self.max_frames + 1, 'the one begun, and a bound'
        assert not set(self.offered) & self.kept.keys()

    @rule(keys=some_keys, session=st.sampled_from(['', 's']), is_urgent=st.booleans())
    def want(self, keys, session, is_urgent):
        self.wishes += 1
        self.wish = PrefixWanted(self.wishes, keys, session, is_urgent)
        self.is_whole = self.is_failed = False
        self.take(self.scheduler.handle(self.wish))

    @rule()
    def want_nothing(self):
        self.wish = None
        self.take(self.scheduler.handle(PrefixForgotten()))

    @property
    def wanted(self):
        if not self.wish or self.is_failed:
            return set()
        rendered = self.rendered.get(self.wish)
        return {*self.wish.keys, *(rendered.keys if rendered else ())}

    @rule()
    @precondition(lambda self: isinstance(self.work, Idle))
    def begin_work(self):
        self.work = work = self.scheduler.next_work()
        if isinstance(work, Idle):
            assert not self.open, 'the chip does not idle while somebody waits'
            if work.until_ns:
                assert work.until_ns > self.now_ns, 'it wakes up for something'
                return
            assert not self.offered, 'nor while there is something to make ahead'
            assert not self.wish or self.is_whole or self.is_failed, 'nor while a wish is open'
            assert not self.prepared, 'no pixels are left behind'
            return
        if isinstance(work, Prepare):
            assert work.key not in self.kept.keys() | self.prepared, 'nothing is made twice'
        if isinstance(work, Encode):
            assert work.key not in self.kept, 'nothing is made twice'
            self.prepared.discard(work.key)
        if isinstance(work.owner, FrameOwner):
            assert not self.open, 'questions come first'
            assert work.key == work.owner.key
            assert work.key in self.offered
            return
        if isinstance(work.owner, PrefixOwner):
            self.begin_prefix_work(work)
            return
        name = work.owner.request_id
        assert name == self.in_turn[0], 'one after the other, and who comes before whom'
        self.begun = name
        if isinstance(work, Render):
            assert name not in self.rendered
            assert set(self.asked[name].keys) <= self.kept.keys() | self.prepared
        if isinstance(work, Prefill):
            rendered = self.rendered[name]
            done = self.prefilled[name]
            borders = [rendered.reused_tokens + n for n in accumulate(rendered.pieces, initial=0)]
            assert (work.start, work.stop) == (done, borders[borders.index(done) + 1])
            assert set(rendered.keys) <= self.kept.keys(), 'what is in use stays'
        if isinstance(work, Decode):
            rendered = self.rendered[name]
            assert self.prefilled[name] == rendered.reused_tokens + sum(rendered.pieces)

    def begin_prefix_work(self, work):
        wish = self.wish
        assert not self.open, 'questions come first'
        assert work.owner.number == wish.number, 'the newest wish counts'
        assert not self.is_whole
        assert not self.is_failed
        if isinstance(work, Render):
            assert set(self.wish.keys) <= self.kept.keys(), 'features come first'
        if isinstance(work, Prefill):
            assert self.wanted <= self.kept.keys(), 'and those of earlier turns, and stay'
        if isinstance(work, Render | Prefill):
            session, until_ns = self.live
            is_free = wish.session_id == session or self.now_ns >= until_ns
            assert is_free or wish.is_urgent, 'a live conversation keeps the KV cache'
        if isinstance(work, Render):
            assert wish not in self.rendered, 'written once, until a question has the cache'
        if isinstance(work, Prefill):
            rendered, done = self.rendered[wish], self.prefilled[wish]
            borders = [rendered.reused_tokens + n for n in accumulate(rendered.pieces, initial=0)]
            assert (work.start, work.stop) == (done, borders[borders.index(done) + 1])

    def lose_prefix(self):
        """The KV cache may hold something else now."""
        self.is_whole = False
        self.rendered.pop(self.wish, None)

    @rule()
    @precondition(lambda self: not isinstance(self.work, Idle))
    def give_up_work(self):
        """Whatever the reason: nothing is lost and nothing is done twice."""
        work, self.work = self.work, Idle()
        if isinstance(work.owner, QuestionOwner) and not isinstance(work, Prepare):
            self.lose_prefix()
        self.take(self.scheduler.handle(WorkDone(work, GivenUp())))
        if isinstance(work.owner, QuestionOwner) and work.owner.request_id in self.open:
            self.begin_work()
            assert self.work == work

    @rule(data=st.data(), fails=st.integers(0, 9))
    @precondition(lambda self: not isinstance(self.work, Idle))
    def end_work(self, data, fails):
        work, self.work = self.work, Idle()
        took_ns = data.draw(st.integers(0, 3))
        if fails == 0:
            self.lose_prefix()
            self.take(self.scheduler.handle(WorkDone(work, Failed(), took_ns)))
            return
        if isinstance(work, Prepare):
            outcome = Prepared()
        elif isinstance(work, Render):
            least = 1 if isinstance(work.owner, QuestionOwner) else 0
            pieces = data.draw(st.lists(st.integers(1, 40), min_size=least, max_size=5))
            reused = data.draw(st.integers(0, 50))
            outcome = Rendered(tuple(pieces), reused, data.draw(some_keys))
        elif isinstance(work, Encode):
            outcome = Encoded(data.draw(st.integers(0, 20)))
        elif isinstance(work, Prefill):
            outcome = Prefilled()
        else:
            outcome = Decoded(data.draw(st.booleans()))
        self.note(work, outcome, took_ns)

    def note(self, work, outcome, took_ns=0):
        """Keep a record of our own, and report."""
        if isinstance(work, Prepare):
            self.prepared.add(work.key)
        elif isinstance(work, Encode):
            self.kept[work.key] = outcome.nbytes
        elif isinstance(work, Render):
            self.rendered[self.name_of(work)] = outcome
            self.prefilled[self.name_of(work)] = outcome.reused_tokens
        elif isinstance(work, Prefill):
            self.prefilled[self.name_of(work)] = work.stop
        is_question = isinstance(work.owner, QuestionOwner)
        if is_question and not isinstance(work, Prepare):
            self.lose_prefix()
        is_answered = isinstance(outcome, Decoded) and outcome.is_last
        if is_answered and work.owner.request_id in self.open:
            session = self.asked[work.owner.request_id].session_id
            self.live = (session, self.now_ns + self.live_ns) if session else self.live
        self.take(self.scheduler.handle(WorkDone(work, outcome, took_ns)))

    def name_of(self, work):
        """Name what it is for: a question's request_id, or the wish; None = an older wish."""
        if isinstance(work.owner, QuestionOwner):
            return work.owner.request_id
        return self.wish if self.wish and work.owner.number == self.wish.number else None

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
        assert list(self.scheduler.request_ids) == self.in_turn
        assert len(self.open) <= 1 + self.max_waiting
        if not self.open and not self.wanted:
            assert len(self.kept) <= self.max_frames
            assert sum(self.kept.values()) <= self.max_bytes

    @rule()
    def settle(self):
        """Let the chip do all its work: deep states are rare otherwise."""
        for _ in range(10_000):
            if isinstance(self.work, Idle):
                self.begin_work()
            if isinstance(self.work, Idle):
                if not self.work.until_ns:
                    return
                self.now_ns = self.work.until_ns
                self.take(self.scheduler.handle(Tick(self.now_ns)))
                continue
            work, self.work = self.work, Idle()
            outcome = {
                Prepare: Prepared(),
                Render: Rendered((4, 6)),
                Encode: Encoded(1),
                Prefill: Prefilled(),
                Decode: Decoded(is_last=True),
            }[type(work)]
            self.note(work, outcome)
        raise AssertionError('the work has no end')

    def teardown(self):
        """Every question ends once the chip does its work and nobody interferes."""
        if not hasattr(self, 'scheduler'):
            return
        self.settle()
        assert self.ended == set(self.asked), 'no question is lost'
        assert not self.wish or self.is_whole or self.is_failed, 'and no wish'


SchedulerMachine.TestCase.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None
)
test_the_scheduler_keeps_its_rules = SchedulerMachine.TestCase
