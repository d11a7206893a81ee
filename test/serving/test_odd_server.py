"""transformers' own server: no `[DONE]`, counts in the last chunk, one question at a time."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.patience import Patience
from support.remote import WAIT_S, spec_of
from support.serve_ports import free_port

from edge_vlm_ros.core import (
    CompressedImage,
    ErrorCode,
    FinishReason,
    FrameSource,
    Question,
    SamplingOptions,
    StoredFrame,
)
from edge_vlm_ros.serving import open_backend

for needed in ('torch', 'fastapi', 'uvicorn', 'openai', 'accelerate'):
    pytest.importorskip(needed, reason='the server comes with the reference extra')

pytestmark = [pytest.mark.reference, pytest.mark.slow]

BRIEF = SamplingOptions(24)


@pytest.fixture
def vlm(spawn, tmp_path):
    """The backend on such a server; `vlm.server` is its process."""
    from support.reference.tiny_hf import make_tiny_hf

    folder = make_tiny_hf(tmp_path / 'tiny-hf')
    port = free_port()
    program = Path(sys.executable).with_name('transformers')
    command = [program, 'serve', folder, '--host', '127.0.0.1', '--port', port]
    command += ['--device', 'cpu', '--dtype', 'float32']
    server = spawn([*map(str, command)], env={'HF_HUB_OFFLINE': '1'})
    server.wait_for_output('Uvicorn running', timeout_s=120)
    options = {'logprobs': False, 'first_token_s': 60, 'between_s': 30}
    with open_backend(spec_of(f'http://127.0.0.1:{port}/v1', **options)) as opened:
        yield opened, server


def shot(colour, stamp_ns=1):
    out = io.BytesIO()
    Image.new('RGB', (64, 64), colour).save(out, 'JPEG')
    image = CompressedImage('jpeg', out.getvalue())
    return StoredFrame(FrameSource('front', '/image', 'optical'), stamp_ns, image, stamp_ns)


def ask(vlm, *frames, text='What do you see?', sampling=BRIEF, **more):
    return vlm.ask(Question(text, frames=frames, sampling=sampling, **more)).answer(WAIT_S)


def test_an_odd_server_answers_like_any_other(vlm):
    vlm, server = vlm
    red, blue = ask(vlm, shot('red')), ask(vlm, shot('blue'))
    assert red.success, red.message
    assert red.finish_reason is FinishReason.LENGTH
    assert red.timings.answer_tokens == len(red.text) == 24
    assert red.text != blue.text, 'it looks at the picture'
    two = ask(vlm, shot('red'), shot('blue', 2))
    assert two.timings.prompt_tokens > red.timings.prompt_tokens
    ask(vlm, shot('red'), session_id='s')
    more = ask(vlm, text='And now?', session_id='s')
    assert more.timings.prompt_tokens > red.timings.prompt_tokens + 24

    stream = vlm.ask(Question('Talk.', sampling=SamplingOptions(7000)))
    next(iter(stream))
    assert stream.cancel()
    assert stream.answer(WAIT_S).error_code is ErrorCode.CANCELLED
    patience = Patience(60)
    while not ask(vlm).success:  # It takes one at a time: an answer says that it has stopped.
        assert not patience.is_over(), server.output()
    odd = ask(vlm, sampling=SamplingOptions(4, top_k=3))
    assert odd.error_code is ErrorCode.UNSUPPORTED_OPTION, odd.message
    assert 'top_k' in odd.message
