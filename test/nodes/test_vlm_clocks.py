"""Cameras whose clocks are off, over the real middleware: what arrives counts, and all is told."""

from __future__ import annotations

import time

import pytest

pytestmark = [pytest.mark.ros, pytest.mark.slow]

SECOND = 10**9
HOURS_3 = 3 * 3600 * SECOND
SCRIPT = "answers: [{answer: 'I see {images} images.'}]"
OFFSETS = {
    'ahead': 20 * SECOND,
    'behind': -HOURS_3,
    'somewhat': -120 * SECOND,
    'boot': -time.time_ns() + 60 * SECOND,
    'late': -30 * SECOND,
}


@pytest.fixture(scope='module')
def cameras(robot):
    """Start a node with one camera for each clock, and one with two publishers."""
    names = [*OFFSETS, 'both']
    parameters = {
        'chip': 'scripted',
        'model': robot.script(SCRIPT),
        'camera_names': str(names).replace(' ', ''),
        'max_age_s': 4.0,
        **{f'cameras.{name}.topic': f'/{name}' for name in names},
    }
    client = robot.client
    shown = {name: client.project(f'/{name}', clock=clock(off)) for name, off in OFFSETS.items()}
    shown['both'] = client.project('/both')
    shown['both too'] = client.project('/both', clock=clock(-HOURS_3), brightness=9)
    robot.vlm(parameters)
    client.until_state('ready')
    for name in names:
        client.until(lambda name=name: received(client, name) > 40, what=f'frames of {name}')
    return shown


@pytest.fixture
def client(robot, cameras):
    return robot.client


def clock(offset_ns):
    return lambda: time.time_ns() + offset_ns


def received(client, camera):
    return int(values(client, camera).get('received', 0))


def values(client, camera):
    status = client.status(f'camera {camera}')
    return {} if status is None else {pair.key: pair.value for pair in status.values}


def stamp_ns(header):
    return header.stamp.sec * SECOND + header.stamp.nanosec


@pytest.mark.parametrize('name', ['ahead', 'behind', 'somewhat', 'boot'])
def test_a_live_camera_with_another_clock_is_answered_and_its_offset_told(client, name):
    offset_s = OFFSETS[name] / SECOND
    answer = client.ask('see', cameras=[name], last_seconds=2.0, max_frames=8)
    assert answer.error_code == 0, answer.message
    assert len(answer.frames) == 8
    assert all(0 <= frame.age_s < 4.5 for frame in answer.frames)
    assert answer.stats.newest_frame_age_s < 4.0
    # The stamp is the camera's own.
    assert stamp_ns(answer.header) / SECOND == pytest.approx(time.time() + offset_s, abs=30)
    assert not answer.stats.window_truncated
    long = client.ask('see', cameras=[name], last_seconds=600.0, max_frames=8)
    assert long.stats.window_truncated
    assert float(values(client, name)['clock_offset_s']) == pytest.approx(offset_s, abs=5)
    status = client.status(f'camera {name}')
    assert client.level(f'camera {name}') == 1
    assert ('ahead of' if offset_s > 0 else 'behind') in status.message


def test_what_may_be_late_images_is_refused_and_never_called_well(client):
    answer = client.ask('see', cameras=['late'])
    assert answer.error_code == answer.ERROR_STALE_FRAME, answer.message
    assert '30.' in answer.message
    assert 'late' in answer.message
    assert client.level('camera late') == 1
    taken = client.ask('see', cameras=['late'], last_seconds=2.0, max_frames=8, max_age_s=60.0)
    assert taken.error_code == 0, taken.message
    assert len(taken.frames) == 8
    assert all(30 <= frame.age_s < 60 for frame in taken.frames)


def test_two_publishers_with_two_clocks_empty_no_buffer(client):
    answer = client.ask('see', cameras=['both'], last_seconds=2.0, max_frames=16)
    assert answer.error_code == 0, answer.message
    now_ns = time.time_ns()
    old = [now_ns - stamp_ns(f.header) > HOURS_3 / 2 for f in answer.frames]
    assert len(old) > 8
    assert all(frame.age_s < 4.5 for frame in answer.frames)
    assert set(old) == {True, False}
    assert not answer.stats.window_truncated


def test_a_dead_camera_whose_stamps_are_ahead_is_stale(client, cameras):
    cameras['ahead'].is_on = False
    try:
        client.spin(8.0)
        answer = client.ask('see', cameras=['ahead'], max_age_s=4.0)
        assert answer.error_code == answer.ERROR_STALE_FRAME, answer.message
        assert 'has stopped sending' in answer.message
        old = client.ask('see', cameras=['ahead'], max_age_s=1e6)
        assert old.error_code == 0, old.message
        assert old.frames[0].age_s >= 8.0
        assert old.stats.newest_frame_age_s >= 8.0
        assert client.level('camera ahead') == 1
    finally:
        cameras['ahead'].is_on = True


def test_causes_that_the_graph_knows_are_named(other_robot):
    """Another type on the topic, a picture that was sent before: each its own sentence."""
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from sensor_msgs.msg import CompressedImage, Image

    robot, client = other_robot, other_robot.client
    node = client.node
    raw = node.create_publisher(CompressedImage, '/squeezed', 5)
    squeezed = node.create_publisher(Image, '/plain', 5)
    keep = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    latched = node.create_publisher(Image, '/map_picture', keep)
    latched.publish(client.grey(9))
    names = {'one': '/squeezed', 'two': '/plain', 'three': '/map_picture', 'four': 'image_raw'}
    process = robot.vlm(
        {
            'chip': 'scripted',
            'model': robot.script(SCRIPT),
            'camera_names': str(list(names)).replace(' ', ''),
            **{f'cameras.{name}.topic': topic for name, topic in names.items()},
            'cameras.two.transport': 'compressed',
            'frame_wait_s': 0.0,
        },
        ['image_raw:=/usb_cam/picture'],
    )
    fourth = node.create_publisher(Image, '/usb_cam/picture', 5)
    client.until_state('ready')
    causes = {
        'one': 'CompressedImage, not sensor_msgs/msg/Image (set cameras.one.transport',
        'two': 'Image, not sensor_msgs/msg/CompressedImage (set cameras.two.transport',
        'three': 'set cameras.three.qos.durability to transient_local',
        'four': 'nothing arrives',
    }
    for name, cause in causes.items():
        client.until(
            lambda name=name, cause=cause: (
                client.status(f'camera {name}') is not None
                and cause in client.status(f'camera {name}').message
            ),
            what=f'the cause of {name}',
        )
        answer = client.ask('see', cameras=[name])
        assert answer.error_code == answer.ERROR_NO_FRAME
        assert cause in answer.message
        assert ('512 KB' in answer.message) == (name == 'four')
    # Once in the log, for cameras that have never sent.
    client.until(lambda: all(cause in process.output() for cause in causes.values()))
    client.spin(3.0)
    assert all(process.output().count(cause) == 1 for cause in causes.values())
    del raw, squeezed, fourth
