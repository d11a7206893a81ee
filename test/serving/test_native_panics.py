"""What native code raises ends one question, also where no `except Exception` catches it."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from edge_vlm_ros.core import EdgeVlmError, ErrorCode, Question
from edge_vlm_ros.serving import ModelSpec, VlmPipeline
from edge_vlm_ros.serving.loading import LoadedModel, load_model

HERE = Path(__file__).parent
CAFE = 'Is the café open?'


class PanicError(BaseException):
    """As pyo3 raises for a panic in Rust."""


KINDS = [PanicError('index out of bounds'), KeyboardInterrupt(), GeneratorExit(), SystemExit(3)]


@pytest.fixture
def panicking(tmp_path):
    """A copy of the scripted model whose tokenizer panics at some words."""
    folder = tmp_path / 'model'
    shutil.copytree(str(files('edge_vlm_ros.engines.scripted') / 'model'), folder)
    shutil.copy(HERE / 'fixtures' / 'panic_tokenizer.json', folder / 'tokenizer.json')
    return ModelSpec('scripted', str(folder / 'script.yaml'))


def test_a_panic_in_the_tokenizer_ends_one_question(panicking):
    with VlmPipeline.open(panicking) as pipeline:
        before = pipeline.ask(Question('Is the door open?')).answer(60).text
        answer = pipeline.ask(Question(CAFE)).answer(60)
        assert answer.error_code is ErrorCode.INTERNAL
        assert 'PanicException' in answer.message
        assert answer.text == ''
        assert pipeline.ask(Question('Is the door open?')).answer(60).text == before


def test_a_panic_does_not_end_the_model_process(ask_process, panicking):
    asker = ask_process(spec=panicking).ready()
    answer = asker.answer(asker.ask(CAFE, 'a'))
    assert answer.error_code is ErrorCode.INTERNAL
    assert asker.answer(asker.ask('Is the door open?', 'b')).success
    assert asker.process.state.restarts == 0


class Breaking:
    """An engine or a family that raises at a word, in one of its functions."""

    def __init__(self, inner, function, error):
        self.inner, self.function, self.error = inner, function, error
        self.is_broken = False

    def __getattr__(self, name):
        found = getattr(self.inner, name)
        if name != self.function:
            return found

        def call(*args, **more):
            if self.is_broken:
                self.is_broken = False
                raise self.error
            return found(*args, **more)

        return call


@pytest.mark.parametrize('error', KINDS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ('part', 'function'),
    [
        ('family', 'preprocess'),
        ('family', 'render_suffix'),
        ('engine', 'encode'),
        ('engine', 'plan_prefill'),
        ('engine', 'prefill'),
        ('engine', 'next_token'),
        ('engine', 'decode'),
    ],
)
def test_whatever_a_stage_raises_ends_one_question(frame, part, function, error):
    made = []

    def load():
        loaded = load_model(ModelSpec('scripted'))
        parts = {'engine': loaded.engine, 'family': loaded.family}
        made.append(Breaking(parts[part], function, error))
        parts[part] = made[0]
        return LoadedModel(parts['engine'], parts['family'], 'm', 'scripted', loaded.family_name)

    with VlmPipeline.start(load) as pipeline:
        good = pipeline.ask(Question('Well?', frames=(frame(1),))).answer(60).text
        made[0].is_broken = True
        answer = pipeline.ask(Question('Well?', frames=(frame(2, stamp_ns=2),))).answer(60)
        assert answer.error_code is ErrorCode.INTERNAL
        assert answer.message
        after = pipeline.ask(Question('Well?', frames=(frame(1),))).answer(60)
        assert after.text == good


@pytest.mark.parametrize('error', KINDS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize('function', ['encode', 'close'])
def test_whatever_loading_and_closing_raise_is_an_error_and_no_hang(function, error):
    def load():
        loaded = load_model(ModelSpec('scripted'))
        engine = Breaking(loaded.engine, function, error)
        engine.is_broken = True
        return LoadedModel(engine, loaded.family, 'm', 'scripted', loaded.family_name)

    if function == 'close':
        pipeline = VlmPipeline.start(load)
        assert pipeline.ask(Question('Well?')).answer(60).success
        pipeline.close()
        return
    with pytest.raises(EdgeVlmError) as raised:
        VlmPipeline.start(load)
    assert raised.value.code is ErrorCode.INTERNAL
