"""Frames offered ahead of the question: it encodes nothing, and its answer is the cold one."""

from __future__ import annotations

import logging
import random
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from edge_vlm_ros.core import (
    ErrorCode,
    NotReadyError,
    Priority,
    Question,
    SamplingOptions,
    ShownAs,
    StoredFrame,
)
from edge_vlm_ros.engines import never
from edge_vlm_ros.serving import ServingSettings, VlmPipeline
from edge_vlm_ros.serving.loading import load_model

GREEDY = SamplingOptions(max_tokens=24)
DEFAULTS = ServingSettings()
SCRIPT = {'answers': [{'question': 'Hello', 'answer': 'Hello.'}, {'answer': '{means} {question}'}]}


class Watched:
    """An engine that writes down what it does, and halts in `encode` while its gate is shut."""

    def __init__(self, engine):
        self.engine = engine
        self.calls = []
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def encode(self, inputs):
        self.calls.append('encode')
        self.begun.set()
        assert self.gate.wait(20)
        return self.engine.encode(inputs)

    def prefill(self, part, features, should_stop=never):
        self.calls.append('prefill')
        self.engine.prefill(part, features, should_stop)

    def close(self):
        self.calls.append('close')
        self.engine.close()

    def shut_gate(self):
        self.gate.clear()
        self.begun.clear()

    @property
    def encoded(self):
        return self.calls.count('encode')


@pytest.fixture
def watched():
    """Open a pipeline on a watched engine: `pipeline, engine = watched(spec)`."""
    opened = []

    def make(spec, settings=DEFAULTS, family=None):
        engines = []

        def load():
            loaded = load_model(spec)
            engines.append(Watched(loaded.engine))
            wrapped = family(loaded.family) if family else loaded.family
            return replace(loaded, engine=engines[0], family=wrapped)

        opened.append(VlmPipeline.start(load, settings))
        engines[0].calls.clear()
        engines[0].begun.clear()
        return opened[-1], engines[0]

    yield make
    for pipeline in opened:
        pipeline.close()


@pytest.fixture(params=['scripted', 'cpu'])
def spec(request, scripted):
    return (
        scripted(**SCRIPT) if request.param == 'scripted' else request.getfixturevalue('tiny_spec')
    )


def wait_until(condition, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, 'nothing happened'
        time.sleep(0.002)


def ask(pipeline, text, *frames, **more):
    question = Question(text, frames=frames, sampling=GREEDY, **more)
    answer = pipeline.ask(question).answer(60)
    assert answer.success, answer.message
    return answer


def picture(frame, seed, **more):
    """Make a frame of noise, white from the top as far as its seed says."""
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3))
    pixels[: 4 * (seed % 10)] = 255
    return frame(pixels, side=40, stamp_ns=seed + 1, received_ns=seed + 1, **more)


def kept(pipeline):
    """What is held for frames: prepared, encoded, offered."""
    worker = pipeline._worker
    store = worker._steps._store
    return len(store._prepared), len(store._kept), len(worker._ahead.offered)


def test_an_offered_frame_is_encoded_ahead_and_its_answer_is_the_cold_one(watched, spec, frame):
    shown = picture(frame, 1)
    cold_pipeline, _ = watched(spec)
    cold = ask(cold_pipeline, 'What is it?', shown)
    pipeline, engine = watched(spec)
    pipeline.offer_frames([shown])
    wait_until(lambda: engine.encoded == 1)
    ready = ask(pipeline, 'What is it?', shown)
    assert engine.encoded == 1
    assert ready.timings.encode_s == ready.timings.prepare_s == 0.0
    assert ready.text == cold.text
    assert [replace(ref, age_s=0) for ref in ready.frames] == [
        replace(ref, age_s=0) for ref in cold.frames
    ]
    for name in ('prompt_tokens', 'vision_tokens', 'answer_tokens', 'cached_prompt_tokens'):
        assert getattr(ready.timings, name) == getattr(cold.timings, name)
    assert cold.timings.encode_s > 0


def test_a_group_and_a_single_frame_are_made_ahead_each_in_its_way(watched, spec, frame):
    one, two = (picture(frame, seed) for seed in (1, 2))
    pipeline, engine = watched(spec)
    pipeline.offer_frames([one], ShownAs.AMONG_OTHERS)
    wait_until(lambda: engine.encoded == 1)
    pipeline.offer_frames([two], ShownAs.AMONG_OTHERS)
    wait_until(lambda: engine.encoded == 2)
    assert ask(pipeline, 'What are they?', one, two).timings.encode_s == 0
    assert ask(pipeline, 'What is it?', one, shown_as=ShownAs.AMONG_OTHERS).timings.encode_s == 0
    assert engine.encoded == 2
    assert ask(pipeline, 'What is it?', one).timings.encode_s > 0, 'shown alone it is another'


def test_all_frames_of_one_offer_are_made_ahead(watched, spec, frame):
    frames = [picture(frame, seed) for seed in range(3)]
    pipeline, engine = watched(spec)
    pipeline.offer_frames(frames)
    wait_until(lambda: engine.encoded == 3)
    assert ask(pipeline, 'What are they?', *frames).timings.encode_s == 0
    assert engine.encoded == 3


def test_a_question_waits_for_the_item_under_way_and_no_longer(watched, scripted, frame):
    pipeline, engine = watched(scripted(**SCRIPT))
    engine.shut_gate()
    pipeline.offer_frames([picture(frame, seed, camera=f'c{seed}') for seed in range(3)])
    assert engine.begun.wait(20)
    stream = pipeline.ask(Question('Hello'))
    engine.gate.set()
    assert stream.answer(20).text == 'Hello.'
    wait_until(lambda: engine.encoded == 3)
    assert engine.calls == ['encode', 'prefill', 'encode', 'encode']


def test_a_question_about_a_frame_that_is_just_being_encoded_takes_it_over(watched, spec, frame):
    shown = picture(frame, 1)
    pipeline, engine = watched(spec)
    engine.shut_gate()
    pipeline.offer_frames([shown])
    assert engine.begun.wait(20)
    stream = pipeline.ask(Question('What is it?', frames=(shown,), sampling=GREEDY))
    engine.gate.set()
    answer = stream.answer(60)
    assert answer.success
    assert answer.timings.encode_s == 0
    assert engine.encoded == 1


def test_of_frames_that_come_faster_than_the_chip_the_newest_of_each_camera_counts(
    watched, scripted, frame
):
    pipeline, engine = watched(scripted(**SCRIPT))
    engine.shut_gate()
    frames = [
        [picture(frame, seed, camera=camera) for seed in range(n, n + 20)]
        for camera, n in (('front', 100), ('rear', 200))
    ]
    pipeline.offer_frames([frames[0][0]])
    assert engine.begun.wait(20)
    for pair in zip(*frames, strict=True):
        for each in pair:
            pipeline.offer_frames([each])
    assert kept(pipeline)[2] == 3, 'the one under way and the newest of each'
    engine.gate.set()
    wait_until(lambda: engine.encoded == 3)
    for newest in (frames[0][-1], frames[1][-1]):
        assert ask(pipeline, 'What is it?', newest).timings.encode_s == 0
    assert kept(pipeline) == (0, 3, 0)


def test_features_made_ahead_keep_the_bounds(watched, spec, frame):
    pipeline, engine = watched(spec, ServingSettings(max_cached_frames=2))
    frames = [picture(frame, seed) for seed in range(6)]
    for number, each in enumerate(frames, 1):
        pipeline.offer_frames([each])
        wait_until(lambda number=number: engine.encoded == number)
    assert ask(pipeline, 'What is it?', frames[-1]).timings.encode_s == 0
    assert kept(pipeline) == (0, 2, 0)
    assert ask(pipeline, 'What is it?', frames[0]).timings.encode_s > 0


def test_where_nothing_may_be_kept_nothing_is_made_ahead(watched, scripted, frame):
    pipeline, engine = watched(scripted(**SCRIPT), ServingSettings(max_cached_frames=0))
    pipeline.offer_frames([picture(frame, 1)])
    assert ask(pipeline, 'Hello').text == 'Hello.'
    assert engine.encoded == 0
    assert kept(pipeline) == (0, 0, 0)


def test_a_chip_that_fails_ahead_costs_the_offer_and_nothing_else(scripted, frame, caplog):
    # Two runs to warm up come first.
    fault = {'at': 'encode', 'after': 2, 'times': 1, 'message': 'no light'}
    shown = picture(frame, 1)
    with VlmPipeline.open(scripted(faults=[fault], **SCRIPT)) as pipeline:
        earlier = ask(pipeline, 'Hello')
        pipeline.offer_frames([shown])
        wait_until(lambda: caplog.records)
        wait_until(lambda: kept(pipeline)[2] == 0)
        answer = ask(pipeline, 'What is it?', shown)
        assert answer.timings.encode_s > 0
        assert ask(pipeline, 'Hello').text == earlier.text
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert 'no light' in record.message


def test_a_frame_that_cannot_be_decoded_is_logged_and_left_alone(scripted, frame, caplog):
    good = picture(frame, 1)
    bad = replace(good, image=replace(good.image, data=b'short'))
    with VlmPipeline.open(scripted(**SCRIPT)) as pipeline:
        pipeline.offer_frames([bad])
        wait_until(lambda: caplog.records)
        refused = pipeline.ask(Question('What is it?', frames=(bad,))).answer(20)
        assert refused.error_code is ErrorCode.BAD_IMAGE
        assert kept(pipeline) == (0, 0, 0)
        other = replace(good, received_ns=99)
        assert ask(pipeline, 'What is it?', other).success
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


class Breaking:
    """A family whose preprocessing breaks in a way that nobody expected."""

    def __init__(self, family):
        self.family = family

    def __getattr__(self, name):
        return getattr(self.family, name)

    def preprocess(self, decoded, shown_as=ShownAs.ALONE):
        if decoded.source.camera == 'bug':
            raise ZeroDivisionError('by nothing')
        if decoded.source.camera == 'exit':
            raise SystemExit(3)
        return self.family.preprocess(decoded, shown_as)

    def preprocess_one_of(self, decoded, images):
        return self.preprocess(decoded, ShownAs.AMONG_OTHERS)


def test_what_nobody_expected_ahead_is_no_end(watched, scripted, frame, caplog):
    pipeline, engine = watched(scripted(**SCRIPT), family=Breaking)
    pipeline.offer_frames([picture(frame, 1, camera=camera) for camera in ('bug', 'exit', 'fine')])
    wait_until(lambda: engine.encoded == 1)
    assert ask(pipeline, 'Hello').text == 'Hello.'
    words = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert words == [ZeroDivisionError, SystemExit]
    assert kept(pipeline) == (0, 1, 0)


def test_a_cancel_is_answered_at_once_while_work_ahead_runs_and_the_work_goes_on(
    watched, spec, frame
):
    shown, other = picture(frame, 1), picture(frame, 2, camera='rear')
    pipeline, engine = watched(spec)
    engine.shut_gate()
    pipeline.offer_frames([shown, other])
    assert engine.begun.wait(20)
    stream = pipeline.ask(Question('What is it?', frames=(shown,)))
    assert stream.cancel()
    assert stream.answer(0).error_code is ErrorCode.CANCELLED
    assert pipeline.cancel() == 0, "work ahead is nobody's question"
    engine.gate.set()
    wait_until(lambda: engine.encoded == 2)
    assert ask(pipeline, 'What are they?', shown, other).timings.encode_s == 0
    assert engine.encoded == 2


def test_to_close_waits_for_the_item_under_way_and_begins_no_other(watched, scripted, frame):
    pipeline, engine = watched(scripted(**SCRIPT))
    engine.shut_gate()
    pipeline.offer_frames([picture(frame, seed, camera=f'c{seed}') for seed in range(3)])
    assert engine.begun.wait(20)
    closing = threading.Thread(target=pipeline.close)
    closing.start()
    wait_until(lambda: pipeline._worker._is_stopping)
    with pytest.raises(NotReadyError):
        pipeline.offer_frames([picture(frame, 9)])
    engine.gate.set()
    closing.join(20)
    assert engine.calls == ['encode', 'close']


def test_an_urgent_question_overtakes_those_that_wait(watched, scripted, frame):
    pipeline, engine = watched(scripted(**SCRIPT))
    engine.shut_gate()
    finals = []

    def ask_for(name, **more):
        return pipeline.ask(
            Question(name, name, **more),
            lambda chunk: finals.append(chunk.request_id) if chunk.done else None,
        )

    streams = [ask_for('running', frames=(picture(frame, 1),))]
    assert engine.begun.wait(20)
    streams += [
        ask_for('statistics', priority=Priority.BACKGROUND),
        ask_for('first'),
        ask_for('second'),
        ask_for('stop!', priority=Priority.URGENT),
    ]
    engine.gate.set()
    assert all(stream.answer(20).success for stream in streams)
    assert finals == ['running', 'stop!', 'first', 'second', 'statistics']


@pytest.mark.parametrize('is_offered', [False, True], ids=['cold', 'offered'])
@pytest.mark.parametrize('received_ns', [0, 7], ids=['told by bytes', 'told by arrival'])
def test_five_alternating_pictures_under_one_question_and_stamp(
    watched, spec, frame, received_ns, is_offered
):
    pipeline, engine = watched(spec)
    pictures = [
        replace(picture(frame, seed), stamp_ns=1, received_ns=received_ns and received_ns + seed)
        for seed in (1, 2)
    ]
    cold, full = [], []
    for shown in pictures:
        ask(pipeline, 'zzz')
        cold.append(ask(pipeline, 'What is it?', shown))
        full.append(ask(pipeline, 'What is it?', shown))
    before = engine.encoded
    ask(pipeline, 'zzz')
    answers = []
    for number in range(5):
        if is_offered:
            pipeline.offer_frames([pictures[number % 2]])
        answers.append(ask(pipeline, 'What is it?', pictures[number % 2]))
    assert cold[0].text != cold[1].text
    assert [answer.text for answer in answers] == [cold[n % 2].text for n in range(5)]
    reused = [answer.timings.cached_prompt_tokens for answer in answers]
    opening = cold[0].timings.cached_prompt_tokens
    assert len(set(reused[1:])) == 1, 'what stands before the picture, and no more'
    assert opening <= reused[1] < cold[0].timings.prompt_tokens - cold[0].timings.vision_tokens
    assert full[0].timings.cached_prompt_tokens == full[0].timings.prompt_tokens - 1
    assert engine.encoded == before, 'both are kept'


def test_two_pictures_that_differ_in_one_block_only_are_two(watched, spec, frame):
    pixels = np.random.default_rng(3).integers(0, 256, (56, 56, 3))
    changed = pixels.copy()
    changed[:8, :8] = 255 - changed[:8, :8]
    pipeline, engine = watched(spec)
    one, other = (frame(each, side=56) for each in (pixels, changed))
    pipeline.offer_frames([one])
    wait_until(lambda: engine.encoded == 1)
    assert ask(pipeline, 'What is it?', one).timings.encode_s == 0
    assert ask(pipeline, 'What is it?', other).timings.encode_s > 0


def test_a_clip_of_a_family_that_films_is_made_ahead(watched, scripted, frame):
    class Filming(Breaking):
        frames_per_input = 2

        def preprocess_clip(self, frames):
            return self.family.preprocess(frames[0], ShownAs.AMONG_OTHERS)

    frames = [picture(frame, seed) for seed in range(5)]
    pipeline, engine = watched(scripted(**SCRIPT), family=Filming)
    pipeline.offer_frames(frames)
    wait_until(lambda: engine.encoded == 3)
    assert ask(pipeline, 'What happens?', *frames).timings.encode_s == 0
    assert engine.encoded == 3
    images = ask(pipeline, 'What are they?', *frames[:2], shown_as=ShownAs.AMONG_OTHERS)
    assert engine.encoded == 5, 'as images they are others than as a video'
    assert images.timings.encode_s > 0


def test_questions_are_right_while_cameras_offer_without_pause(watched, spec, frame):
    pipeline, _ = watched(spec, ServingSettings(max_cached_frames=3))
    frames = [picture(frame, seed, camera=f'c{seed % 3}') for seed in range(9)]
    expected = [ask(pipeline, 'What is it?', each).text for each in frames]
    assert len(set(expected)) >= 5, 'a wrong picture would show'
    is_over = threading.Event()
    draw = random.Random(5)

    def film():
        number = 0
        while not is_over.is_set():
            pipeline.offer_frames([frames[number % 9]])
            number += 1
            time.sleep(0.001)

    camera = threading.Thread(target=film)
    camera.start()
    finals = []
    try:
        for number in range(60):
            which = draw.randrange(9)
            stream = pipeline.ask(
                Question('What is it?', f'{number}', frames=(frames[which],), sampling=GREEDY),
                lambda chunk: finals.append(chunk.request_id) if chunk.done else None,
            )
            if draw.random() < 0.3:
                stream.cancel()
            answer = stream.answer(60)
            assert answer.error_code in {ErrorCode.NONE, ErrorCode.CANCELLED}
            if answer.success:
                assert answer.text == expected[which]
    finally:
        is_over.set()
        camera.join(20)
    assert finals == [f'{number}' for number in range(60)]
    ask(pipeline, 'zzz')
    wait_until(lambda: kept(pipeline) in {(0, count, 0) for count in range(4)})


def test_offered_frames_are_let_go_once_their_work_is_done(watched, scripted, frame):
    import gc
    import weakref

    pipeline, engine = watched(scripted(**SCRIPT))
    data = np.zeros(8 * 8 * 3, np.uint8)
    alive = weakref.ref(data)
    stored = frame(1, received_ns=5)
    stored = StoredFrame(stored.source, 1, replace(stored.image, data=data), 5)
    pipeline.offer_frames([stored])
    wait_until(lambda: engine.encoded == 1)
    del data, stored
    ask(pipeline, 'Hello')
    gc.collect()
    assert alive() is None, "the features are kept, the camera's bytes are not"
