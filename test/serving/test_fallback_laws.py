"""A law: whatever a server and a chip do, in any order, each question ends once, by one."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.clock import ManualClock
from support.patience import Patience

from edge_vlm_ros.core import (
    Answer,
    BadRequestError,
    CancelledError,
    EdgeVlmError,
    ErrorCode,
    FinishReason,
    Question,
)
from edge_vlm_ros.serving.fallback import FallbackPipeline
from edge_vlm_ros.serving.handover import FallbackSettings, Order
from edge_vlm_ros.serving.model_info import ModelInfo, signed
from edge_vlm_ros.serving.standing import Standing
from edge_vlm_ros.serving.stream import AnswerStream

CODES = [
    ErrorCode.BAD_REQUEST,
    ErrorCode.PROMPT_TOO_LONG,
    ErrorCode.UNKNOWN_SESSION,
    ErrorCode.BUSY,
    ErrorCode.DEADLINE,
    ErrorCode.DEVICE,
    ErrorCode.BAD_OUTPUT,
    ErrorCode.SERVER_UNREACHABLE,
]


class Puppet:
    """A backend that does nothing by itself; its words are the letter of its name."""

    def __init__(self, name, clock):
        self.info = ModelInfo(model=name, chip=name)
        self.standing = Standing(self.info)
        self.open = {}
        self.is_stubborn = False
        self._clock = clock
        self._tell = None

    def listen_standing(self, on_standing):
        self._tell = on_standing

    def turn(self, outage):
        self.standing = Standing(self.info, outage)
        self._tell(self.standing)

    def ask(self, question, on_chunk=None, on_begun=None):
        if question.request_id in self.open:
            raise BadRequestError('it runs', ErrorCode.DUPLICATE_REQUEST)
        stream = AnswerStream(
            question.request_id, clock=self._clock, cancel=self.cancel, on_chunk=on_chunk
        )
        self.open[question.request_id] = (question, stream)
        return stream

    def say(self, name):
        self._clock.advance(0.02)
        self.open[name][1].push(self.info.model[0])

    def end(self, name, code=ErrorCode.NONE, choice=''):
        question, stream = self.open.pop(name)
        if code is not ErrorCode.NONE:
            error = EdgeVlmError('so it is', code)
            stream.finish(lambda text: self._failed(question, error, text))
            return
        good = Answer(question.request_id, '', FinishReason.STOP, choice=choice)
        stream.finish(lambda text: signed(replace(good, text=text), self.info))

    def _failed(self, question, error, text):
        return signed(Answer.failed(question.request_id, error, text=text), self.info)

    def cancel(self, name=''):
        if name not in self.open or self.is_stubborn:
            return 0
        question, stream = self.open.pop(name)
        error = CancelledError('taken back')
        return int(stream.finish(lambda text: self._failed(question, error, text)))

    def reset_session(self, _session_id=''):
        return 0

    def close(self):
        self.is_stubborn = False
        for name in list(self.open):
            self.cancel(name)


class Fallbacks(RuleBasedStateMachine):
    """Drives both puppets, and whoever asks."""

    @initialize(order=st.sampled_from(Order), is_stubborn=st.booleans())
    def begin(self, order, is_stubborn):
        self.clock = ManualClock(1)
        self.remote, self.local = Puppet('remote', self.clock), Puppet('local', self.clock)
        self.remote.is_stubborn = is_stubborn  # It holds on to what was given up.
        options = FallbackSettings(order, first_word_s=10.0, sure_from=0.5)
        self.both = FallbackPipeline(self.remote, self.local, options, clock=self.clock)
        self.streams = {}
        self.heard = {}

    def settle(self):
        """Wait until the pipeline has done what there is to do."""
        patience = Patience(30)
        while True:
            with self.both._changed:
                self.both._changed.notify_all()
                now_ns = self.clock.now_ns()
                waits = [each for each in self.both._open.values() if each.attempt is None]
                late = [each for each in self.both._open.values() if 0 < each.due_ns <= now_ns]
                if not (self.both._jobs or waits or late):
                    return
            assert not patience.is_over(), 'a question hangs between the two'
            patience.look()

    @rule(is_closed=st.booleans(), session=st.sampled_from(['', 's', 's']))
    def ask(self, is_closed, session):
        name = str(len(self.streams))
        choices = ('yes', 'no') if is_closed else ()
        heard = self.heard[name] = []
        question = Question('Well?', name, session_id=session, choices=choices)
        self.streams[name] = self.both.ask(question, heard.append)
        self.settle()

    def _has_open(self):
        return bool(self.remote.open or self.local.open)

    @precondition(_has_open)
    @rule(data=st.data())
    def say(self, data):
        puppet = self._puppet(data)
        puppet.say(data.draw(st.sampled_from(sorted(puppet.open))))
        self.settle()

    @precondition(_has_open)
    @rule(data=st.data(), code=st.sampled_from([ErrorCode.NONE] * 4 + CODES), choice=st.booleans())
    def end(self, data, code, choice):
        puppet = self._puppet(data)
        name = data.draw(st.sampled_from(sorted(puppet.open)))
        is_good = code is ErrorCode.NONE and choice and self.open_choices(puppet, name)
        puppet.end(name, code, 'yes' if is_good else '')
        self.settle()

    @staticmethod
    def open_choices(puppet, name):
        return bool(puppet.open[name][0].choices)

    def _puppet(self, data):
        return data.draw(st.sampled_from([p for p in (self.remote, self.local) if p.open]))

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def cancel(self, data):
        name = data.draw(st.sampled_from(sorted(self.streams)))
        was_done = self.streams[name].done
        number = self.both.cancel(name)
        self.settle()
        assert self.streams[name].done
        assert number == (not was_done)

    @rule()
    def let_time_pass(self):
        self.clock.advance(11.0)
        self.settle()

    @rule(outage=st.sampled_from(['', 'gone']))
    def turn(self, outage):
        self.remote.turn(outage)
        self.settle()

    @invariant()
    def each_ends_at_most_once_with_the_words_of_one(self):
        for name, heard in getattr(self, 'heard', {}).items():
            assert [chunk.sequence for chunk in heard] == list(range(len(heard)))
            done = [chunk.done for chunk in heard]
            assert True not in done[:-1]
            said = ''.join(chunk.delta for chunk in heard)
            assert set(said) in ({'r'}, {'l'}, set())
            assert self.streams[name].done == (bool(done) and done[-1])
            if done and done[-1]:
                answer = heard[-1].answer
                assert answer.text == said
                assert not said or answer.model[0] == said[0]

    def teardown(self):
        if not hasattr(self, 'both'):
            return
        self.both.close()
        for name, stream in self.streams.items():
            assert stream.done, name
            assert sum(chunk.done for chunk in self.heard[name]) == 1


TestFallbacks = Fallbacks.TestCase
TestFallbacks.settings = settings(max_examples=400, stateful_step_count=30, deadline=None)
