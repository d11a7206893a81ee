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
    Question,
    SteadyClock,
)
from edge_vlm_ros.nodes.admission import Admitted  # noqa: E402
from edge_vlm_ros.nodes.conversions import RequestFacts  # noqa: E402
from edge_vlm_ros.nodes.requests import OpenRequest, OpenRequests  # noqa: E402
from edge_vlm_ros.serving import AnswerStream, ModelInfo  # noqa: E402


class Publisher:
    """Keeps what is published."""

    def __init__(self):
        self.chunks, self.answers = [], []

    def publish_chunk(self, message):
        self.chunks.append(message)

    def publish_answer(self, message):
        self.answers.append(message)


def register(publisher, limit=1000, info=None):
    return OpenRequests(publisher, lambda: None, limit, lambda: info)


def take(requests, request_id, *, is_asked=True):
    """Take a request in, as `Answering` does; its answer is made by hand."""
    requests.check_room(request_id)
    facts = RequestFacts(request_id)
    admitted = Admitted(None, facts, Question('Eh?', request_id), None)
    request = OpenRequest(admitted, Future())
    requests.add(request)
    if is_asked:
        request.stream = AnswerStream(
            request_id, clock=SteadyClock(), cancel=lambda _: 0, on_chunk=requests.on_chunk
        )
    return request


def final(request_id, sequence, text=''):
    answer = Answer(request_id, text, FinishReason.STOP)
    return AnswerChunk(request_id, sequence, '', answer)


def test_an_engine_and_a_cancel_that_race_give_one_end_and_nothing_behind_it():
    publisher = Publisher()
    requests = register(publisher)
    ids = [f'r{i}' for i in range(300)]
    opened = [take(requests, request_id) for request_id in ids]

    def engine():
        for request in opened:
            for i in range(3):
                request.stream.relay(AnswerChunk(request.request_id, i, f'{i} '))
            request.stream.relay(final(request.request_id, 3, '0 1 2 '))

    def caller():
        for request in random.sample(opened, len(opened)):
            requests.fail(request, CancelledError('taken back'))

    threads = [threading.Thread(target=work) for work in (engine, caller, caller)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(requests) == 0
    assert Counter(answer.request_id for answer in publisher.answers) == Counter(ids)
    for answer in publisher.answers:
        chunks = [chunk for chunk in publisher.chunks if chunk.request_id == answer.request_id]
        assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        assert ''.join(chunk.delta for chunk in chunks) == answer.text
    counts = requests.counts
    assert counts.answered + counts.cancelled == len(ids)


def test_what_had_been_said_is_in_the_answer_of_a_request_that_was_ended():
    publisher = Publisher()
    requests = register(publisher)
    request = take(requests, 'r')
    request.stream.relay(AnswerChunk('r', 0, 'Half an '))
    assert requests.fail(request, CancelledError('enough'))
    assert not requests.fail(request, CancelledError('enough'))
    request.stream.relay(AnswerChunk('r', 1, 'answer'))
    (answer,) = publisher.answers
    assert (answer.text, answer.error_code) == ('Half an ', ErrorCode.CANCELLED)
    assert [(c.sequence, c.done) for c in publisher.chunks] == [(0, False), (1, True)]
    assert publisher.chunks[1].message == answer.message == 'enough'


def test_a_request_that_was_not_asked_yet_ends_once_too():
    publisher = Publisher()
    requests = register(publisher)
    request = take(requests, 'r', is_asked=False)
    assert requests.fail(request, CancelledError('enough'))
    assert not requests.fail(request, CancelledError('enough'))
    assert [(c.sequence, c.done) for c in publisher.chunks] == [(0, True)]
    assert request.reply.result() == publisher.answers[0]


def test_the_loaded_model_is_named_where_the_node_ends_or_refuses_a_request():
    info = ModelInfo(model='demo', chip='cpu')
    for known, names in ((info, ('demo', 'cpu')), (None, ('', ''))):
        publisher = Publisher()
        requests = register(publisher, info=known)
        for is_asked in (True, False):
            request = take(requests, 'r', is_asked=is_asked)
            requests.fail(request, CancelledError('enough'))
        requests.refuse(RequestFacts('q'), BusyError('too many'))
        assert [(answer.model, answer.chip) for answer in publisher.answers] == [names] * 3


def test_there_is_room_for_so_many_and_for_each_id_once():
    requests = register(Publisher(), limit=2)
    first, _ = take(requests, 'a'), take(requests, 'b')
    with pytest.raises(BusyError, match='limit is 2'):
        requests.check_room('c')
    with pytest.raises(BadRequestError, match="'a' is still running"):
        requests.check_room('a')
    first.stream.relay(final('a', 0))
    requests.check_room('a')


def test_a_reply_is_sent_even_when_the_topic_fails():
    class Broken(Publisher):
        def publish_chunk(self, message):
            raise RuntimeError('the publisher is gone')

    requests = register(Broken(), 1)
    request = take(requests, 'r')
    with pytest.raises(RuntimeError):
        requests.on_chunk(final('r', 0, 'Yes.'))
    assert request.reply.result().text == 'Yes.'


def test_requests_are_found_by_id_or_all_at_once():
    requests = register(Publisher())
    a, b = take(requests, 'a'), take(requests, 'b', is_asked=False)
    assert requests.matching() == [a, b]
    assert requests.matching('b') == [b]
    assert requests.matching('c') == []
