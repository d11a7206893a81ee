"""What a server's refusal means, as each kind of server writes it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from edge_vlm_ros.core import ErrorCode
from edge_vlm_ros.remote.errors import (
    LONGEST_RETRY_S,
    MAX_QUOTE,
    WhoCanAct,
    fault_of,
    joined,
    read_retry_after,
)

CALLER, DEPLOYER = WhoCanAct.CALLER, WhoCanAct.DEPLOYER
NOBODY, TIME = WhoCanAct.NOBODY, WhoCanAct.TIME


@pytest.mark.parametrize(
    ('status', 'body', 'who', 'code', 'said'),
    [
        (
            400,
            {'error': {'message': 'the request exceeds the available context size',
                       'type': 'exceed_context_size_error', 'n_ctx': 512}},
            CALLER, ErrorCode.PROMPT_TOO_LONG, 'available context',
        ),
        (
            400,
            {'error': {'message': "This model's maximum context length is 4096 tokens."}},
            CALLER, ErrorCode.PROMPT_TOO_LONG, '4096',
        ),
        (
            400,
            {'object': 'error', 'message': 'The input is longer than the model allows',
             'type': 'BadRequestError', 'code': 400},
            CALLER, ErrorCode.PROMPT_TOO_LONG, 'longer',
        ),
        (
            400,
            {'error': {'message': 'Failed to load image or audio file', 'code': 400}},
            CALLER, ErrorCode.BAD_IMAGE, 'Failed to load',
        ),
        (500, 'cannot identify image file <_io.BytesIO>', CALLER, ErrorCode.BAD_IMAGE, 'identify'),
        (
            400,
            {'error': {'message': 'At most 1 image(s) may be provided in one prompt.'}},
            CALLER, ErrorCode.TOO_MANY_FRAMES, 'At most 1',
        ),
        (
            422,
            {'detail': "Unexpected keys in the request: {'top_k'}"},
            CALLER, ErrorCode.UNSUPPORTED_OPTION, 'top_k',
        ),
        (422, {'detail': [{'msg': 'x', 'loc': ['body']}]}, CALLER, ErrorCode.BAD_REQUEST, 'body'),
        (
            500,
            {'error': {'message': 'image input is not supported - hint: provide the mmproj'}},
            DEPLOYER, ErrorCode.SERVER_REFUSED, 'mmproj',
        ),
        (401, {'error': {'message': 'Bad Key'}}, DEPLOYER, ErrorCode.SERVER_REFUSED, 'Key'),
        (403, 'Forbidden', DEPLOYER, ErrorCode.SERVER_REFUSED, 'Forbidden'),
        (
            404,
            {'error': {'message': 'The model `x` does not exist.', 'code': 404}},
            DEPLOYER, ErrorCode.SERVER_REFUSED, 'does not exist',
        ),
        (302, '', DEPLOYER, ErrorCode.SERVER_REFUSED, '302'),
        (429, {'error': {'message': 'slow down'}}, TIME, ErrorCode.BUSY, 'slow down'),
        (503, {'error': {'message': 'Loading model'}}, TIME, ErrorCode.BUSY, 'Loading'),
        (408, '', NOBODY, ErrorCode.SERVER_UNREACHABLE, '408'),
        (500, 'Internal Server Error', NOBODY, ErrorCode.SERVER_UNREACHABLE, 'Internal'),
        (502, '<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>',
         NOBODY, ErrorCode.SERVER_UNREACHABLE, 'a web page: 502 Bad Gateway'),
        (413, '<html><title>413 Request Entity Too Large</title></html>',
         CALLER, ErrorCode.BAD_REQUEST, 'client_max_body_size'),
        (400, {'error': 'a plain text'}, CALLER, ErrorCode.BAD_REQUEST, 'a plain text'),
        (400, [1, 2], CALLER, ErrorCode.BAD_REQUEST, '1, 2'),
        (400, '', CALLER, ErrorCode.BAD_REQUEST, 'status 400'),
    ],
)  # fmt: skip
def test_each_server_is_understood(status, body, who, code, said):
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    fault = fault_of(status, data)
    assert (fault.who, fault.code) == (who, code), fault
    assert said in fault.message


def test_a_server_s_words_are_short_and_on_one_line():
    fault = fault_of(500, ('x\n\x1b[31m' * 5000).encode())
    assert len(fault.message) < MAX_QUOTE + 30
    assert fault.message.isprintable()


def test_a_body_nested_a_million_deep_is_only_text():
    assert fault_of(500, b'[' * 100_000).who is NOBODY


@pytest.mark.parametrize(
    ('text', 'seconds'),
    [('', 0), ('2', 2), ('1.5', 1.5), ('-3', 0), ('nan', 0), ('inf', 0), ('soon', 0),
     ('86400', LONGEST_RETRY_S), ('Wed, 21 Oct 2015 07:28:00 GMT', 0)],
)  # fmt: skip
def test_retry_after_is_seconds_within_reason(text, seconds):
    assert read_retry_after(text) == seconds


def test_retry_after_may_be_a_date():
    later = datetime.now(timezone.utc) + timedelta(seconds=40)
    assert 20 < read_retry_after(format_datetime(later, usegmt=True)) <= 40


def test_what_all_servers_said_decides_the_code_and_each_is_named():
    refused, busy, gone = fault_of(401, b''), fault_of(429, b''), fault_of(500, b'')
    assert joined([('a', busy), ('b', busy)]).code is ErrorCode.BUSY
    assert joined([('a', refused)]).code is ErrorCode.SERVER_REFUSED
    error = joined([('http://a', gone), ('http://b', refused), ('http://c', busy)])
    assert error.code is ErrorCode.SERVER_UNREACHABLE
    assert all(name in error.message for name in ('http://a', 'http://b', 'http://c', '401'))
