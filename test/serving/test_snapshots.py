"""Questions, conversations and work ahead with a cache that cannot be cut, as with any other.

On the scripted engine, whose state such a cache is, and on a real model behind a cache that
refuses what a state cannot do.
"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from support.patience import Patience

from edge_vlm_ros.core import DeviceError, Prefix, Question, Readiness, SamplingOptions, ShownAs
from edge_vlm_ros.engines.kv_length import KvLength
from edge_vlm_ros.serving import VlmPipeline
from edge_vlm_ros.serving.loading import load_model

GREEDY = SamplingOptions(max_tokens=8)
WINDOW = ShownAs.AMONG_OTHERS
CHOICES = ('to the left', 'to the right', 'to the east', 'nowhere')
SCRIPT = {'answers': [{'answer': '{means} {question}'}]}


class Handle(KvLength):
    """A state over a real cache: it goes back where a state can, and counts how often."""

    def __init__(self, state, snapshots):
        super().__init__(snapshots)
        self._state = state

    @property
    def length(self):
        self._length = self._state.engine.kv.length
        return self._length

    def truncate(self, length):
        self._state.returns += 0 < length < self.length
        super().truncate(length)
        self._state.engine.kv.truncate(length)

    def _keep(self, length):
        if self._state.is_full:
            raise DeviceError('no memory for another snapshot')
        self._state.kept.append(length)


class State:
    """A real engine, but its cache cannot be cut."""

    def __init__(self, engine, snapshots):
        self.engine = engine
        self.limits = replace(engine.limits, can_truncate=False, snapshots=snapshots)
        self.handles = [Handle(self, snapshots) for _ in range(engine.limits.kv_slots)]
        self.slot, self.returns, self.kept = 0, 0, []
        self.is_full = self.is_cold = False

    def __getattr__(self, name):
        return getattr(self.engine, name)

    @property
    def kv(self):
        handle = self.handles[self.slot]
        assert handle.length == self.engine.kv.length
        return handle

    def usable_prefix(self, shared, prompt, at_hand=None):
        return 0 if self.is_cold else self.engine.usable_prefix(shared, prompt, at_hand)

    def select_kv(self, slot):
        self.engine.select_kv(slot)
        self.slot = slot


class Stateful:
    """A pipeline, and its engine."""

    def __init__(self, spec, snapshots):
        def load():
            loaded = load_model(spec)
            self.engine = State(loaded.engine, snapshots)
            return replace(loaded, engine=self.engine)

        self.reports = []
        self.pipeline = VlmPipeline.start(load)
        self.pipeline.listen_ahead(self.reports.append)

    def ready(self, *frames, shown_as=WINDOW):
        """Want a prefix, and wait until it is there."""
        self.reports.clear()
        self.pipeline.want_prefix(Prefix(frames, shown_as=shown_as))
        names = [(frame.source.camera, frame.stamp_ns) for frame in frames]
        patience = Patience(20)
        while not self._is_ready(names):
            assert not patience.is_over()
            patience.look()

    def _is_ready(self, names):
        ready = self.reports and self.reports[-1].ready
        return [(key.camera, key.stamp_ns) for key in ready or ()] == names

    def ask(self, text, *frames, **more):
        more.setdefault('shown_as', WINDOW if frames else None)
        question = Question(text, frames=frames, sampling=GREEDY, **more)
        answer = self.pipeline.ask(question).answer(60)
        assert answer.success, answer.message
        return answer


@pytest.fixture(params=['scripted', 'tiny_spec', 'tiny_qwen_spec'])
def spec(request, scripted):
    name = request.param
    return scripted(**SCRIPT) if name == 'scripted' else request.getfixturevalue(name)


@pytest.fixture
def opened(spec):
    """Open pipelines: `opened(snapshots)`."""
    all_of_them = []

    def make(snapshots):
        all_of_them.append(Stateful(spec, snapshots))
        return all_of_them[-1]

    yield make
    for each in all_of_them:
        each.pipeline.close()


def picture(frame, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3))
    return frame(pixels, side=40, stamp_ns=seed + 1, received_ns=seed + 1)


def cached(answer):
    return answer.timings.cached_prompt_tokens


def test_each_question_about_a_window_goes_back_to_where_its_words_begin(opened, frame):
    state = opened(2)
    frames = [picture(frame, seed) for seed in range(3)]
    state.ready(*frames[:2])
    first = state.ask('What is it?', *frames[:2])
    assert first.readiness is Readiness.PREFIX
    assert cached(first) >= first.timings.vision_tokens
    state.ready(*frames[:2])  # there again, with nothing to do
    second = state.ask('Where?', *frames[:2])
    assert (cached(second), second.readiness) == (cached(first), Readiness.PREFIX)
    state.ready(*frames)
    grown = state.ask('Where?', *frames)
    assert grown.readiness is Readiness.PREFIX
    assert cached(grown) > cached(first)
    assert state.engine.returns > 0


def test_a_clip_grows_from_before_the_token_that_closes_it(tiny_qwen_spec, frame):
    state = Stateful(tiny_qwen_spec, 2)
    frames = [picture(frame, seed) for seed in range(4)]
    state.ready(*frames[:2], shown_as=ShownAs.VIDEO)
    state.ask('Where?', *frames[:2], shown_as=ShownAs.VIDEO)
    state.ready(*frames, shown_as=ShownAs.VIDEO)
    kept = state.reports[-1]
    state.pipeline.close()
    assert kept.restarts == 0
    assert state.engine.returns == 1, 'to before that token, not to the start'


def test_a_conversation_goes_on_without_going_back(opened, frame):
    state = opened(1)
    state.ask('What is it?', picture(frame, 1), session_id='a')
    before = state.engine.returns
    turns = [state.ask(text, session_id='a') for text in ('And now?', 'Where?')]
    assert state.engine.returns == before
    assert all(cached(turn) > turn.timings.prompt_tokens / 2 for turn in turns)


@pytest.mark.parametrize('seed', range(2))
@pytest.mark.parametrize('snapshots', [0, 1, 3])
def test_whatever_happened_answers_are_those_of_an_empty_cache(opened, frame, snapshots, seed):
    state, cold = opened(snapshots), opened(0)
    cold.engine.is_cold = True
    drawn = random.Random(seed)
    frames = [picture(frame, number) for number in range(5)]
    window = [0]
    for _ in range(10):
        kind = drawn.choice(['window', 'window', 'talk', 'choices', 'cancel'])
        if drawn.random() < 0.5:
            window = [*window, drawn.randrange(5)] if len(window) < 4 else window[-1:]
        shown = tuple(frames[number] for number in window)
        state.pipeline.want_prefix(Prefix(shown, shown_as=WINDOW))
        more = {}
        if kind == 'cancel':
            state.pipeline.ask(Question('Never mind', frames=shown)).cancel()
        elif kind == 'talk':
            more, shown = {'session_id': 'a'}, ()
        elif kind == 'choices' and snapshots:
            more = {'choices': CHOICES}
        text = drawn.choice(['What is it?', 'What is this?', 'Where?'])
        answer = state.ask(text, *shown, **more)
        if 'choices' in more:
            continue  # For those the cold one has no way back; see the next test.
        expected = cold.ask(text, *shown, **more)
        assert answer.text == expected.text, (kind, text, window)
    if snapshots:
        assert state.engine.kept
    state.pipeline.want_prefix(None)


def test_choices_are_scored_as_with_a_cache_that_can_be_cut(spec, opened, frame):
    state, shown = opened(2), picture(frame, 2)
    with VlmPipeline.open(spec) as other:
        question = Question('Where?', frames=(shown,), sampling=GREEDY, choices=CHOICES)
        expected = other.ask(question).answer(60)
    answer = state.ask('Where?', shown, choices=CHOICES, shown_as=None)
    assert answer.choice == expected.choice
    assert answer.choice_probability == pytest.approx(expected.choice_probability, abs=1e-4)
    follow_up = state.ask('Where?', shown, choices=CHOICES, shown_as=None)
    assert follow_up.choice == expected.choice
    assert cached(follow_up) > 0


def test_without_a_way_back_the_choice_is_the_one_that_the_text_names(opened, frame):
    answer = opened(0).ask('nowhere', picture(frame, 3), choices=CHOICES)
    assert answer.choice_probability is None


def test_no_memory_for_snapshots_costs_time_and_nothing_else(opened, frame, caplog):
    state = opened(2)
    frames = [picture(frame, seed) for seed in range(2)]
    state.engine.is_full = True
    state.ready(*frames)
    first, second = (state.ask(text, *frames).text for text in ('What is it?', 'Where?'))
    assert (first, second) == tuple(
        opened(0).ask(text, *frames).text for text in ('What is it?', 'Where?')
    )
    assert 'no more snapshots of the KV cache are taken' in caplog.text
