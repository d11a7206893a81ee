"""A stream of bytes becomes events, however it is cut and whatever servers leave out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scripted_server import chunk, lines, usage

from edge_vlm_ros.core import ErrorCode
from edge_vlm_ros.remote.errors import WhoCanAct
from edge_vlm_ros.remote.events import MAX_LINE_BYTES, EventReader, ServerEvent, Usage

TEXTS = ['', 'Eine Tür: ', '是🤖', '👩‍🚀.']
WHOLE = lines(*map(chunk, TEXTS), chunk(finish='stop'), usage(12, 4, 3))


def read(data, cuts=()):
    reader = EventReader()
    places = [0, *sorted(cuts), len(data)]
    parts = [data[a:b] for a, b in zip(places, [*places[1:], len(data)], strict=True)]
    return [event for part in parts for event in reader.feed(part)] + reader.close()


@given(st.lists(st.integers(0, len(WHOLE)), max_size=12))
def test_it_does_not_matter_where_the_bytes_are_cut(cuts):
    assert read(WHOLE, cuts) == read(WHOLE)


def test_byte_by_byte_gives_texts_end_and_counts():
    events = read(WHOLE, range(len(WHOLE)))
    assert ''.join(event.text for event in events) == ''.join(TEXTS)
    assert [event.finish_reason for event in events if event.finish_reason] == ['stop']
    assert [event.usage for event in events if event.usage] == [Usage(12, 4, 3)]
    assert events[-1].is_last


@pytest.mark.parametrize(
    'data',
    [
        {'choices': []},
        {'choices': [{'delta': {'content': None, 'role': 'assistant'}}]},
        {'choices': [{'delta': {'role': 'assistant'}}]},
        {'choices': [{'delta': None, 'finish_reason': None}], 'usage': None},
        {'choices': [{'index': 0}], 'usage': {}},
        {'choices': None},
        {},
    ],
)
def test_a_chunk_may_lack_anything(data):
    (event,) = read(lines(data, done=False))
    assert event in (ServerEvent(), ServerEvent(usage=Usage()))


def test_comments_and_unknown_fields_are_no_events():
    data = b': ping\n\nevent: x\nid: 7\nretry: 10\n\n:\n\n' + lines(chunk('a'), done=False)
    assert read(data) == [ServerEvent('a')]


def test_lines_may_end_as_on_windows_and_the_last_event_without_a_blank_line():
    data = lines(chunk('a'), chunk(finish='stop')).replace(b'\n', b'\r\n').rstrip()
    assert [e.finish_reason for e in read(data + b'\r\n')][:2] == ['', 'stop']


def test_a_line_that_is_cut_is_no_event():
    whole = lines(chunk('a'), chunk('Tür'), done=False)
    inside = whole.index(b'T\\u00fc') if b'\\u00fc' in whole else whole.index('ü'.encode()) + 1
    assert [event.text for event in read(whole[:inside])] == ['a']


def test_a_whole_line_with_half_a_letter_in_it_is_a_fault():
    (event,) = read(b'data: {"choices": [{"delta": {"content": "T\xc3"}}]}\n\n')
    assert 'no JSON' in event.fault.message


@pytest.mark.parametrize('data', [b'data: [1]\n\n', b'data: nothing\n\n', b'data: "x"\n\n'])
def test_what_is_no_chunk_is_a_fault(data):
    first, event = read(lines(chunk('a'), done=False) + data)
    assert first.text == 'a', 'what came before is kept'
    assert event.fault.who is WhoCanAct.NOBODY


def test_a_line_without_end_is_a_fault():
    reader = EventReader()
    reader.feed(b'data: ' + b'x' * (MAX_LINE_BYTES - 10))
    (event,) = reader.feed(b'x' * 10)
    assert str(MAX_LINE_BYTES) in event.fault.message


@pytest.mark.parametrize(
    'data',
    [
        lines({'error': {'message': 'slot is gone', 'code': 500}}),
        b'error: ' + json.dumps({'error': {'message': 'slot is gone'}}).encode() + b'\n\n',
        lines({'object': 'error', 'message': 'slot is gone', 'code': 500}),
    ],
)
def test_an_error_in_the_stream_is_told(data):
    (event, *_) = read(data)
    assert event.fault is not None
    assert event.fault.who is WhoCanAct.NOBODY
    assert 'slot is gone' in event.fault.message


def test_an_error_in_the_stream_keeps_its_code():
    (event, *_) = read(lines({'error': {'message': 'maximum context length is 9', 'code': 400}}))
    assert event.fault is not None
    assert event.fault.code is ErrorCode.PROMPT_TOO_LONG


def test_scores_are_read_where_they_came():
    top = [{'token': 'Yes', 'logprob': -0.1}, {'token': 'No', 'logprob': -2}, {'token': 3}]
    choice = {'logprobs': {'content': [{'token': 'Yes', 'logprob': -0.1, 'top_logprobs': top}]}}
    (event,) = read(lines(chunk('Yes', choice=choice), done=False))
    assert [(score.text, score.logprob) for score in event.scores] == [('Yes', -0.1), ('No', -2.0)]


def test_half_a_character_that_json_escapes_is_replaced():
    data = b'data: {"choices": [{"delta": {"content": "a\\ud83d"}}]}\n\n'
    (event,) = read(data)
    assert event.text.encode()
    assert event.text.startswith('a')


def test_what_a_model_thinks_is_no_text():
    (event,) = read(lines({'choices': [{'delta': {'reasoning_content': 'hm'}}]}, done=False))
    assert (event.text, event.is_thinking) == ('', True)


def test_counts_that_make_no_sense_are_not_known():
    data = {'choices': [], 'usage': {'prompt_tokens': -3, 'completion_tokens': 'many'}}
    assert read(lines(data, done=False))[0].usage == Usage()
