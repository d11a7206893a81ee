"""What every backend promises, with tokens or without, in this process or in one of its own."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
from support import packages
from support.canned_backend import CannedBackend
from support.long_answer import long_words
from support.scripted_server import ScriptedServer, echo

from edge_vlm_ros.core import BadRequestError, ErrorCode, FinishReason, Question
from edge_vlm_ros.engines import open_engine
from edge_vlm_ros.models import find_model
from edge_vlm_ros.serving import (
    EnginePhase,
    ModelProcess,
    ModelSpec,
    VlmPipeline,
    check_spec,
    open_backend,
)
from edge_vlm_ros.serving.process import ProcessSettings

CANNED = ModelSpec('canned', 'words')
ENDLESS = 'a long answer, a very long one'

ROW = """
from edge_vlm_ros.core import Chip, FileForm

CANNED = Chip(
    'canned', 'nobody', FileForm.NO_FILES, '', engine='', default_model='canned',
    backend='support.canned_backend:CannedBackend',
)
"""


@pytest.fixture
def canned_chip(monkeypatch, tmp_path):
    """Install a package with a chip whose row names another backend."""
    points = {packages.CHIPS: {'canned': 'canned_chip:CANNED'}}
    folder = tmp_path / 'site'
    packages.install_package(monkeypatch, folder, 'canned', {'canned_chip.py': ROW}, points)


@pytest.fixture
def canned_process(canned_chip):
    """Start a model process whose backend is the canned one; ended after the test."""
    with contextlib.ExitStack() as stack:

        def start(spec=CANNED, **options):
            process = ModelProcess(spec, **options)
            stack.callback(process.close)
            process.start()
            return process

        yield start


KINDS = ('pipeline', 'canned', 'remote', 'remote before a chip', 'chip for a lost remote')
NOWHERE = 'http://127.0.0.1:9/v1'


@pytest.fixture(params=[*KINDS, *(f'{kind} in a process' for kind in KINDS)])
def backend(request, scripted):
    """Each kind of backend; it answers a question with 'long' in it for minutes."""
    answers = [
        {'question': 'long', 'answer': long_words(400)},
        {'answer': 'A short answer. {question}'},
    ]
    script = scripted(answers=answers, latency={'decode_s': 0.05})
    with contextlib.ExitStack() as stack:
        if request.param == 'canned in a process':
            opened = request.getfixturevalue('canned_process')()
        elif request.param == 'canned':
            opened = CannedBackend.open(CANNED)
        else:
            spec = script
            if 'remote' in request.param:
                server = stack.enter_context(ScriptedServer([echo()]))
                options = {'servers': NOWHERE if 'lost' in request.param else server.url}
                if 'chip' in request.param:
                    options |= {'fallback_chip': script.chip, 'fallback_model': script.model}
                spec = ModelSpec('remote', options=options)
            in_a_process = request.param.endswith('in a process')
            opened = ModelProcess(spec) if in_a_process else open_backend(spec)
            if in_a_process:
                opened.start()
        stack.callback(opened.close)
        yield opened


def begun(stream):
    """Wait for a stream's first chunk."""
    next(iter(stream))
    return stream


def test_an_answer_comes_in_order_with_one_final_chunk_and_names_its_model(backend):
    seen = []
    stream = backend.ask(Question('Well?', session_id='s'), seen.append)
    answer = stream.answer(60)
    assert answer.success, answer.message
    assert list(stream) == seen
    assert [chunk.sequence for chunk in seen] == list(range(len(seen)))
    assert [chunk.done for chunk in seen] == [False] * (len(seen) - 1) + [True]
    assert ''.join(chunk.delta for chunk in seen) == answer.text
    assert 'Well?' in answer.text
    assert (answer.request_id, answer.session_id) == (stream.request_id, 's')
    assert (answer.model, answer.chip) == (backend.info.model, backend.info.chip)
    assert backend.info.model
    backend.reset_session('s')
    assert backend.ask(Question('And now?')).answer(60).success


def test_a_cancel_ends_one_question_and_the_others_go_on(backend):
    stream = begun(backend.ask(Question(ENDLESS, 'a')))
    other = backend.ask(Question('Well?', 'b'))
    assert backend.cancel('nobody') == 0
    assert backend.cancel('a') == 1
    answer = stream.answer(60)
    assert (answer.finish_reason, answer.error_code) == (
        FinishReason.CANCELLED,
        ErrorCode.CANCELLED,
    )
    assert answer.text == ''.join(chunk.delta for chunk in stream)
    assert (answer.model, answer.chip) == (backend.info.model, backend.info.chip)
    assert other.answer(60).success
    assert backend.cancel('a') == 0


def test_a_request_id_is_free_again_when_its_question_has_ended(backend):
    stream = begun(backend.ask(Question(ENDLESS, 'a')))
    with pytest.raises(BadRequestError) as raised:
        backend.ask(Question('Well?', 'a'))
    assert raised.value.code is ErrorCode.DUPLICATE_REQUEST
    stream.cancel()
    assert stream.answer(60).error_code is ErrorCode.CANCELLED
    deadline = time.monotonic() + 30
    while True:  # In another process it is known a moment later.
        try:
            again = backend.ask(Question('Well?', 'a'))
            break
        except BadRequestError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert again.answer(60).success


def test_a_deadline_ends_an_answer_with_what_was_said(backend):
    begun(backend.ask(Question('Well?')))  # Loaded by now.
    deadline_ns = time.monotonic_ns() + 500_000_000
    answer = backend.ask(Question(ENDLESS, deadline_ns=deadline_ns)).answer(60)
    assert (answer.finish_reason, answer.error_code) == (
        FinishReason.DEADLINE,
        ErrorCode.DEADLINE,
    )


def test_closing_ends_every_question(backend):
    streams = [backend.ask(Question(ENDLESS, name)) for name in 'abc']
    begun(streams[0])
    backend.close()
    backend.close()
    for stream in streams:
        assert stream.answer(60).error_code is ErrorCode.CANCELLED
        assert sum(chunk.done for chunk in stream) == 1


def test_a_listener_may_call_back(backend):
    answers = []
    ended = threading.Event()

    def on_chunk(chunk):
        if not chunk.done and not answers:
            answers.append(None)
            backend.cancel(chunk.request_id)
            backend.ask(Question('Well?', 'second'), on_second)

    def on_second(chunk):
        if chunk.done:
            answers.append(chunk.answer)
            ended.set()

    first = backend.ask(Question(ENDLESS, 'first'), on_chunk)
    assert first.answer(60).error_code is ErrorCode.CANCELLED
    assert ended.wait(60)
    assert answers[-1].success


def test_one_function_opens_what_a_chip_names(canned_chip, scripted):
    pipeline = open_backend(scripted(answers=[{'answer': 'Yes.'}]))
    assert isinstance(pipeline, VlmPipeline)
    assert pipeline.ask(Question('Well?')).answer(10).text == 'Yes.'
    pipeline.close()
    parts = []
    canned = open_backend(CANNED, on_loaded=lambda *part: parts.append(part))
    assert (canned.info.model, canned.info.chip) == ('words', 'canned')
    assert parts == [(1, 3), (2, 3), (3, 3)]
    canned.close()


def test_a_spec_is_checked_before_anything_is_loaded(scripted):
    spec = scripted(answers=[{'answer': 'Yes.'}])
    assert check_spec(spec).startswith(f'{spec.model} for scripted from ')
    with pytest.raises(BadRequestError, match="no chip 'tpu'; chips are: cpu, scripted"):
        check_spec(ModelSpec('tpu'))


def test_a_chip_without_files_has_none_to_check(canned_chip):
    assert check_spec(CANNED) == 'words for canned'
    assert check_spec(ModelSpec('canned')) == 'canned for canned'
    with pytest.raises(BadRequestError, match='chip canned has no engine'):
        open_engine('canned', None)
    with pytest.raises(BadRequestError, match='models for chip canned are no files'):
        find_model('canned', './words')


def test_a_backend_without_tokens_loads_dies_and_comes_back_in_a_process(canned_process):
    states = []
    bounds = ProcessSettings(first_backoff_s=0.05)
    process = canned_process(on_state=states.append, process_settings=bounds)
    held = process.ask(Question('Well?'))
    assert held.answer(60).text == '0 frames: Well? '
    assert [state.loading.loaded for state in states if state.loading] == [1, 2, 3]
    running = begun(process.ask(Question(ENDLESS)))
    crashed = process.ask(Question('crash'))
    assert crashed.answer(60).error_code is ErrorCode.ENGINE_DIED
    died = running.answer(60)
    assert died.error_code is ErrorCode.ENGINE_DIED
    assert died.text.startswith('0 frames: ')
    assert (died.model, died.chip) == ('words', 'canned')
    assert process.ask(Question('And now?')).answer(60).text == '0 frames: And now? '
    assert process.ask(Question('fail')).answer(60).message == 'the server fell over'
    assert process.state.restarts == 2, 'it was asked once more'


def test_a_backend_that_cannot_be_opened_ends_what_waits_for_it(canned_process):
    process = canned_process(
        ModelSpec('canned', 'broken'),
        process_settings=ProcessSettings(first_backoff_s=0.01, max_failed_starts=2),
    )
    answer = process.ask(Question('Well?')).answer(60)
    assert answer.error_code is ErrorCode.DEVICE
    assert 'cannot be reached' in answer.message
    assert process.state.phase is EnginePhase.FAILED
    assert (answer.model, answer.chip) == ('', '')
