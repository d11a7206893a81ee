"""Cancel and deadline in every stage, while the engine sits in a call that nothing can interrupt.

The engine stands still in one stage until the test lets it go on: whatever comes before that did
not wait for it. Time passes when the test says so. So nothing is measured here; `make bench` has
the figures.
"""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from support.clock import ManualClock
from support.long_answer import long_words

from edge_vlm_ros.core import NS_PER_S, ErrorCode, FinishReason, Question
from edge_vlm_ros.engines import never
from edge_vlm_ros.scheduling import QueuePolicy
from edge_vlm_ros.serving import ServingSettings, VlmPipeline
from edge_vlm_ros.serving.loading import load_model

SCRIPT = {'answers': [{'question': 'next', 'answer': '{means}'}, {'answer': long_words(50)}]}
STAGES = ['queued', 'encode', 'prefill', 'first token', 'decode']
SOON_S = 0.2


class StandingEngine:
    """Stands still in one call of a stage, once it is told to."""

    def __init__(self, inner):
        self._inner = inner
        self.stage = ''
        self.calls = 0
        self.stands = threading.Event()
        self.goes_on = threading.Event()

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def stand_in(self, stage, after=0):
        self.calls = after
        self.stage = stage

    def encode(self, inputs):
        self._pass('encode')
        return self._inner.encode(inputs)

    def prefill(self, part, features, _should_stop=never):
        self._pass('prefill')
        return self._inner.prefill(part, features, never)

    def next_token(self, sampling):
        self._pass('first token')
        return self._inner.next_token(sampling)

    def decode(self, token, position):
        self._pass('decode')
        return self._inner.decode(token, position)

    def _pass(self, stage):
        if stage != self.stage:
            return
        self.calls -= 1
        if self.calls < 0:
            self.stage = ''
            self.stands.set()
            assert self.goes_on.wait(60), 'the test let it stand'


@pytest.fixture
def standing(scripted):
    """Give a pipeline, its engine and its clock."""
    engines = []
    clock = ManualClock()
    clock.advance(1.0)

    def load():
        loaded = load_model(scripted(**SCRIPT))
        engines.append(StandingEngine(loaded.engine))
        return replace(loaded, engine=engines[0])

    with VlmPipeline.start(load, clock=clock) as pipeline:
        yield pipeline, engines[0], clock
        engines[0].goes_on.set()


def ask_until_it_stands(pipeline, engine, stage, frame, chunks, **question):
    """Ask a question that gets as far as a stage, in which the engine then stands."""
    asked = Question('Talk', frames=(frame(9, stamp_ns=5),), session_id='s', **question)
    if stage == 'queued':
        engine.stand_in('prefill')
        pipeline.ask(Question('The one before', request_id='before'))
        assert engine.stands.wait(60)
        return pipeline.ask(asked, chunks.append)
    engine.stand_in(stage, after=10 if stage == 'decode' else 0)
    stream = pipeline.ask(asked, chunks.append)
    assert engine.stands.wait(60)
    return stream


def check_next(pipeline, engine, frame, stream, chunks):
    """See to it that nothing follows, and that the next question is answered as if alone."""
    number = len(chunks)
    expected = None
    engine.goes_on.set()
    pipeline.cancel('before')
    for _ in range(2):
        follower = pipeline.ask(Question('next', frames=(frame(200, stamp_ns=9),)))
        answer = follower.answer(60)
        assert answer.success, answer.message
        expected = expected or answer.text
        assert answer.text == expected
    begins = pipeline.ask(Question('next', frames=(frame(200),), session_id='s')).answer(60)
    assert 'begins here' in begins.message, 'it left no turn behind'
    assert len(chunks) == number, 'no chunk after the final one'
    assert [chunk.done for chunk in chunks] == [False] * (number - 1) + [True]
    assert [chunk.sequence for chunk in chunks] == list(range(number))
    assert stream.answer(0).text == ''.join(chunk.delta for chunk in chunks)


def check_provenance(answer, stage):
    """See to it that it says what it was about, and how long it waited and ran."""
    assert [(ref.source.camera, ref.stamp_ns) for ref in answer.frames] == [('front', 5)]
    assert (answer.frames[0].width, answer.frames[0].height) == (8, 8)
    assert (answer.chip, answer.session_id) == ('scripted', 's')
    assert answer.model
    timings = answer.timings
    assert timings.total_s > 0
    assert (timings.run_s == 0) == (stage == 'queued')
    assert timings.queue_s + timings.run_s == pytest.approx(timings.total_s)
    assert bool(answer.text) == (stage == 'decode')
    assert long_words(50).startswith(answer.text)
    assert bool(timings.answer_tokens) == (stage == 'decode')


@pytest.mark.parametrize('stage', STAGES)
def test_a_cancel_does_not_wait_for_the_engine(standing, frame, stage):
    pipeline, engine, clock = standing
    chunks = []
    stream = ask_until_it_stands(pipeline, engine, stage, frame, chunks)
    clock.advance(SOON_S)
    assert stream.cancel()
    answer = stream.answer(0)
    assert not engine.goes_on.is_set()
    assert (answer.error_code, answer.finish_reason) == (
        ErrorCode.CANCELLED,
        FinishReason.CANCELLED,
    )
    check_provenance(answer, stage)
    assert not stream.cancel(), 'once is enough'
    check_next(pipeline, engine, frame, stream, chunks)


@pytest.mark.parametrize('stage', STAGES)
def test_a_deadline_does_not_wait_for_the_engine(standing, frame, stage):
    pipeline, engine, clock = standing
    chunks = []
    due_ns = clock.now_ns() + round(SOON_S * NS_PER_S)
    stream = ask_until_it_stands(pipeline, engine, stage, frame, chunks, deadline_ns=due_ns)
    assert not stream.done
    clock.advance(SOON_S)
    answer = stream.answer(60)
    assert not engine.goes_on.is_set(), 'it still stands'
    assert (answer.error_code, answer.finish_reason) == (
        ErrorCode.DEADLINE,
        FinishReason.DEADLINE,
    )
    assert '0.2 s' in answer.message
    assert answer.timings.total_s == pytest.approx(SOON_S)
    check_provenance(answer, stage)
    check_next(pipeline, engine, frame, stream, chunks)


def test_a_newer_question_does_not_wait_for_the_engine_to_take_the_chip(scripted, frame):
    engines = []

    def load():
        loaded = load_model(scripted(**SCRIPT))
        engines.append(StandingEngine(loaded.engine))
        return replace(loaded, engine=engines[0])

    settings = ServingSettings(queue_policy=QueuePolicy.PREEMPT)
    with VlmPipeline.start(load, settings) as pipeline:
        engine, chunks = engines[0], []
        stream = ask_until_it_stands(pipeline, engine, 'decode', frame, chunks)
        newer = pipeline.ask(Question('next', frames=(frame(200),)))
        answer = stream.answer(0)
        assert (answer.error_code, answer.finish_reason) == (
            ErrorCode.PREEMPTED,
            FinishReason.PREEMPTED,
        )
        assert answer.text
        engine.goes_on.set()
        assert newer.answer(60).success
        check_next(pipeline, engine, frame, stream, chunks)
