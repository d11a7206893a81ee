"""The camera node on the real middleware: what comes is what the file holds, when it is due."""

from __future__ import annotations

import signal
import time

import cv2
import numpy as np
import pytest

pytestmark = [pytest.mark.ros, pytest.mark.slow]

WIDTH, HEIGHT = 64, 48


@pytest.fixture(scope='module')
def stills(tmp_path_factory):
    """Make a folder of images, each of one colour that tells its number."""
    folder = tmp_path_factory.mktemp('stills')
    for i in range(5):
        image = np.full((HEIGHT, WIDTH, 3), (10 * i, 20 * i, 50 * i), np.uint8)  # BGR
        cv2.imwrite(str(folder / f'still_{i}.png'), image)
    return folder


class Watcher:
    """Hears what a camera publishes."""

    def __init__(self, client, topic='image_raw'):
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import CompressedImage, Image, TimeReference

        self.client = client
        self.images, self.times = [], []
        kind = CompressedImage if topic.endswith('compressed') else Image
        node = client.node
        # As cameras are subscribed to: takes from both kinds of publisher.
        best_effort = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
        node.create_subscription(kind, topic, self.images.append, best_effort)
        node.create_subscription(TimeReference, 'camera/media_time', self.times.append, 200)

    def wait_for(self, count):
        self.client.until(lambda: len(self.images) >= count, what=f'{count} images')


def nanoseconds(stamp):
    return stamp.sec * 10**9 + stamp.nanosec


def pixels_of(message):
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, -1)


def test_frames_come_as_they_are_at_their_time_with_their_place_in_the_file(other_robot, stills):
    robot, watcher = other_robot, Watcher(other_robot.client)
    robot.start('camera_main', {'source': stills, 'fps': 5.0, 'loop': 'true'})
    watcher.wait_for(12)
    robot.client.until(lambda: nanoseconds(watcher.times[-1].header.stamp) >= stamps(watcher)[-1])
    media_time = {nanoseconds(t.header.stamp): nanoseconds(t.time_ref) for t in watcher.times}
    for message in watcher.images:
        assert (message.encoding, message.width, message.height) == ('rgb8', WIDTH, HEIGHT)
        assert message.step == 3 * WIDTH
        assert message.header.frame_id == 'camera_optical_frame'
        # A folder's own rate is two images a second: the number of the image follows.
        number = round(media_time[nanoseconds(message.header.stamp)] / 0.5e9)
        assert (pixels_of(message) == (50 * number, 20 * number, 10 * number)).all()
    gaps = np.diff(stamps(watcher)) / 1e9
    assert (gaps > 0).all()
    assert abs(np.median(gaps) - 0.2) < 0.05
    assert watcher.times[0].source == str(stills)


def stamps(watcher):
    return [nanoseconds(message.header.stamp) for message in watcher.images]


def test_other_sizes_encodings_and_transports(other_robot, stills):
    robot = other_robot
    raw = Watcher(robot.client)
    jpeg = Watcher(robot.client, 'image_raw/compressed')
    robot.start(
        'camera_main',
        {
            'source': stills / 'still_4.png',
            'fps': 5.0,
            'encoding': 'bgr8',
            'width': 32,
            'transport': 'both',
            'frame_id': 'front_optical_frame',
            'qos.reliability': 'best_effort',
        },
    )
    raw.wait_for(1)
    jpeg.wait_for(1)
    message = raw.images[0]
    assert (message.encoding, message.width, message.height) == ('bgr8', 32, 24)
    assert (pixels_of(message) == (40, 80, 200)).all()
    assert message.header.frame_id == 'front_optical_frame'
    assert jpeg.images[0].format == 'jpeg'
    pixels = decoded(jpeg.images[0])
    assert pixels.shape == (24, 32, 3)
    assert np.abs(pixels.astype(int) - (40, 80, 200)).max() <= 3


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    """Make a video of six frames, each brighter than the one before."""
    path = tmp_path_factory.mktemp('video') / 'steps.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10.0, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for i in range(6):
        writer.write(np.full((HEIGHT, WIDTH, 3), 40 * i, np.uint8))
    writer.release()
    return path


def test_a_video_in_a_loop_begins_again_and_its_stamps_go_on(other_robot, video):
    robot = other_robot
    watcher = Watcher(robot.client, 'image_raw/compressed')
    robot.start('camera_main', {'source': video, 'transport': 'compressed'}, ['__node:=rear'])
    # Two loops and a half, from wherever in the file the subscription began.
    watcher.wait_for(15)
    assert (np.diff(stamps(watcher)) > 0).all()
    assert {message.header.frame_id for message in watcher.images} == {'rear_optical_frame'}
    shown = [round(decoded(message).mean() / 40) for message in watcher.images]
    assert set(shown) == set(range(6))
    steps = np.diff(shown)
    assert (steps < 0).sum() >= 2
    # Forward by one mostly; a busy machine may skip a frame.
    assert (steps == 1).sum() > len(steps) / 2


def decoded(message):
    return cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)


def test_without_loop_it_ends_with_the_file(other_robot, stills):
    robot, watcher = other_robot, Watcher(other_robot.client)
    parameters = {'source': stills, 'fps': 10.0, 'loop': 'false', 'wait_for_subscriber': 'true'}
    camera = robot.start('camera_main', parameters)
    watcher.wait_for(5)
    assert camera.wait(20) == 0
    assert len(watcher.images) == 5
    assert 'Traceback' not in camera.output()


@pytest.mark.parametrize(
    ('parameters', 'part'),
    [
        ({'source': '/nowhere/clip.mp4'}, '/nowhere/clip.mp4'),
        ({}, 'nothing to play'),
        ({'source': '.', 'encoding': 'rgb99'}, 'rgb99'),
        ({'source': 'pyproject.toml'}, 'pyproject.toml'),
        ({'source': 'launch'}, 'launch'),
    ],
)
def test_what_cannot_be_played_ends_with_status_1(other_robot, parameters, part):
    camera = other_robot.start('camera_main', parameters)
    assert camera.wait(30) == 1
    assert part in camera.output()
    assert 'Traceback' not in camera.output()


def test_ctrl_c_ends_it_with_status_0(other_robot, stills):
    camera = other_robot.start('camera_main', {'source': stills})
    camera.wait_for_output('playing')
    time.sleep(0.3)
    camera.process.send_signal(signal.SIGINT)
    assert camera.wait(20) == 0
    assert 'Traceback' not in camera.output()
