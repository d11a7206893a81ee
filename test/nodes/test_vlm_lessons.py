"""What other nodes got wrong, as tests: many at once about different images, and many images."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.patience import Patience

pytestmark = [pytest.mark.ros, pytest.mark.slow]

SCRIPT = "answers: [{answer: 'I see {images} of {means}.'}]\nlatency: {decode_s: 0.001}"
PARALLEL = 50
CAMERAS = ('a', 'b', 'c', 'd')
BUFFER_MB = 2
SIZE = (160, 120)


def resident_mb(pid):
    fields = Path(f'/proc/{pid}/statm').read_text().split()
    return int(fields[1]) * 4096 / 1e6


@pytest.fixture(scope='module')
def client(robot):
    robot.node = robot.vlm(
        {
            'chip': 'scripted',
            'model': robot.script(SCRIPT),
            'queue_size': PARALLEL,
            'camera_names': f'[{", ".join(CAMERAS)}]',
            'max_age_s': 30.0,
            **{f'cameras.{name}.buffer.megabytes': float(BUFFER_MB) for name in CAMERAS},
            **{f'cameras.{name}.qos.reliability': 'reliable' for name in CAMERAS},
        }
    )
    robot.client.until_state('ready')
    return robot.client


def seen(answer):
    assert answer.error_code == 0, answer.message
    assert answer.text.startswith('I see 1 of '), answer.text
    return float(answer.text.rpartition(' ')[2].rstrip('.'))


def test_fifty_at_once_about_fifty_frames_each_name_their_own(client):
    dark, bright = (seen(client.ask('see', images=[client.grey(b)])) for b in (0, 250))
    futures = {
        number: client.ask_later(
            'see',
            request_id=f'n{number}',
            images=[client.grey(5 * number, number * 10**9 + 7, f'f{number}')],
        )
        for number in range(PARALLEL)
    }
    for number, future in futures.items():
        answer = client.result(future).answer
        assert answer.request_id == f'n{number}'
        (frame,) = answer.frames
        assert (frame.header.stamp.sec, frame.header.frame_id) == (number, f'f{number}')
        assert abs(seen(answer) - dark - (bright - dark) * 5 * number / 250) < 0.02
        chunks = client.all_chunks_of(f'n{number}')
        assert ''.join(chunk.delta for chunk in chunks) == answer.text


def values_of(client, camera):
    status = client.status(f'camera {camera}')
    return {pair.key: pair.value for pair in status.values} if status else {}


LONG = pytest.param(10_000, marks=[pytest.mark.exhaustive, pytest.mark.timeout(1200)], id='more')


@pytest.mark.parametrize('frames', [400, LONG])
def test_four_cameras_as_fast_as_they_send_fill_their_buffers_and_no_more(client, robot, frames):
    """As many of each as the node says it has received; questions are answered meanwhile."""
    from sensor_msgs.msg import Image

    from edge_vlm_ros.nodes import qos

    publishers = {
        name: client.node.create_publisher(Image, f'{name}/image_raw', qos.camera('reliable', 5))
        for name in CAMERAS
    }
    client.until(
        lambda: all(p.get_subscription_count() for p in publishers.values()), what='subscriptions'
    )
    filled_mb = 0.0
    number, patience = 0, Patience(1000.0)
    while received(client) < frames:
        assert not patience.is_over(), f'{received(client)} frames'
        for name, publisher in publishers.items():
            stamp_ns = client.node.get_clock().now().nanoseconds
            publisher.publish(client.grey(number % 250, stamp_ns, name, SIZE))
        client.executor.spin_once(0)
        number += 1
        if number % 100 == 0:
            answer = client.ask('see', cameras=[CAMERAS[number // 100 % 4]])
            assert answer.error_code == 0, answer.message
        if not filled_mb and received(client) > frames / 2:
            filled_mb = resident_mb(robot.node.pid)
    for name in CAMERAS:
        assert 0 < float(values_of(client, name)['buffered_megabytes']) <= BUFFER_MB
    grown_mb = resident_mb(robot.node.pid) - filled_mb
    assert grown_mb < 3 * BUFFER_MB, f'{grown_mb:.1f} MB more after the buffers were full'


def received(client):
    """Return how many frames the camera that sent fewest has sent, as diagnostics say."""
    return min(int(values_of(client, name).get('received', 0)) for name in CAMERAS)
