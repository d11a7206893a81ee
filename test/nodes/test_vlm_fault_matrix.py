"""The table of faults through the node: one reply, one final chunk, and the next answer is right.

Which engine it is makes no difference here: `test/serving/test_fault_matrix.py` has the three.
Deaths and hangs are fewer than there, for the node waits longer after each.
"""

from __future__ import annotations

import contextlib
import os
import signal
from array import array
from pathlib import Path

import pytest
from support import broken
from support.broken.order import Order, give, go
from support.broken.table import TABLE

pytestmark = [pytest.mark.ros, pytest.mark.slow]

WAITING = ('crash', 'hang', 'damage', 'cancel')
STALL_S = 6.0
CELLS = [
    (stage, kind)
    for stage, codes in TABLE.items()
    if stage not in {'load', 'close'}
    for kind in codes
    if kind != 'hang' or stage in {'prefill', 'between chunks'}
]
IN_EVERY_RUN = {
    ('decode image', 'error'),
    ('decode image', 'panic'),
    ('encode', 'wrong'),
    ('prefill', 'crash'),
    ('first token', 'memory'),
    ('between chunks', 'error'),
    ('between chunks', 'crash'),
}


def cells():
    for cell in CELLS:
        name = '-'.join(cell)
        if cell in IN_EVERY_RUN:
            yield pytest.param(*cell, id=name)
        else:
            yield pytest.param(*cell, marks=pytest.mark.exhaustive, id=f'more-{name}')


def children_of(pid):
    """Return the ids of a process's children."""
    files = Path(f'/proc/{pid}/task').glob('*/children')
    return [int(word) for file in files for word in file.read_text().split()]


@pytest.fixture(scope='module')
def client(robot):
    robot.order = robot.folder / 'order.json'
    site = broken.install(robot.folder / 'site')
    parameters = {
        'chip': 'broken-scripted',
        'model': robot.script("answers: [{answer: 'I see {images} of {means}.'}]"),
        'camera_names': f'[{", ".join(WAITING)}]',
        'frame_wait_s': 120.0,
        'engine_stall_s': STALL_S,
    }
    path = os.pathsep.join([str(site), str(Path(broken.__file__).parents[2])])
    robot.node = robot.vlm(
        parameters,
        env={
            'PYTHONPATH': os.pathsep.join([path, os.environ.get('PYTHONPATH', '')]),
            **broken.environment(robot.order),
        },
    )
    client = robot.client
    client.until_state('ready')
    client.right = client.ask('see', images=[client.grey(90)]).text
    assert client.right.startswith('I see 1 of ')
    return client


def check(client, robot, request_id, answer, code):
    assert answer.error_code == code, answer.message
    assert bool(answer.message) == (code != 0)
    chunks = client.all_chunks_of(request_id)
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
    assert ''.join(chunk.delta for chunk in chunks) == answer.text
    assert (chunks[-1].error_code, chunks[-1].message) == (code, answer.message)
    assert client.ask('see', images=[client.grey(90)]).text == client.right
    assert len(children_of(robot.node.pid)) == 1
    client.until_state('ready')


@pytest.mark.parametrize(('stage', 'kind'), cells())
def test_every_fault_in_every_stage_is_one_reply_and_the_next_is_right(client, robot, stage, kind):
    request_id = f'{stage} {kind}'
    # Of a size of its own: its features are not kept from before.
    image = client.grey(90, size=(9, 9 + CELLS.index((stage, kind))))
    waits = stage == 'between chunks'
    if (stage, kind) == ('decode image', 'error'):
        image.data = image.data[:5]
    else:
        give(Order('decode' if waits else stage, kind, 2 * waits, waits), robot.order)
    future = client.ask_later('see', request_id=request_id, images=[image])
    if waits:
        client.until(lambda: client.chunks_of(request_id), what='a word')
        go(robot.order)
    answer = client.result(future, 120).answer
    assert not robot.order.exists(), 'the fault was met'
    check(client, robot, request_id, answer, TABLE[stage][kind])
    assert bool(answer.text) == (waits or answer.error_code == 0)


def show(client, camera, until, *, is_damaged=False):
    """Send a frame of a camera until something is so: the first ones may be lost."""
    from sensor_msgs.msg import Image

    from edge_vlm_ros.nodes import qos

    publisher = client.node.create_publisher(
        Image, f'{camera}/image_raw', qos.camera('best_effort', 5)
    )
    client.until(publisher.get_subscription_count, what='the subscription')
    image = client.grey(90, client.node.get_clock().now().nanoseconds)
    if is_damaged:
        image.data = array('B', image.data[:5])

    def is_so():
        publisher.publish(image)
        return until()

    client.until(is_so, 120)
    client.node.destroy_publisher(publisher)


def waiting(client):
    """Return what diagnostics say of who waits."""
    status = client.status('queue')
    return ' '.join(pair.value for pair in status.values) if status else ''


def damaged(client, camera):
    """Return whether diagnostics have counted a frame of a camera as damaged."""
    status = client.status(f'camera {camera}')
    values = {pair.key: pair.value for pair in status.values} if status else {}
    return int(values.get('undecodable', 0)) > 0


@pytest.mark.parametrize('kind', WAITING)
def test_a_fault_while_a_request_waits_for_a_frame_costs_it_nothing(client, robot, kind):
    request_id = f'waiting {kind}'
    future = client.ask_later('see', request_id=request_id, cameras=[kind])
    client.until(lambda: request_id in waiting(client), what='it in the queue')
    (model,) = children_of(robot.node.pid)
    if kind == 'crash':
        os.kill(model, signal.SIGKILL)
    elif kind == 'hang':
        os.kill(model, signal.SIGSTOP)
    elif kind == 'cancel':
        client.until(lambda: client.cancel(request_id).cancelled == 1, what='the cancel')
        check(client, robot, request_id, client.result(future).answer, 302)
        return
    else:
        show(client, kind, lambda: damaged(client, kind), is_damaged=True)
        assert not future.done(), 'another frame may come'
    show(client, kind, lambda: request_id not in waiting(client))
    if kind == 'hang':
        with contextlib.suppress(ProcessLookupError):  # It may be taken for dead by now.
            os.kill(model, signal.SIGCONT)
    answer = client.result(future, 120).answer
    check(client, robot, request_id, answer, 0)
    assert (answer.text, [frame.camera for frame in answer.frames]) == (client.right, [kind])
