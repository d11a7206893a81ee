"""Requests to their replies on a plain node: no lifecycle, no model process, no camera driver."""

from __future__ import annotations

import gc
import weakref
from array import array
from dataclasses import replace

import pytest

pytestmark = pytest.mark.ros
rclpy = pytest.importorskip('rclpy')
pytest.importorskip('edge_vlm_ros.msg')

from edge_vlm_ros.action import Ask as AskAction  # noqa: E402
from edge_vlm_ros.msg import Answer as AnswerMsg  # noqa: E402
from edge_vlm_ros.srv import Cancel, Describe, ResetSession  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from rclpy.action.server import ActionServer  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from support.answering_bench import ENDLESS, Bench  # noqa: E402
from support.canned_backend import CannedBackend  # noqa: E402

from edge_vlm_ros.core import (  # noqa: E402
    Answer,
    BadFrame,
    BadImageError,
    CancelledError,
    CompressedImage,
    FrameSource,
    StoredFrame,
)
from edge_vlm_ros.nodes.answering import MAX_ATTEMPTS  # noqa: E402


@pytest.fixture
def bench(ros_domain):
    made = Bench(ros_domain)
    yield made
    made.close()


def test_a_request_is_answered_with_its_frame_and_its_model(bench):
    bench.open()
    answer = bench.ask('How are you?', request_id='r')
    assert answer.text == '1 frames: How are you? '
    assert (answer.model, answer.chip) == ('canned words', 'canned')
    assert answer.header.frame_id == 'front_optical_frame'
    chunks = bench.publisher.chunks
    assert ''.join(chunk.delta for chunk in chunks) == answer.text
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert {chunk.header.frame_id for chunk in chunks} == {'front_optical_frame'}
    assert not bench.answering.has_replies_to_send
    assert len(bench.answering.requests) == 0


def test_what_fails_is_an_answer_with_the_sentence_on_every_way(bench):
    bench.open()
    answer = bench.ask('fail now', request_id='r')
    assert (answer.error_code, answer.message) == (AnswerMsg.ERROR_DEVICE, 'the server fell over')
    (chunk,) = bench.finals('r')
    assert (chunk.error_code, chunk.message) == (answer.error_code, answer.message)


def test_while_it_is_closed_requests_are_refused_with_the_reason(bench):
    answer = bench.ask('Well?', request_id='early')
    assert (answer.error_code, answer.model) == (AnswerMsg.ERROR_NOT_READY, '')
    assert answer.message == 'the node is unconfigured'
    assert [chunk.message for chunk in bench.finals('early')] == [answer.message]
    bench.open()
    bench.answering.closed = 'the node is inactive'
    answer = bench.ask('Well?')
    assert (answer.error_code, answer.model) == (AnswerMsg.ERROR_NOT_READY, 'canned words')
    assert answer.message == 'the node is inactive'


@pytest.mark.parametrize(
    ('fields', 'code'),
    [
        ({'question': ' '}, AnswerMsg.ERROR_BAD_REQUEST),
        ({'question': 'Eh?', 'cameras': ['rear']}, AnswerMsg.ERROR_UNKNOWN_CAMERA),
        ({'question': 'Eh?', 'images': [Image()] * 3}, AnswerMsg.ERROR_TOO_MANY_FRAMES),
    ],
)
def test_what_cannot_be_answered_is_refused_and_never_asked(bench, fields, code):
    backend = bench.open()
    answer = bench.ask(**fields, request_id='r')
    assert (answer.error_code, answer.model) == (code, 'canned words')
    assert len(bench.finals('r')) == 1
    assert backend.cancel() == 0


def test_a_request_waits_for_its_frame_and_can_be_cancelled_meanwhile(bench):
    bench.open()
    bench.camera.newest = None
    waiting = bench.ask_later('Well?', request_id='a')
    other = bench.ask_later('Well?', request_id='b')
    bench.until(lambda: len(bench.waits) == 2)
    assert bench.answering.cancel('b') == 1
    bench.until(other.done)
    assert other.result().answer.error_code == AnswerMsg.ERROR_CANCELLED
    bench.camera.show()
    bench.waits.frame_came()
    bench.until(waiting.done)
    answer = waiting.result().answer
    assert answer.text.startswith('1 frames')
    assert answer.stats.frame_wait_s > 0


def test_cancel_ends_one_or_all_and_says_how_many(bench):
    bench.open()
    tasks = {name: bench.begin(name) for name in 'abc'}
    cancelled = bench.answering.on_cancel(Cancel.Request(request_id='b'), Cancel.Response())
    assert (cancelled.cancelled, cancelled.message) == (1, '1 of 3 requests cancelled')
    bench.until(tasks['b'].done)
    assert not tasks['a'].done()
    nobody = bench.answering.on_cancel(Cancel.Request(request_id='b'), Cancel.Response())
    assert (nobody.cancelled, nobody.message) == (0, '0 of 2 requests cancelled')
    assert bench.answering.on_cancel(Cancel.Request(), Cancel.Response()).cancelled == 2
    for name, task in tasks.items():
        bench.until(task.done)
        answer = task.result().answer
        assert (answer.error_code, answer.model) == (AnswerMsg.ERROR_CANCELLED, 'canned words')
        assert len(bench.finals(name)) == 1


def test_there_is_room_for_so_many_requests(bench):
    bench.open()
    tasks = [bench.begin(name) for name in 'abc']
    assert bench.ask('Well?').error_code == AnswerMsg.ERROR_BUSY
    assert bench.ask('Well?', request_id='a').error_code == AnswerMsg.ERROR_DUPLICATE_REQUEST
    assert bench.finals('a') == [], 'the refusal does not look like the end of the one that runs'
    bench.answering.cancel()
    for task in tasks:
        bench.until(task.done)
    counts = bench.answering.requests.counts
    assert (counts.answered, counts.failed, counts.cancelled) == (0, 1, 3)
    assert counts.turned_away == 1


class Choosy(CannedBackend):
    """Decodes no frame that came after a time."""

    def __init__(self, last_ns):
        super().__init__('canned words')
        self.last_ns, self.asked = last_ns, []

    def _answer(self, question, stream):
        self.asked.append(question)
        (frame,) = question.frames
        if frame.received_ns <= self.last_ns:
            super()._answer(question, stream)
            return
        bad = BadFrame(frame.source, frame.stamp_ns, frame.received_ns, 'damaged')
        failed = Answer.failed(question.request_id, BadImageError("camera 'front': damaged"))
        self._finish(stream, lambda _text: replace(failed, bad_frames=(bad,)))


def choosy(bench, last_ns, *received_ns):
    """Take requests about frames that came at these times; return what answers."""
    backend = Choosy(last_ns)
    bench.answering.backend, bench.answering.closed = backend, ''
    source = FrameSource('front', '/image_raw', 'front_optical_frame')
    frames = [
        StoredFrame(source, ns, CompressedImage('jpeg', b'x'), received_ns=ns)
        for ns in received_ns
    ]
    *bench.camera.older, bench.camera.newest = frames
    return backend


def test_a_damaged_still_costs_no_answer_while_there_is_another(bench):
    backend = choosy(bench, 10, 10, 20, 30)
    answer = bench.ask('How are you?', request_id='r')
    assert answer.text == '1 frames: How are you? '
    assert [q.frames[0].received_ns for q in backend.asked] == [30, 20, 10]
    assert {q.request_id for q in backend.asked} == {'r'}
    assert [bad.received_ns for bad in bench.camera.dropped] == [30, 20]
    (final,) = bench.finals('r')
    assert (final.error_code, final.message) == (0, '')
    assert bench.answering.requests.counts.failed == 0


def test_when_no_good_frame_is_left_that_is_the_error(bench):
    choosy(bench, 5, 10, 20)
    answer = bench.ask('How are you?', request_id='r', timeout_s=0.3)
    assert answer.error_code == AnswerMsg.ERROR_BAD_IMAGE
    assert answer.message.startswith("camera 'front': damaged")
    assert len(bench.finals('r')) == 1


def test_a_camera_that_sends_nothing_but_damage_ends_the_request(bench):
    backend = choosy(bench, 5, *range(10, 400, 10))
    answer = bench.ask('How are you?', request_id='r')
    assert answer.error_code == AnswerMsg.ERROR_BAD_IMAGE
    assert len(backend.asked) == MAX_ATTEMPTS
    assert len(bench.finals('r')) == 1


@pytest.mark.parametrize('end', ['cancel', 'end_all'])
def test_a_request_between_two_attempts_can_be_ended(bench, end):
    backend = choosy(bench, 5, 10)
    task = bench.ask_later('Well?', request_id='r')
    bench.until(lambda: len(bench.waits) == 1)
    assert len(backend.asked) == 1
    if end == 'cancel':
        assert bench.answering.cancel('r') == 1
    else:
        bench.answering.end_all(CancelledError('the node was deactivated'))
    bench.until(task.done)
    assert task.result().answer.error_code == AnswerMsg.ERROR_CANCELLED
    assert len(bench.finals('r')) == 1
    assert not bench.answering.has_replies_to_send


def test_whoever_ends_all_gives_the_reason_and_frees_the_backend(bench):
    backend = bench.open()
    running = bench.begin('a')
    bench.camera.newest = None
    waiting = bench.ask_later('Well?', request_id='b')
    bench.until(lambda: len(bench.waits) == 1)
    bench.answering.end_all(CancelledError('the node was deactivated'))
    for task, name in ((running, 'a'), (waiting, 'b')):
        bench.until(task.done)
        answer = task.result().answer
        assert (answer.error_code, answer.message) == (302, 'the node was deactivated')
        (chunk,) = bench.finals(name)
        assert chunk.message == answer.message
    said = running.result().answer.text
    assert said == ''.join(c.delta for c in bench.publisher.chunks if c.request_id == 'a')
    assert said
    assert backend.cancel() == 0, 'it answers nobody any more'
    assert not bench.answering.has_replies_to_send


def test_a_conversation_goes_on_without_new_frames_until_it_is_reset(bench):
    bench.open()
    assert bench.ask('One', session_id='s').text.startswith('1 frames')
    assert bench.ask('Two', session_id='s').text.startswith('0 frames')
    reset = bench.answering.on_reset_session(
        ResetSession.Request(session_id='s'), ResetSession.Response()
    )
    assert (reset.success, reset.message) == (True, '1 of 1 conversations forgotten')
    assert bench.ask('Three', session_id='s').text.startswith('1 frames')
    assert bench.answering.sessions == ('s',)


def test_describe_asks_a_preset(bench):
    bench.open()

    def describe(**fields):
        request = Describe.Request(**fields)
        return bench.call(bench.answering.on_describe, request, Describe.Response())

    assert describe().text == '1 frames: Describe what you see. '
    unknown = describe(preset='nonsense')
    assert unknown.error_code == AnswerMsg.ERROR_BAD_REQUEST
    assert 'scene' in unknown.message


@pytest.fixture
def action(bench):
    """Serve the action on the plain node; give a client, and what becomes of the goals."""
    handles = []

    async def execute(handle):
        handles.append(handle)
        return await bench.answering.on_goal(handle)

    server = ActionServer(
        bench.node,
        AskAction,
        '~/ask',
        execute,
        callback_group=bench.group,
        cancel_callback=bench.answering.on_cancel_goal,
        result_timeout=900,
    )
    client = ActionClient(bench.node, AskAction, 'plain/ask')
    bench.until(client.server_is_ready)
    yield client, handles
    client.destroy()
    server.destroy()


def test_the_images_of_a_goal_are_freed_when_it_is_answered(bench, action):
    client, handles = action
    bench.open()
    image = Image(encoding='rgb8', width=1, height=1, step=3, data=array('B', b'rgb'))
    sent = client.send_goal_async(AskAction.Goal(question='Well?', images=[image, image]))
    bench.until(lambda: bool(handles) and bool(handles[0].request.images))
    pixels = [weakref.ref(shown.data) for shown in handles[0].request.images]
    bench.until(sent.done)
    result = sent.result().get_result_async()
    bench.until(result.done)
    assert result.result().result.answer.text == '2 frames: Well? '
    # The goal itself stays for as long as its result can be fetched.
    assert (handles[0].request.question, handles[0].request.images) == ('Well?', [])
    gc.collect()
    assert [ref() for ref in pixels] == [None, None]
    again = sent.result().get_result_async()
    bench.until(again.done)
    # As text: a probability that is not known is NaN, which is unlike itself.
    assert str(again.result().result) == str(result.result().result)


def test_a_cancelled_goal_ends_as_one(bench, action):
    client, _ = action
    bench.open()
    feedback = []
    sent = client.send_goal_async(
        AskAction.Goal(question=ENDLESS), lambda m: feedback.append(m.feedback.chunk)
    )
    bench.until(lambda: bool(feedback))
    sent.result().cancel_goal_async()
    result = sent.result().get_result_async()
    bench.until(result.done)
    assert result.result().status == 5  # STATUS_CANCELED
    answer = result.result().result.answer
    bench.until(lambda: feedback[-1].done)
    assert ''.join(chunk.delta for chunk in feedback) == answer.text
    assert (feedback[-1].error_code, feedback[-1].message) == (302, answer.message)


def test_a_look_is_answered_and_nobody_else_hears_of_it(bench):
    bench.open()
    task = bench.look('How are you?', 'watch/w/1')
    bench.until(task.done)
    assert task.result().text == '1 frames: How are you? '
    assert (bench.publisher.chunks, bench.publisher.answers) == ([], [])
    counts = bench.answering.requests.counts
    assert (counts.answered, counts.failed, counts.largest_burst) == (0, 0, 0)
    bench.answering.closed = 'the node is inactive'
    task = bench.look('How are you?', 'watch/w/2')
    bench.until(task.done)
    assert task.result().error_code == AnswerMsg.ERROR_NOT_READY
    assert bench.publisher.chunks == []
    assert counts.failed == 0


def test_a_look_takes_no_room_and_a_cancel_of_all_leaves_it(bench):
    bench.open()
    look = bench.look(ENDLESS, 'watch/w/1')
    bench.until(bench.answering.requests.looks)
    tasks = [bench.begin(f'r{number}') for number in range(3)]
    assert len(bench.answering.requests) == 3
    assert bench.answering.requests.by_turn() == ['r0', 'r1', 'r2']
    assert bench.answering.cancel() == 3
    bench.until(lambda: all(task.done() for task in tasks))
    assert not look.done()
    assert bench.answering.cancel('watch/w/1') == 1
    bench.until(look.done)
    assert look.result().error_code == AnswerMsg.ERROR_CANCELLED


def test_where_nobody_waits_a_look_goes_for_whoever_asks(ros_domain):
    bench = Bench(ros_domain, policy='reject')
    try:
        bench.open()
        look = bench.look(ENDLESS, 'watch/w/1')
        bench.until(bench.answering.requests.looks)
        assert bench.ask('Well?').error_code == 0
        bench.until(look.done)
        assert look.result().error_code == AnswerMsg.ERROR_PREEMPTED
        bench.begin('long')
        assert bench.ask('Well?').error_code == AnswerMsg.ERROR_BUSY
    finally:
        bench.answering.end_all(CancelledError('over'))
        bench.close()


def test_at_the_end_looks_end_too(bench):
    bench.open()
    look = bench.look(ENDLESS, 'watch/w/1')
    bench.until(bench.answering.requests.looks)
    bench.answering.end_all(CancelledError('the node shuts down'))
    bench.until(look.done)
    assert look.result().message == 'the node shuts down'
    assert bench.answering.requests.looks() == []
