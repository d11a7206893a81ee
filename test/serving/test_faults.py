"""An engine that fails: its question ends with its own words, the next one is answered."""

from __future__ import annotations

import sys

import pytest

from edge_vlm_ros.core import ErrorCode, FinishReason, Question, ShownAs, StoredFrame
from edge_vlm_ros.serving import ModelSpec, VlmPipeline
from edge_vlm_ros.serving.loading import LoadedModel, load_model


@pytest.mark.parametrize('stage', ['prefill', 'next_token', 'decode'])
def test_a_failing_stage_ends_its_question_with_what_was_said(open_scripted, frame, stage):
    pipeline = open_scripted(
        answers=[{'answer': '{question} {means}'}],
        faults=[{'at': stage, 'question': 'crash', 'times': 1, 'message': 'the chip is on fire'}],
    )
    shown = (frame(99),)
    expected = pipeline.ask(Question('Well?', frames=shown)).answer(10).text
    answer = pipeline.ask(Question('crash', frames=shown)).answer(10)
    assert (answer.finish_reason, answer.error_code) == (FinishReason.ERROR, ErrorCode.DEVICE)
    assert answer.message == 'the chip is on fire'
    assert answer.text == ('c' if stage == 'decode' else '')
    after = pipeline.ask(Question('Well?', frames=shown)).answer(10)
    assert after.text == expected
    assert after.timings.cached_prompt_tokens == 0, 'nobody knows what the cache held'


def test_a_failing_vision_tower_ends_its_question(open_scripted, frame):
    # Two runs to warm up come first.
    fault = {'at': 'encode', 'after': 2, 'times': 1, 'message': 'no light'}
    pipeline = open_scripted(answers=[{'answer': '{means}'}], faults=[fault])
    answer = pipeline.ask(Question('Well?', frames=(frame(),))).answer(10)
    assert (answer.error_code, answer.message) == (ErrorCode.DEVICE, 'no light')
    assert len(answer.frames) == 1
    assert pipeline.ask(Question('Well?', frames=(frame(),))).answer(10).success


def test_an_engine_that_hangs_and_fails_late_can_be_cancelled_meanwhile(open_scripted):
    fault = {'at': 'next_token', 'question': 'hang', 'kind': 'hang', 'seconds': 0.6, 'times': 1}
    pipeline = open_scripted(answers=[{'answer': 'Fine.'}], faults=[fault])
    stream = pipeline.ask(Question('hang'))
    with pytest.raises(TimeoutError):
        stream.answer(0.2)
    assert stream.cancel()
    assert stream.answer(0).error_code is ErrorCode.CANCELLED
    assert pipeline.ask(Question('And now?')).answer(10).text == 'Fine.'


class Broken:
    """A real family whose preprocessing breaks as its owner likes."""

    def __init__(self, family, error):
        self._family = family
        self.error = error

    def __getattr__(self, name):
        return getattr(self._family, name)

    def preprocess(self, decoded, shown_as=ShownAs.ALONE):
        if decoded.source.camera == 'front':
            raise self.error
        return self._family.preprocess(decoded, shown_as)


@pytest.mark.parametrize(
    ('error', 'words'),
    [
        (ZeroDivisionError('by nothing'), 'ZeroDivisionError: by nothing'),
        (SystemExit(3), 'exit(3)'),
    ],
    ids=['bug', 'exit'],
)
def test_what_nobody_expected_is_an_internal_error_and_no_end(frame, error, words):
    def load():
        loaded = load_model(ModelSpec('scripted'))
        family = Broken(loaded.family, error)
        return LoadedModel(loaded.engine, family, 'broken', 'scripted', 'broken')

    with VlmPipeline.start(load) as pipeline:
        answer = pipeline.ask(Question('Well?', frames=(frame(),))).answer(10)
        assert answer.error_code is ErrorCode.INTERNAL
        assert words in answer.message
        assert answer.text == ''
        rear = frame(camera='rear')
        assert pipeline.ask(Question('Well?', frames=(rear,))).answer(10).success


def test_random_faults_and_cancels_end_every_question_exactly_once(open_scripted, frame):
    import random

    draw = random.Random(11)
    pipeline = open_scripted(
        answers=[{'answer': 'abcdef'}],
        latency={'decode_s': 0.001},
        faults=[
            {'at': 'prefill', 'question': 'prefill'},
            {'at': 'decode', 'question': 'decode', 'token': 3},
            {'at': 'next_token', 'question': 'head'},
        ],
    )
    finals = []
    streams = []
    for number in range(150):
        text = draw.choice(['Hello', 'prefill', 'decode', 'head'])
        stored = frame(number, stamp_ns=draw.randrange(4))
        if draw.random() < 0.2:
            stored = StoredFrame(stored.source, 1, stored.image.__class__('rgb8', 9, 9, 27, b''))
        session = draw.choice(['', 'a', 'b'])
        question = Question(text, f'{number}', frames=(stored,), session_id=session)
        streams.append(
            pipeline.ask(question, lambda chunk: finals.append(chunk) if chunk.done else None)
        )
        if draw.random() < 0.3:
            draw.choice(streams).cancel()
        if draw.random() < 0.6:
            streams[-1].answer(10)
    codes = {stream.answer(10).error_code for stream in streams}
    assert sorted(int(chunk.request_id) for chunk in finals) == list(range(150))
    assert {ErrorCode.NONE, ErrorCode.DEVICE, ErrorCode.BAD_IMAGE, ErrorCode.CANCELLED} <= codes
    assert pipeline.ask(Question('Hello')).answer(10).text == 'abcdef'


def test_the_front_door_loads_nothing_heavy():
    import subprocess

    code = (
        'import sys; from edge_vlm_ros.serving import ModelProcess, ModelSpec; '
        'heavy = {"cv2", "tokenizers", "onnxruntime", "yaml", "transformers"} & set(sys.modules); '
        'assert not heavy, heavy'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
