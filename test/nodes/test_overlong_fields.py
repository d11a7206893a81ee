"""A field of 20 MB is refused, and the refusal repeats none of it: every text of every request."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.ros
rclpy = pytest.importorskip('rclpy')
pytest.importorskip('edge_vlm_ros.msg')

from edge_vlm_ros.action import Ask as AskAction  # noqa: E402
from edge_vlm_ros.srv import Ask, Cancel, Describe, ResetSession  # noqa: E402
from rclpy.serialization import serialize_message  # noqa: E402
from rosidl_parser.definition import (  # noqa: E402
    AbstractNestedType,
    NamespacedType,
    UnboundedString,
)
from sensor_msgs.msg import Image  # noqa: E402
from support.answering_bench import Bench  # noqa: E402

from edge_vlm_ros.core import SteadyClock, clipped_name  # noqa: E402
from edge_vlm_ros.nodes.camera_parameters import declare_camera, read_camera  # noqa: E402
from edge_vlm_ros.nodes.cameras import CameraFeed, time_of  # noqa: E402
from edge_vlm_ros.nodes.declaring import ParameterTable  # noqa: E402

HUGE = 'x' * (20 << 20)
SMALL = 20_000
"""Bytes of all that goes out, far above what an honest refusal has."""
TAKEN = {'preset': 'no preset'}
"""What is said of a name that is only looked up."""


def texts_of(kind, path=()):
    """List the text fields of a message, those of the messages within it, too.

    Returns:
        For each a path of names; an empty one stands for the first entry of a list.
    """
    found = []
    for name, slot_type in zip(kind.get_fields_and_field_types(), kind.SLOT_TYPES, strict=True):
        slot, here = slot_type, (*path, name)
        if isinstance(slot, AbstractNestedType):
            slot, here = slot.value_type, (*here, '')
        if isinstance(slot, UnboundedString):
            found.append(here)
        elif isinstance(slot, NamespacedType):
            found += texts_of(message_of(slot), here)
    return found


def message_of(slot):
    module = __import__('.'.join(slot.namespaces), fromlist=[slot.name])
    return getattr(module, slot.name)


def filled(kind, path, value):
    """Return a message with a text somewhere within it; all else would do."""
    message = kind()
    for name in ('question', 'system_prompt'):
        if hasattr(message, name):
            setattr(message, name, 'see')
    put(message, path, value)
    return message


def put(message, path, value):
    name, rest = path[0], path[1:]
    if rest[:1] == ('',):  # A list.
        entry = value
        if rest[1:]:
            slots = dict(
                zip(message.get_fields_and_field_types(), message.SLOT_TYPES, strict=True)
            )
            entry = message_of(slots[name].value_type)()
            put(entry, rest[1:], value)
        setattr(message, name, [entry])
    elif rest:
        put(getattr(message, name), rest, value)
    else:
        setattr(message, name, value)


def cases(kind):
    return [pytest.param(path, id='.'.join(filter(None, path))) for path in texts_of(kind)]


def size(*messages):
    return sum(len(serialize_message(message)) for message in messages)


@pytest.fixture(scope='module')
def bench(request):
    from support.domains import own_domain

    with own_domain() as domain:
        bench = Bench(domain)
        bench.open()
        yield bench
        bench.close()


def check_refused(bench, reply, path):
    answer = reply.answer
    assert not reply.success
    assert answer.error_code in {answer.ERROR_BAD_REQUEST, answer.ERROR_UNKNOWN_CAMERA}
    assert 'the limit is' in answer.message or TAKEN.get(path[0], '?') in answer.message
    chunks = bench.publisher.chunks
    assert [chunk.done for chunk in chunks] == [True]
    assert size(reply, *chunks, *bench.publisher.answers) < SMALL
    assert chunks[0].request_id == answer.request_id


def run(bench, coroutine):
    bench.publisher.chunks.clear()
    bench.publisher.answers.clear()
    task = bench.executor.create_task(coroutine)
    bench.until(task.done)
    return task.result()


def test_the_fields_that_are_tried_are_all_there_are():
    paths = {'.'.join(filter(None, path)) for path in texts_of(Ask.Request)}
    assert {'question', 'request_id', 'cameras', 'choices', 'images.header.frame_id'} <= paths
    assert {'images.encoding', 'compressed_images.format', 'system_prompt'} <= paths
    assert texts_of(Ask.Request) == texts_of(AskAction.Goal)


@pytest.mark.parametrize('path', cases(Ask.Request))
def test_no_field_of_a_question_comes_back(bench, path):
    request = filled(Ask.Request, path, HUGE)
    check_refused(bench, run(bench, bench.answering.on_ask(request, Ask.Response())), path)


@pytest.mark.parametrize('path', cases(Describe.Request))
def test_no_field_of_describe_comes_back(bench, path):
    request = filled(Describe.Request, path, HUGE)
    check_refused(
        bench, run(bench, bench.answering.on_describe(request, Describe.Response())), path
    )


@pytest.mark.parametrize('closed', [True, False])
def test_a_name_that_is_too_long_is_answered_by_its_beginning(bench, closed):
    """Whatever the refusal is about: the names stand in every answer."""
    bench.answering.closed = 'the node is closed' if closed else ''
    try:
        request = Ask.Request(question='see', request_id=HUGE, session_id=HUGE)
        reply = run(bench, bench.answering.on_ask(request, Ask.Response()))
    finally:
        bench.answering.closed = ''
    assert reply.answer.request_id == reply.answer.session_id == 'x' * 256 + '…'
    assert size(reply, *bench.publisher.chunks) < SMALL


def test_cancel_and_reset_repeat_nothing(bench):
    cancelled = bench.answering.on_cancel(Cancel.Request(request_id=HUGE), Cancel.Response())
    reset = bench.answering.on_reset_session(
        ResetSession.Request(session_id=HUGE), ResetSession.Response()
    )
    assert (cancelled.cancelled, reset.success) == (0, False)
    assert size(cancelled, reset) < SMALL


def test_a_camera_frame_with_a_long_frame_id_is_kept_under_its_beginning(bench):
    """Each chunk of an answer about it repeats the frame_id."""
    node = bench.node
    declare_camera(ParameterTable(node), 'front', 'image_raw')
    settings = read_camera(node, 'front')
    feed = CameraFeed(node, settings, time_of(node, SteadyClock()), bench.group, lambda: None)
    publisher = node.create_publisher(Image, 'image_raw', 1)
    image = Image(encoding='mono8', width=1, height=1, step=1, data=[7])
    image.header.frame_id = 'x' * 100_000
    try:
        bench.until(lambda: publisher.publish(image) or feed.newest is not None)
        assert feed.newest.source.frame_id == 'x' * 256 + '…'
    finally:
        feed.close()


@pytest.mark.parametrize('name', ['', 'front', 'x' * 256, 'ä' * 128, '世' * 85, 'x' * 255 + 'y'])
def test_a_name_within_the_limit_is_left_alone(name):
    assert clipped_name(name) == name


@pytest.mark.parametrize('name', ['x' * 257, 'ä' * 129, '世' * 86, '🤖' * 65, HUGE])
def test_a_longer_one_is_cut_between_letters_and_nobodys(name):
    cut = clipped_name(name)
    assert cut.endswith('…')
    assert name.startswith(cut[:-1])
    assert 256 < len(cut.encode()) <= 256 + len('…'.encode())
