"""llama.cpp's own server, in a process of its own, on a made-up model that sees."""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.patience import Patience
from support.remote import WAIT_S, spec_of

from edge_vlm_ros.core import (
    CompressedImage,
    ErrorCode,
    FinishReason,
    FrameSource,
    Question,
    RawImage,
    SamplingOptions,
    StoredFrame,
)
from edge_vlm_ros.serving import open_backend

pytest.importorskip('xllamacpp', reason='the server comes with the test extra')
gguf = pytest.importorskip('gguf', reason='its model is written with gguf (test extra)')

TEST_FOLDER = Path(__file__).resolve().parents[1]
MEGABYTE = 1_000_000
BRIEF = SamplingOptions(24)
LONG = SamplingOptions(30_000)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """The made-up model's two files."""
    from support.tiny_gguf.make import make_tiny_gguf

    return make_tiny_gguf(tmp_path_factory.mktemp('gguf'))


@pytest.fixture
def start(spawn, model):
    """Start a server; returns it and its address."""

    def begin(*more):
        command = [sys.executable, '-m', 'support.llama_server', *map(str, model), *more]
        server = spawn(command, env={'PYTHONPATH': str(TEST_FOLDER)})
        server.wait_for_output('at http')
        line = next(line for line in server.output().splitlines() if line.startswith('at http'))
        return server, line.split()[1] + '/v1'

    return begin


@pytest.fixture
def vlm(start):
    """The backend on one server."""
    with open_backend(spec_of(start()[1])) as opened:
        yield opened


def shot(colour, stamp_ns=1, side=64):
    source = FrameSource('front', '/image', 'optical')
    picture = Image.new('RGB', (side, side), colour)
    out = io.BytesIO()
    picture.save(out, 'JPEG')
    return StoredFrame(source, stamp_ns, CompressedImage('jpeg', out.getvalue()), stamp_ns)


def raw(colour, side=64):
    pixels = Image.new('RGB', (side, side), colour).tobytes()
    source = FrameSource('rear', '/image', 'optical')
    return StoredFrame(source, 1, RawImage('rgb8', side, side, 3 * side, pixels), 1)


def ask(vlm, *frames, text='What do you see?', sampling=BRIEF, **more):
    return vlm.ask(Question(text, frames=frames, sampling=sampling, **more)).answer(WAIT_S)


def until(is_so):
    patience = Patience(60)
    while not is_so():
        assert not patience.is_over()
        patience.look()


def test_the_model_is_small(model):
    assert sum(path.stat().st_size for path in model) < MEGABYTE


def test_it_sees_and_streams_and_says_the_same_again(vlm):
    seen = []
    stream = vlm.ask(
        Question('What do you see?', frames=(shot('red'),), sampling=BRIEF), seen.append
    )
    answer = stream.answer(WAIT_S)
    assert answer.success, answer.message
    assert answer.finish_reason is FinishReason.LENGTH
    assert len(answer.text) == answer.timings.answer_tokens == 24
    assert ''.join(chunk.delta for chunk in seen) == answer.text
    assert ask(vlm, shot('red')).text == answer.text
    assert ask(vlm, shot('blue')).text != answer.text, 'it looks at the picture'
    assert ask(vlm).text != answer.text
    assert ask(vlm, raw('blue')).text == ask(vlm, shot('blue')).text, 'raw pixels are the same'


def test_several_images_cost_several_times_the_tokens(vlm):
    none, one, two = (
        ask(vlm, *(shot('red', n + 1) for n in range(number))).timings.prompt_tokens
        for number in range(3)
    )
    assert two - one == one - none > 16


def test_a_conversation_goes_on_and_its_beginning_is_in_the_server_s_cache(vlm):
    first = ask(vlm, shot('red'), session_id='s')
    second = ask(vlm, text='And now?', session_id='s')
    assert second.success, second.message
    grown = second.timings.prompt_tokens - first.timings.prompt_tokens
    assert grown > first.timings.answer_tokens
    assert second.timings.cached_prompt_tokens >= first.timings.prompt_tokens
    assert [ref.stamp_ns for ref in second.frames] == [1]


def test_two_at_once(vlm):
    alone = {colour: ask(vlm, shot(colour)).text for colour in ('red', 'blue')}
    streams = {
        colour: vlm.ask(Question('What do you see?', frames=(shot(colour),), sampling=BRIEF))
        for colour in ('red', 'blue', 'red', 'blue')
    }
    assert {name: each.answer(WAIT_S).text for name, each in streams.items()} == alone


@pytest.mark.parametrize('way', ['grammar', 'text'])
def test_choices(start, way):
    with open_backend(spec_of(start()[1], choices=way)) as vlm:
        answer = ask(vlm, text='Is it red?', choices=('yes', 'no'))
    assert answer.success, answer.message
    assert answer.choice == (answer.text.strip() if way == 'grammar' else '')


def test_a_cancel_stops_the_server(start):
    server, url = start()
    with open_backend(spec_of(url)) as vlm:
        stream = vlm.ask(Question('Talk.', sampling=LONG))
        next(iter(stream))
        assert 'cancel' not in server.output()
        assert stream.cancel()
        assert stream.answer(WAIT_S).error_code is ErrorCode.CANCELLED
        until(lambda: 'cancel' in server.output())
        assert ask(vlm).success


def test_a_key_is_wanted_and_given(start, monkeypatch):
    monkeypatch.setenv('ROBOT_KEY', 'right')
    _, url = start('--key', 'right')
    with open_backend(spec_of(url, api_key_env='ROBOT_KEY')) as vlm:
        assert ask(vlm).success
    with open_backend(spec_of(url, model='m')) as vlm:
        refused = ask(vlm)
    assert refused.error_code is ErrorCode.SERVER_REFUSED
    assert '401' in refused.message


def test_a_prompt_that_is_too_long_has_its_code(vlm):
    answer = ask(vlm, text='x' * 40_000)
    assert answer.error_code is ErrorCode.PROMPT_TOO_LONG, answer.message
    assert vlm.info.context_tokens == 32_768
    assert ask(vlm).success


def test_killed_in_mid_answer_the_text_is_kept_and_the_other_one_goes_on(start):
    (first, url), (_, other) = start(), start()
    with open_backend(spec_of(url, other)) as vlm:
        stream = vlm.ask(Question('Talk.', sampling=LONG))
        chunks = iter(stream)
        said = next(chunks).delta + next(chunks).delta
        first.signal(signal.SIGKILL)
        answer = stream.answer(WAIT_S)
        assert answer.error_code is ErrorCode.SERVER_UNREACHABLE
        assert answer.text.startswith(said)
        assert 'in the midst' in answer.message
        after = ask(vlm, shot('red'))
        assert after.success, after.message
        assert other not in vlm.health.reason
        assert url in vlm.health.reason


def test_a_killed_server_leaves_its_conversation_to_the_chip_of_this_machine(start, scripted):
    script = scripted(answers=[{'answer': '{images} seen here'}])
    server, url = start()
    beside = {'fallback_chip': 'scripted', 'fallback_model': script.model}
    vlm = open_backend(spec_of(url, **beside))
    try:
        first = ask(vlm, shot('red'), session_id='s')
        assert (first.chip, first.success) == ('remote', True), first.message
        stream = vlm.ask(Question('Talk.', session_id='s', sampling=LONG))
        next(iter(stream))
        server.signal(signal.SIGKILL)
        broken = stream.answer(WAIT_S)
        assert broken.error_code is ErrorCode.SERVER_UNREACHABLE
        assert broken.text
        after = ask(vlm, session_id='s', continues_session=True)
        assert (after.chip, after.text) == ('scripted', '1 seen here')
        until(lambda: vlm.standing.is_spare)
    finally:
        vlm.close()


def test_the_doctor_looks_at_a_real_server_link_by_link(start):
    from edge_vlm_ros.cli.server_probes import find_servers

    found = {finding.name: finding for finding in find_servers('', {'servers': start()[1]})}
    assert list(found) == ['reachable', 'key', 'model', 'context', 'images', 'two pictures']
    states = {name: finding.state.value for name, finding in found.items()}
    # Whether a model of random weights tells red from blue is chance.
    assert states.pop('two pictures') in {'ok', 'warning'}
    assert set(states.values()) == {'ok'}, found
    assert found['context'].found.endswith(' tokens')
