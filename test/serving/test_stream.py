"""Chunks: text of quick models is gathered, none of it is lost, none is kept waiting for long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import ManualClock

from edge_vlm_ros.core import Answer, FinishReason
from edge_vlm_ros.serving.stream import CHUNK_INTERVAL_NS, AnswerStream


def make_stream(clock):
    return AnswerStream('one', clock=clock, cancel=lambda _: 0)


def finish(stream, delta=''):
    return stream.finish(lambda text: Answer('one', text, FinishReason.STOP), delta)


@pytest.fixture
def clock():
    return ManualClock(time_ns=CHUNK_INTERVAL_NS)


def test_the_first_word_never_waits(clock):
    stream = make_stream(clock)
    stream.push('A')
    assert next(iter(stream)).delta == 'A'


def test_what_comes_at_once_goes_out_together(clock):
    stream = make_stream(clock)
    for delta in ('A', ' red', ' box'):
        stream.push(delta)
    clock.time_ns += CHUNK_INTERVAL_NS
    stream.push(' and')
    finish(stream, '.')
    assert [chunk.delta for chunk in stream] == ['A', ' red box and', '.']


def test_a_slow_models_every_token_is_a_chunk(clock):
    stream = make_stream(clock)
    for delta in ('A', ' red', ' box'):
        stream.push(delta)
        clock.time_ns += CHUNK_INTERVAL_NS
    finish(stream)
    assert [chunk.delta for chunk in stream] == ['A', ' red', ' box', '']


@given(steps=st.lists(st.tuples(st.text(max_size=3), st.integers(0, 2 * CHUNK_INTERVAL_NS))))
def test_joined_chunks_are_the_text_whatever_the_pace(steps):
    clock = ManualClock(time_ns=CHUNK_INTERVAL_NS)
    stream = make_stream(clock)
    for delta, pause_ns in steps:
        stream.push(delta)
        clock.time_ns += pause_ns
    finish(stream, 'end')
    said = ''.join(delta for delta, _ in steps) + 'end'
    chunks = list(stream)
    assert ''.join(chunk.delta for chunk in chunks) == said == stream.answer().text
    assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert all(chunk.delta for chunk in chunks[:-1])


def test_behind_the_final_chunk_there_is_nothing(clock):
    stream = make_stream(clock)
    assert finish(stream)
    assert not stream.push('more')
    assert not finish(stream)
    assert len(list(stream)) == 1
