"""The questions of a process that dies, as a state machine: each ends once, with what was said."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.clock import ManualClock

from edge_vlm_ros.core import (
    NS_PER_S,
    Answer,
    AnswerChunk,
    BadRequestError,
    BusyError,
    CancelledError,
    DeviceError,
    ErrorCode,
    FinishReason,
    Priority,
    Question,
)
from edge_vlm_ros.scheduling import QueuePolicy
from edge_vlm_ros.serving import AnswerStream, ServingSettings
from edge_vlm_ros.serving.process.open_questions import OpenQuestions

LATE_S = 0.15
MAX_DEATHS = 2


class ProcessMachine(RuleBasedStateMachine):
    """Plays callers, and one model process after another."""

    @initialize(most=st.integers(0, 4), policy=st.sampled_from(QueuePolicy))
    def begin(self, most, policy):
        self.settings = ServingSettings(max_waiting=most, queue_policy=policy)
        self.questions = OpenQuestions()
        self.clock = ManualClock(NS_PER_S)
        self.heard = []
        self.streams = {}
        self.given = {}
        self.cancelled = set()
        self.deaths = {}

    @property
    def open(self):
        return [name for name, stream in self.streams.items() if not stream.done]

    @rule(
        patience_s=st.sampled_from([0, 0.05, 5]),
        priority=st.sampled_from(Priority),
        again=st.booleans(),
    )
    def hold(self, patience_s, priority, again):
        name = f'q{len(self.streams)}'
        if again and self.given:
            name = min(self.given)
        now_ns = self.clock.now_ns()
        deadline_ns = now_ns + round(patience_s * NS_PER_S) if patience_s else 0
        question = Question('Eh?', name, deadline_ns=deadline_ns, priority=priority)
        stream = AnswerStream(
            name, clock=self.clock, cancel=lambda _: 0, on_chunk=self.heard.append
        )
        held = self.questions.held
        try:
            self.questions.check_new(name)
            end_another = self.questions.make_room(question, self.settings, now_ns)
        except BadRequestError as error:
            is_twin = error.code is ErrorCode.DUPLICATE_REQUEST
            assert is_twin == (name in self.given)
            return
        except BusyError:
            assert held >= self.settings.max_held
            return
        assert name not in self.streams
        self.questions.hold(question, stream, now_ns)
        if end_another is not None:
            end_another()
        self.streams[name] = stream
        self.deaths[name] = 0
        assert self.questions.held <= max(held, self.settings.max_held)

    @rule()
    def give(self):
        for question in self.questions.give():
            assert question.request_id not in self.given, 'given once to a process'
            assert question.request_id in self.open
            self.given[question.request_id] = 0

    @precondition(lambda self: self.given)
    @rule(data=st.data(), is_last=st.booleans())
    def say(self, data, is_last):
        name = data.draw(st.sampled_from(sorted(self.given)))
        sequence = self.given[name]
        self.given[name] += 1
        text = 'word ' * sequence
        answer = Answer(name, text + 'word ', FinishReason.STOP) if is_last else None
        self.questions.relay(AnswerChunk(name, sequence, 'word ', answer))
        if is_last:
            del self.given[name]
            assert self.streams[name].done

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def cancel(self, data):
        name = data.draw(st.sampled_from(['', *self.streams]))
        was_open = self.open if not name else [n for n in self.open if n == name]
        assert self.questions.cancel(name, self.clock.now_ns()) == len(was_open)
        self.cancelled |= set(was_open)
        assert all(self.streams[n].done for n in was_open if n not in self.given), 'held: at once'

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.2, 10]))
    def pass_time(self, seconds):
        self.clock.advance(seconds)
        self.questions.end_late(self.clock.now_ns(), LATE_S)
        if seconds > LATE_S:
            assert not self.cancelled & set(self.open), 'ended from outside'

    @precondition(lambda self: self.given)
    @rule(data=st.data(), is_known=st.booleans())
    def die(self, data, is_known):
        """The process is gone; what had no chunk yet is held again, unless it killed too often."""
        under_way = data.draw(st.sampled_from(['', *sorted(self.given)])) if is_known else None
        first = next(name for name in self.streams if name in self.given)
        guilty = first if under_way is None else under_way
        begun = {name for name in self.given if self.given[name] and name in self.open}
        innocent = {
            name
            for name in self.given
            if not self.given[name] and name in self.open and name not in self.cancelled
        }
        if guilty:
            self.deaths[guilty] += 1
        error = DeviceError('it died')
        self.questions.take_back(error, under_way, self.clock.now_ns(), max_deaths=MAX_DEATHS)
        self.given.clear()
        assert not begun & set(self.open)
        for name in innocent & set(self.open):
            assert self.deaths[name] < MAX_DEATHS
        for name in innocent - set(self.open):
            answer = self.streams[name].answer(0)
            is_late = answer.error_code is ErrorCode.DEADLINE
            assert is_late or self.deaths[name] >= MAX_DEATHS

    @invariant()
    def each_ends_once_with_what_was_said(self):
        for name, stream in getattr(self, 'streams', {}).items():
            chunks = [chunk for chunk in self.heard if chunk.request_id == name]
            finals = [chunk for chunk in chunks if chunk.done]
            assert len(finals) == stream.done
            assert chunks[-1:] == finals or not finals
            assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
            if finals:
                said = ''.join(chunk.delta for chunk in chunks)
                assert finals[0].answer.text == said

    @invariant()
    def those_open_are_known(self):
        if hasattr(self, 'questions'):
            # One that was ended from outside is known until its process has said so, too.
            assert len(self.questions) >= len(self.open)
            assert self.questions.held == len(set(self.open) - set(self.given))

    def teardown(self):
        if not hasattr(self, 'questions'):
            return
        self.questions.end_all(CancelledError('closed'), self.clock.now_ns())
        assert not self.open
        assert len(self.questions) == 0
        self.each_ends_once_with_what_was_said()


ProcessMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
test_whatever_becomes_of_processes_each_question_ends_once = ProcessMachine.TestCase
