"""Every request ends with exactly one final chunk, whoever ends it first."""

from __future__ import annotations

import random
import threading
from collections import Counter

import pytest

pytestmark = pytest.mark.ros
pytest.importorskip('rclpy')
pytest.importorskip('edge_vlm_ros.msg')

from rclpy.task import Future  # noqa: E402

from edge_vlm_ros.core import (  # noqa: E402
    Answer,
    AnswerChunk,
    BadRequestError,
    BusyError,
    CancelledError,
    ErrorCode,
    FinishReason,
)
from edge_vlm_ros.nodes.conversions import RequestFacts  # noqa: E402
from edge_vlm_ros.nodes.requests import OpenRequest, OpenRequests  # noqa: E402


class Outlet:
    """Keeps what is given out."""

    def __init__(self):
        self.chunks, self.answers = [], []

    def publish_chunk(self, message):
        self.chunks.append(message)

    def publish_answer(self, message):
        self.answers.append(message)


def opened(outlet, *ids, limit=1000):
    requests = OpenRequests(outlet, lambda: None, limit)
    for request_id in ids:
        requests.check_room(request_id)
        requests.add(OpenRequest(RequestFacts(request_id), Future()))
    return requests


def final(request_id, sequence, text=''):
    answer = Answer(request_id, text, FinishReason.STOP)
    return AnswerChunk(request_id, sequence, '', answer)


def test_an_engine_and_a_cancel_that_race_give_one_end_and_nothing_behind_it():
    outlet = Outlet()
    ids = [f'r{i}' for i in range(300)]
    requests = opened(outlet, *ids)

    def engine():
        for request_id in ids:
            for i in range(3):
                requests.on_chunk(AnswerChunk(request_id, i, f'{i} '))
            requests.on_chunk(final(request_id, 3, '0 1 2 '))

    def caller():
        for request_id in random.sample(ids, len(ids)):
            requests.fail(request_id, CancelledError('taken back'))

    threads = [threading.Thread(target=work) for work in (engine, caller, caller)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(requests) == 0
    assert Counter(answer.request_id for answer in outlet.answers) == Counter(ids)
    for answer in outlet.answers:
        chunks = [chunk for chunk in outlet.chunks if chunk.request_id == answer.request_id]
        assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        assert ''.join(chunk.delta for chunk in chunks) == answer.text
    counts = requests.counts
    assert counts.answered + counts.cancelled == len(ids)


def test_what_had_been_said_is_in_the_answer_of_a_request_that_was_ended():
    outlet = Outlet()
    requests = opened(outlet, 'r')
    requests.on_chunk(AnswerChunk('r', 0, 'Half an '))
    assert requests.fail('r', CancelledError('enough'))
    assert not requests.fail('r', CancelledError('enough'))
    requests.on_chunk(AnswerChunk('r', 1, 'answer'))
    (answer,) = outlet.answers
    assert (answer.text, answer.error_code) == ('Half an ', ErrorCode.CANCELLED)
    assert [(c.sequence, c.done) for c in outlet.chunks] == [(0, False), (1, True)]


def test_there_is_room_for_so_many_and_for_each_id_once():
    requests = opened(Outlet(), 'a', 'b', limit=2)
    with pytest.raises(BusyError, match='limit is 2'):
        requests.check_room('c')
    with pytest.raises(BadRequestError, match="'a' is still running"):
        requests.check_room('a')
    requests.on_chunk(final('a', 0))
    requests.check_room('a')


def test_a_reply_is_sent_even_when_the_topic_fails():
    class Broken(Outlet):
        def publish_chunk(self, message):
            raise RuntimeError('the publisher is gone')

    requests = OpenRequests(Broken(), lambda: None, 1)
    reply = Future()
    requests.add(OpenRequest(RequestFacts('r'), reply))
    with pytest.raises(RuntimeError):
        requests.on_chunk(final('r', 0, 'Yes.'))
    assert reply.result().text == 'Yes.'


def test_late_requests_are_named():
    requests = opened(Outlet())
    requests.add(OpenRequest(RequestFacts('a'), Future(), deadline_ns=100))
    requests.add(OpenRequest(RequestFacts('b'), Future()))
    assert requests.overdue(150, grace_ns=100) == []
    assert requests.overdue(201, grace_ns=100) == ['a']
