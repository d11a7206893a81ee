"""A prompt prefilled up to the question's words: only these are paid for, the answer is the same.

Everything here runs on the scripted engine and on three tiny real models.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from support.patience import Patience

from edge_vlm_ros.core import (
    DeviceError,
    NotReadyError,
    Prefix,
    Question,
    Readiness,
    SamplingOptions,
    ShownAs,
)
from edge_vlm_ros.engines import never
from edge_vlm_ros.serving import ServingSettings, VlmPipeline
from edge_vlm_ros.serving.loading import load_model

GREEDY = SamplingOptions(max_tokens=16)
DEFAULTS = ServingSettings()
WINDOW = ShownAs.AMONG_OTHERS
SCRIPT = {
    'limits': {'context_tokens': 256},
    'answers': [{'question': 'Hello', 'answer': 'Hello.'}, {'answer': '{means} {question}'}],
}


class Gated:
    """An engine that counts, and halts in `prefill` while its gate is shut."""

    def __init__(self, engine):
        self.engine = engine
        self.encodes = self.prefilled = 0
        self.fails = ()
        self.begun, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def encode(self, inputs):
        self.encodes += 1
        return self.engine.encode(inputs)

    def prefill(self, part, features, should_stop=never):
        self.begun.set()
        assert self.gate.wait(20)
        if self.fails:
            raise self.fails[0]
        self.engine.prefill(part, features, should_stop)
        self.prefilled += len(part)


class Ahead:
    """A pipeline, its engine and its reports."""

    def __init__(self, spec, settings=DEFAULTS):
        engines = []

        def load():
            loaded = load_model(spec)
            engines.append(Gated(loaded.engine))
            return replace(loaded, engine=engines[0])

        self.reports = []
        self.pipeline = VlmPipeline.start(load, settings)
        self.pipeline.listen_ahead(self.reports.append)
        self.engine = engines[0]
        self.engine.encodes = self.engine.prefilled = 0
        self.engine.begun.clear()

    @property
    def report(self):
        return self.reports[-1]

    def want(self, *frames, **more):
        more.setdefault('shown_as', WINDOW)
        self.pipeline.want_prefix(Prefix(frames, **more))
        self.names = tuple((frame.source.camera, frame.stamp_ns) for frame in frames)

    def is_ready(self):
        ready = self.reports and tuple((key.camera, key.stamp_ns) for key in self.report.ready)
        return ready == self.names and not self.report.problem

    def ready(self, *frames, **more):
        """Want a prefix, and wait until it is there."""
        self.reports.clear()
        self.want(*frames, **more)
        until(self.is_ready)

    def ask(self, text, *frames, **more):
        more.setdefault('shown_as', WINDOW if frames else None)
        question = Question(text, frames=frames, sampling=GREEDY, **more)
        answer = self.pipeline.ask(question).answer(60)
        assert answer.success, answer.message
        return answer


def until(condition):
    patience = Patience(20)
    while not condition():
        assert not patience.is_over()
        patience.look()


@pytest.fixture(params=['scripted', 'tiny_spec', 'smolvlm_spec', 'tiny_qwen_spec'])
def spec(request, scripted):
    name = request.param
    return scripted(**SCRIPT) if name == 'scripted' else request.getfixturevalue(name)


@pytest.fixture
def opened(spec):
    """Open pipelines: `opened()`, `opened(settings)`."""
    all_of_them = []

    def make(settings=DEFAULTS):
        all_of_them.append(Ahead(spec, settings))
        return all_of_them[-1]

    yield make
    for each in all_of_them:
        each.engine.gate.set()
        each.pipeline.close()


def picture(frame, seed, camera='camera'):
    """Make a frame of noise, white from the top as far as its seed says."""
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3))
    pixels[: 4 * (seed % 10)] = 255
    return frame(pixels, side=40, stamp_ns=seed + 1, received_ns=seed + 1, camera=camera)


def tokens_of(answer):
    timings = answer.timings
    return timings.prompt_tokens, timings.cached_prompt_tokens


def test_a_question_pays_for_its_words_and_gets_the_cold_answer(opened, frame):
    one, two = picture(frame, 1), picture(frame, 2)
    cold = opened().ask('What is it?', one, two)
    assert cold.readiness is Readiness.NONE
    ahead = opened()
    ahead.ready(one, two)
    spent = ahead.engine.prefilled
    assert ahead.report.tokens == spent
    ready = ahead.ask('What is it?', one, two)
    assert ready.readiness is Readiness.PREFIX
    assert ready.text == cold.text
    assert ready.timings.encode_s == ready.timings.prepare_s == 0.0
    prompt, cached = tokens_of(ready)
    assert cached == spent
    assert ahead.engine.prefilled == prompt
    assert prompt == cold.timings.prompt_tokens


def test_after_a_question_the_prefix_is_there_for_the_next_one(opened, frame):
    ahead = opened()
    one, other = picture(frame, 1), picture(frame, 7)
    ahead.ready(one)
    first = ahead.ask('What is it?', one)
    until(ahead.is_ready)
    second = ahead.ask('And now?', one)
    assert second.readiness is Readiness.PREFIX
    assert second.timings.cached_prompt_tokens == first.timings.cached_prompt_tokens > 0
    # A question about something else has the cache; then the wish is made true again.
    assert ahead.ask('What is it?', other).readiness is Readiness.NONE
    spent = ahead.engine.encodes
    until(lambda: ahead.ask('What is it?', one).readiness is Readiness.PREFIX)
    assert ahead.ask('What is it?', one).text == first.text
    assert ahead.engine.encodes == spent, 'its features were kept'


def test_a_window_grows_frame_by_frame_and_starts_over(opened, frame):
    ahead = opened()
    frames = [picture(frame, seed) for seed in range(6)]
    ahead.ready(*frames[:1])
    before, encodes = ahead.engine.prefilled, ahead.engine.encodes
    for number in range(2, 5):
        ahead.ready(*frames[:number])
        grown = ahead.engine.prefilled - before
        before = ahead.engine.prefilled
        assert 0 < grown < ahead.report.tokens * 2 / number, 'only the new frame was appended'
    assert ahead.engine.encodes - encodes == 3
    assert ahead.report.restarts == 0
    ahead.ready(*frames[3:5])
    assert ahead.report.restarts == 1
    window = frames[3:5]
    assert ahead.ask('What?', *window).text == opened().ask('What?', *window).text


def test_a_question_goes_on_from_a_clip_of_qwen2_vl_by_pairs_of_frames(tiny_qwen_spec, frame):
    """All but the token that closes the video is kept; half a pair starts again where it began."""
    film = {'shown_as': ShownAs.VIDEO}
    pair = 64
    cold, ahead = Ahead(tiny_qwen_spec), Ahead(tiny_qwen_spec)
    try:
        for number, (made, asked, lost) in enumerate([(4, 4, 0), (4, 6, 1), (3, 4, pair + 1)]):
            frames = [picture(frame, 10 * number + seed) for seed in range(asked)]
            ahead.ready(*frames[:made], **film)
            held = ahead.report.tokens
            warm = ahead.ask('What is it?', *frames[:asked], **film)
            assert warm.text == cold.ask('What is it?', *frames[:asked], **film).text
            assert warm.timings.cached_prompt_tokens == held - lost
            assert warm.readiness is (Readiness.APPENDED if lost else Readiness.PREFIX)
    finally:
        cold.pipeline.close()
        ahead.pipeline.close()


def test_a_fresh_frame_is_appended_at_the_question(opened, frame):
    ahead = opened()
    frames = [picture(frame, seed) for seed in range(3)]
    ahead.ready(*frames[:2])
    spent = ahead.engine.prefilled
    answer = ahead.ask('What is it?', *frames)
    assert answer.readiness is Readiness.APPENDED
    assert answer.timings.cached_prompt_tokens == spent
    assert answer.text == opened().ask('What is it?', *frames).text


def test_a_conversation_goes_on_from_what_was_made_ahead(opened, frame):
    one, two = picture(frame, 1), picture(frame, 2)
    cold, ahead = opened(), opened()
    told = []
    for each in (cold, ahead):
        each.ask('What is it?', one, session_id='s')
        if each is ahead:
            each.ready(two, session_id='s')
        told.append(each.ask('And now?', two, session_id='s'))
    assert told[1].readiness is Readiness.PREFIX
    assert told[1].text == told[0].text
    assert told[0].readiness is Readiness.APPENDED, 'the conversation was there, the frame was not'
    # A wish leaves no trace in a conversation.
    ahead.ready(one, session_id='never', is_urgent=True)
    assert ahead.pipeline.reset_session('never') == 0


def test_a_live_conversation_keeps_the_cache(opened, frame):
    one, two = picture(frame, 1), picture(frame, 2)
    ahead = opened(ServingSettings(live_s=3600.0))
    ahead.ask('What is it?', one, session_id='s')
    ahead.want(two)
    until(lambda: ahead.report.encodes == 1)
    second = ahead.ask('And now?', session_id='s')
    assert second.timings.cached_prompt_tokens > 0
    assert second.readiness is Readiness.APPENDED, 'the turn was added to what was there'
    assert ahead.report.pieces == 0
    # Somebody is about to ask about it: that goes before.
    ahead.ready(two, is_urgent=True)


def test_a_question_waits_for_the_piece_under_way_only(opened, frame):
    ahead = opened()
    frames = [picture(frame, seed) for seed in range(4)]
    ahead.engine.gate.clear()
    ahead.want(*frames)
    assert ahead.engine.begun.wait(20)
    done = []
    question = Question('Hello', sampling=GREEDY)
    stream = ahead.pipeline.ask(question, lambda chunk: done.append(len(ahead.reports)))
    ahead.engine.gate.set()
    assert stream.answer(60).success
    until(ahead.is_ready)
    assert ahead.ask('What?', *frames).readiness is Readiness.PREFIX


def test_the_newest_wish_counts_and_none_ends_it(opened, frame):
    ahead = opened()
    frames = [picture(frame, seed) for seed in range(8)]
    for seed in range(7):
        ahead.want(frames[seed])
    ahead.ready(frames[7])
    assert ahead.ask('What?', frames[7]).readiness is Readiness.PREFIX
    ahead.pipeline.want_prefix(None)
    until(lambda: ahead.report.wanted == ())
    ahead.ask('What?', frames[0])
    spent = ahead.engine.prefilled
    time.sleep(0.05)  # Nothing is expected to happen.
    assert ahead.engine.prefilled == spent
    ahead.pipeline.close()
    with pytest.raises(NotReadyError):
        ahead.pipeline.want_prefix(Prefix((frames[0],)))


def test_five_alternating_pictures_are_each_answered_and_reused_as_expected(opened, frame):
    """One question, pictures A B A C B: what is cached is A's, B's or C's, never another's."""
    plain, ahead = opened(), opened()
    a, b, c = (picture(frame, seed) for seed in (1, 4, 8))
    for shown in (a, b, a, c, b):
        cold = plain.ask('What is it?', shown)
        ahead.ready(shown)
        warm = ahead.ask('What is it?', shown)
        assert warm.text == cold.text
        assert warm.readiness is Readiness.PREFIX
        prompt, cached = tokens_of(warm)
        assert 0 < prompt - cached < prompt


def test_frames_that_differ_in_one_block_are_two(opened, frame):
    pixels = np.full((40, 40, 3), 90)
    one = frame(pixels, side=40, stamp_ns=1, received_ns=1)
    pixels[:8, :8] = 250
    two = frame(pixels, side=40, stamp_ns=1, received_ns=2)
    ahead = opened()
    ahead.ready(one)
    answer = ahead.ask('What is it?', two)
    assert answer.readiness is not Readiness.PREFIX
    assert answer.text == opened().ask('What is it?', two).text


def test_a_fault_ends_no_question_and_is_told(opened, frame):
    one, two = picture(frame, 1), picture(frame, 2)
    ahead = opened()
    ahead.engine.fails = (RuntimeError('the chip is tired'),)
    ahead.want(one)
    until(lambda: ahead.reports and ahead.report.failures == 1)
    assert 'the chip is tired' in ahead.report.problem
    assert ahead.report.ready == ()
    ahead.engine.fails = ()
    assert ahead.ask('What is it?', one).text == opened().ask('What is it?', one).text
    ahead.ready(two)
    assert ahead.report.failures == 1


def test_a_frame_that_cannot_be_decoded_is_named(opened, frame):
    good = picture(frame, 1)
    bad = replace(good, image=replace(good.image, step=1), stamp_ns=9, received_ns=9)
    ahead = opened()
    ahead.want(good, bad)
    until(lambda: ahead.reports and ahead.report.problem)
    assert [each.stamp_ns for each in ahead.report.bad_frames] == [9]


def test_a_window_that_leaves_no_room_says_how_many_frames_would(opened, frame):
    ahead = opened()
    frames = [picture(frame, seed) for seed in range(60)]
    ahead.want(*frames)
    until(lambda: ahead.reports and ahead.report.problem)
    assert 0 < ahead.report.fits < len(frames)
    ahead.ready(*frames[-ahead.report.fits :])


def test_work_ahead_takes_its_share_only(opened, frame):
    """At a duty of 1/20 a chip that is busy for t rests for 19 t."""
    ahead = opened(ServingSettings(ahead_duty=0.05))
    started = time.monotonic()
    ahead.ready(*(picture(frame, seed) for seed in range(3)))
    elapsed_s = time.monotonic() - started
    # The rest after the last piece is not waited for.
    pieces = ahead.report.encodes + ahead.report.pieces
    assert ahead.report.busy_s < elapsed_s
    assert pieces > 1


@pytest.mark.parametrize('seed', range(4))
def test_whatever_is_wanted_and_asked_in_between_answers_are_the_cold_ones(opened, frame, seed):
    """Windows that grow and start over, two cameras, conversations, cancels: tokens are equal."""
    rng = random.Random(seed)
    cold, ahead = opened(), opened()
    frames = [picture(frame, n, camera='ab'[n % 2]) for n in range(8)]
    for turn in range(8):
        start = rng.randrange(6)
        window = frames[start : start + rng.randrange(1, 4)]
        session = rng.choice(['', '', 's'])
        if rng.random() < 0.8:
            ahead.want(*window, session_id=session)
        if rng.random() < 0.3:
            ahead.pipeline.cancel(
                ahead.pipeline.ask(
                    Question('Hello', f'c{turn}', frames=tuple(window), shown_as=WINDOW)
                ).request_id
            )
        if rng.random() < 0.5:
            time.sleep(rng.random() / 50)
        text = rng.choice(['What is it?', 'Is it red?', 'Hello'])
        shown = window if rng.random() < 0.8 else window[:1]
        answers = [each.ask(text, *shown, session_id=session) for each in (cold, ahead)]
        assert answers[0].text == answers[1].text, turn
        assert answers[0].timings.prompt_tokens == answers[1].timings.prompt_tokens


def test_the_same_frames_under_another_system_text_are_another_prompt(opened, frame):
    one, two = picture(frame, 1), picture(frame, 2)
    cold, ahead = opened(), opened()
    ahead.ready(one, two, system_prompt='Be brief.')
    for system in ('Be very brief.', 'Be brief.', '', 'Be brief.'):
        told = [each.ask('What?', one, two, system_prompt=system) for each in (cold, ahead)]
        assert told[0].text == told[1].text
        assert told[0].timings.prompt_tokens == told[1].timings.prompt_tokens
    with_one = [each.ask('What?', one, system_prompt='Be brief.') for each in (cold, ahead)]
    assert with_one[0].timings.prompt_tokens == with_one[1].timings.prompt_tokens


def test_a_second_cache_that_is_not_to_be_had_costs_nothing_but_itself(opened, frame):
    """The memory for it ends, or its rows are lost on the way: one cache is used from then on."""
    ahead = opened()
    assert ahead.pipeline.info.limits.kv_slots > 1
    select, refused = ahead.engine.engine.select_kv, []

    def no_second(slot):
        if slot:
            refused.append(slot)
            raise DeviceError('no memory for the rows of another cache')
        select(slot)

    ahead.engine.select_kv = no_second
    frames = [picture(frame, seed) for seed in range(3)]
    ahead.ready(*frames[:2])
    ahead.ready(frames[2])  # A new start, which goes into the other cache where there is one.
    cold = opened()
    for shown in (frames[2:], frames[:2], frames):
        assert ahead.ask('What?', *shown).text == cold.ask('What?', *shown).text
    assert refused == [1], 'asked for once'


def test_a_conversation_whose_frames_were_given_up_is_made_ready_all_the_same(opened, frame):
    """Its rows in the KV cache are another's by now, and there is room for two features only."""
    settings = replace(DEFAULTS, max_cached_frames=2, live_s=0.0)
    cold, ahead = opened(settings), opened(settings)
    frames = [picture(frame, seed) for seed in range(6)]
    told = []
    for each in (cold, ahead):
        each.ask('What?', frames[0], session_id='chat')
        for other in frames[1:5]:
            each.ask('What?', other)
        if each is ahead:
            each.ready(frames[5], session_id='chat')
        told.append(each.ask('And now?', frames[5], session_id='chat'))
    assert told[1].readiness is Readiness.PREFIX
    assert told[1].text == told[0].text
    assert ahead.report.failures == 0
