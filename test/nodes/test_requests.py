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
from support.clock import ManualClock  # noqa: E402

from edge_vlm_ros.core import (  # noqa: E402
    Answer,
    AnswerChunk,
    BadRequestError,
    BusyError,
    CancelledError,
    ErrorCode,
    FinishReason,
    FrameSource,
    PreemptedError,
    Priority,
    Question,
    RawImage,
    SteadyClock,
    StoredFrame,
)
from edge_vlm_ros.nodes import qos  # noqa: E402
from edge_vlm_ros.nodes.admission import Admitted  # noqa: E402
from edge_vlm_ros.nodes.conversions import RequestFacts  # noqa: E402
from edge_vlm_ros.nodes.diagnostics import queue_status  # noqa: E402
from edge_vlm_ros.nodes.requests import ON_THEIR_WAY, OpenRequest, OpenRequests  # noqa: E402
from edge_vlm_ros.serving import AnswerStream, ModelInfo  # noqa: E402


class Publisher:
    """Keeps what is published."""

    def __init__(self):
        self.chunks, self.answers = [], []

    def publish_chunk(self, message):
        self.chunks.append(message)

    def publish_answer(self, message, question=None):
        self.answers.append(message)


def register(publisher, limit=1000, info=None, policy='queue', clock=None):
    return OpenRequests(
        publisher,
        lambda: None,
        lambda: info,
        limit=limit,
        policy=policy,
        clock=clock or SteadyClock(),
    )


def take(requests, request_id, *, is_asked=True, clock=None, **question):
    """Take a request in, as `Answering` does; its answer is made by hand."""
    requests.check_room(request_id)
    facts = RequestFacts(request_id)
    admitted = Admitted(None, facts, Question('Eh?', request_id, **question), None)
    request = OpenRequest(admitted, Future())
    requests.add(request)
    if is_asked:
        request.stream = AnswerStream(
            request_id,
            clock=clock or SteadyClock(),
            cancel=lambda _: 0,
            on_chunk=requests.on_chunk,
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
    assert request.reply.result() is publisher.answers[0]


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


def test_with_reject_there_is_room_for_one():
    requests = register(Publisher(), limit=8, policy='reject')
    take(requests, 'a')
    with pytest.raises(BusyError, match='queue_policy is reject'):
        requests.check_room('b')
    assert requests.limit == 1


@pytest.mark.parametrize('policy', ['replace_oldest', 'preempt'])
def test_where_the_model_process_decides_the_node_only_bounds_what_is_on_its_way(policy):
    requests = register(Publisher(), limit=2, policy=policy)
    for number in range(2 + ON_THEIR_WAY):
        take(requests, f'r{number}')
    with pytest.raises(BusyError, match='on their way'):
        requests.check_room('one more')


@pytest.mark.parametrize('stage', ['waits for a frame', 'waits', 'runs', 'speaks'])
def test_an_answer_that_the_node_ends_says_what_it_was_about_and_how_it_spent_its_time(stage):
    clock, publisher = ManualClock(10**9), Publisher()
    requests = register(publisher, info=ModelInfo(model='demo', chip='cpu'), clock=clock)
    image = RawImage('rgb8', 4, 2, 12, bytes(24))
    frame = StoredFrame(FrameSource('front', '/image', 'optical'), 77, image, 5 * 10**8)
    is_asked = stage != 'waits for a frame'
    request = take(
        requests, 'r', is_asked=is_asked, clock=clock, asked_ns=clock.now_ns(), frames=(frame,)
    )
    request.waits_for_frame = not is_asked
    clock.advance(2)
    if stage in {'runs', 'speaks'}:
        request.stream.begin(clock.now_ns())
    clock.advance(3)
    if stage == 'speaks':
        request.stream.relay(AnswerChunk('r', 0, 'Half'))
    clock.advance(4)
    requests.fail(request, CancelledError('the node shuts down'))
    (answer,) = publisher.answers
    stats = answer.stats
    assert publisher.chunks[-1].stats == stats
    assert (answer.model, answer.chip) == ('demo', 'cpu')
    (ref,) = answer.frames
    assert (ref.camera, ref.width, ref.height, answer.header.stamp.nanosec) == ('front', 4, 2, 77)
    expected = {
        'waits for a frame': (9, 9, 0, 0),
        'waits': (9, 0, 0, 0),
        'runs': (2, 0, 7, 0),
        'speaks': (2, 0, 7, 5),
    }
    split = (stats.queue_s, stats.frame_wait_s, stats.run_s, stats.time_to_first_token_s)
    assert split == expected[stage]
    assert stats.total_s == 9


def test_those_that_wait_are_named_by_their_turn():
    requests = register(Publisher())
    for name, priority in (('a', Priority.BACKGROUND), ('b', Priority.NORMAL)):
        take(requests, name, priority=priority)
    requests.matching('a')[0].stream.begin(5)
    take(requests, 'c', priority=Priority.URGENT)
    take(requests, 'd', priority=Priority.URGENT, is_asked=False)
    assert requests.by_turn() == ['a', 'c', 'd', 'b']


def test_the_largest_burst_is_remembered_and_a_flood_is_reported_for_a_minute():
    clock = ManualClock(10**9)
    requests = register(Publisher(), clock=clock)
    for number in (2, 5, 3):
        clock.advance(1)
        for _ in range(number):
            clock.advance(0.01)
            requests.came()
    assert requests.counts.largest_burst == 5
    assert not requests.was_flooded
    for _ in range(qos.SERVICE.depth):
        requests.came()
    status = queue_status('vlm', 'cpu', requests)
    assert requests.was_flooded
    assert 'keeps 1000 that came at once' in status.message
    clock.advance(61)
    assert not requests.was_flooded
    assert queue_status('vlm', 'cpu', requests).message == '0 of 1000 requests run or wait'


def test_those_turned_away_are_counted_apart():
    requests = register(Publisher())
    requests.refuse(RequestFacts('q'), BusyError('too many'))
    requests.fail(take(requests, 'r'), PreemptedError('a newer one'))
    counts = requests.counts
    assert (counts.turned_away, counts.failed, counts.cancelled) == (2, 0, 0)
