"""Cameras as robots have them: other QoS, large images, other names, unplugged and back again."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path

import pytest

CLIP = (
    Path(__file__).resolve().parents[2] / 'edge_vlm_ros/demo/clips/box_cone_and_rolling_ball.mp4'
)
SCRIPT = "answers: [{answer: 'I see {images} images of {means}.'}]"
pytestmark = [pytest.mark.ros, pytest.mark.slow]


def stamp_ns(header):
    return header.stamp.sec * 10**9 + header.stamp.nanosec


def value(client, camera, key):
    return {pair.key: pair.value for pair in client.status(f'camera {camera}').values}[key]


def test_publishers_of_every_reliability(other_robot):
    """Best effort takes from both; reliable from a best-effort publisher: reported by name."""
    robot, client = other_robot, other_robot.client
    names = ('from_reliable', 'from_best_effort', 'strict')
    parameters = {f'cameras.{name}.topic': f'/{name}' for name in names}
    client.project('/from_reliable', reliability='reliable')
    client.project('/from_best_effort')
    client.project('/strict')
    robot.vlm(
        {
            'chip': 'scripted',
            'model': robot.script(SCRIPT),
            'camera_names': str(list(names)).replace(' ', ''),
            'max_age_s': 5.0,
            'cameras.strict.qos.reliability': 'reliable',
            **parameters,
        }
    )
    client.until_state('ready')
    for name in names[:2]:
        client.until_frames(name)
        answer = client.ask('see', cameras=[name])
        assert answer.error_code == 0, answer.message
        assert answer.frames[0].topic == f'/{name}'
    client.until(
        lambda: 'cameras.strict.qos.reliability' in client.status('camera strict').message,
        what='the reason',
    )
    assert client.level('camera strict') == 1
    assert 'another reliability' in client.status('camera strict').message
    refused = client.ask('see', cameras=['strict'])
    assert refused.error_code == refused.ERROR_NO_FRAME
    assert 'cameras.strict.qos.reliability' in refused.message
    # A publisher that fits comes: all is well, whatever was said before.
    client.project('/strict', reliability='reliable')
    client.until_frames('strict')
    assert client.ask('see', cameras=['strict']).error_code == 0


def test_images_of_1080p_arrive_with_the_profile_that_ships(other_robot):
    """The processes choose the profile themselves; without it nearly every image is lost."""
    robot, client = other_robot, other_robot.client
    unset = {'FASTDDS_DEFAULT_PROFILES_FILE': '', 'FASTRTPS_DEFAULT_PROFILES_FILE': ''}
    size = {'width': 1920, 'height': 1080}
    robot.start('camera_main', {'source': CLIP, 'fps': 4.0, **size}, env=unset)
    robot.vlm({'chip': 'scripted', 'model': robot.script(SCRIPT), 'max_age_s': 10.0}, env=unset)
    client.until_state('ready')
    client.until_frames()
    before = int(value(client, 'camera', 'received'))
    # 3 s at the camera's rate.
    client.until(lambda: int(value(client, 'camera', 'received')) >= before + 12, 9, 'images')
    still = client.ask('see')
    assert still.text.startswith('I see 1 images'), still.message
    assert (still.frames[0].width, still.frames[0].height) == (1920, 1080)
    clip = client.ask('see', last_seconds=3.0, max_frames=4)
    assert clip.text.startswith('I see 4 images'), clip.message
    mine = client.ask('see', images=[client.grey(200, size=(1920, 1080))])
    assert mine.error_code == 0, mine.message
    assert (mine.frames[0].width, mine.frames[0].height) == (1920, 1080)


def test_other_namespaces_and_other_names(other_robot):
    """Two robots see their own camera; the second one's topics and services have other names."""
    robot = other_robot
    options = {'chip': 'scripted', 'model': robot.script(SCRIPT), 'max_age_s': 5.0}
    robot.vlm(options, ['__ns:=/one'])
    robot.vlm(
        options,
        [
            '__ns:=/two',
            '__node:=brain',
            'image_raw:=/usb_cam/picture',
            'ask:=/talk/question',
            '~/answer:=/talk/words',
        ],
    )
    one, two = robot.new_client('/one'), Other(robot, '/two')
    one.project('image_raw', brightness=20)
    two.client.project('/usb_cam/picture', brightness=220)
    one.until_state('ready')
    one.until_frames()
    dark = one.ask('see', request_id='dark')
    two.client.until(lambda: two.client.level('camera camera', '/two/brain') == 0, what='frames')
    bright = two.ask('see', request_id='bright')
    assert dark.frames[0].topic == '/one/image_raw'
    assert bright.frames[0].topic == '/usb_cam/picture'
    means = [float(answer.text.rpartition(' ')[2].rstrip('.')) for answer in (dark, bright)]
    assert means[0] < 0 < means[1]
    two.client.until(lambda: any(chunk.done for chunk in two.words), what='final chunk')
    assert {chunk.request_id for chunk in two.words} == {'bright'}
    assert {chunk.request_id for chunk in one.chunks} == {'dark'}
    assert two.client.chunks == []


class Other:
    """A client of the node that has other names."""

    def __init__(self, robot, namespace):
        from edge_vlm_ros.msg import AnswerChunk
        from edge_vlm_ros.srv import Ask

        self.client = robot.new_client(namespace)
        self.words = []
        self._type = Ask
        node = self.client.node
        node.create_subscription(AnswerChunk, '/talk/words', self.words.append, 100)
        self._service = node.create_client(Ask, '/talk/question')

    def ask(self, question, **fields):
        self.client.until(self._service.service_is_ready, what='/talk/question')
        request = self._type.Request(question=question, **fields)
        return self.client.result(self._service.call_async(request)).answer


def test_a_camera_is_unplugged_and_plugged_in_again(other_robot):
    robot, client = other_robot, other_robot.client
    node = robot.vlm(
        {
            'chip': 'scripted',
            'model': robot.script(SCRIPT),
            'cameras.camera.transport': 'compressed',
        }
    )
    client.until_state('ready')
    nobody = client.ask('see')
    assert nobody.error_code == nobody.ERROR_NO_FRAME
    assert '/image_raw/compressed' in nobody.message
    stamps = []
    for _ in range(2):
        camera = robot.camera({'transport': 'compressed', 'fps': 5.0})
        client.until_frames()
        answer = client.ask('see', max_age_s=5.0)
        assert answer.error_code == 0, answer.message
        assert answer.header.frame_id == 'camera_optical_frame'
        stamps.append(stamp_ns(answer.header))
        camera.process.kill()
        client.until(lambda: client.level('camera camera') == 1, what='the warning')
        stale = client.ask('see', max_age_s=0.5)
        assert stale.error_code == stale.ERROR_STALE_FRAME
        # Whoever takes an old frame gets it.
        assert client.ask('see', max_age_s=1e6).error_code == 0
    assert stamps[0] < stamps[1]
    assert node.process.poll() is None


def test_bad_images_of_a_camera_are_told_and_the_next_good_one_is_answered(other_robot):
    from sensor_msgs.msg import CompressedImage, Image

    robot, client = other_robot, other_robot.client
    robot.vlm(
        {
            'chip': 'scripted',
            'model': robot.script(SCRIPT),
            'camera_names': "['raw','jpeg']",
            'cameras.jpeg.transport': 'compressed',
            'max_age_s': 0.0,
        }
    )
    raw = client.node.create_publisher(Image, 'raw/image_raw', 5)
    jpeg = client.node.create_publisher(CompressedImage, 'jpeg/image_raw/compressed', 5)
    client.until_state('ready')

    def show(publisher, camera, message):
        client.until(lambda: publisher.get_subscription_count() > 0, what='the subscription')
        client.until(lambda: client.status(f'camera {camera}') is not None)
        before = int(value(client, camera, 'received'))
        message.header.stamp = client.node.get_clock().now().to_msg()
        publisher.publish(message)
        client.until(lambda: int(value(client, camera, 'received')) > before, what='the image')

    short, strange, narrow = client.grey(9), client.grey(9), client.grey(9)
    short.data = short.data[:5]
    strange.encoding = 'klingon8'
    narrow.step = 3
    bad = (Image(encoding='rgb8'), short, strange, narrow)
    for image in bad:
        show(raw, 'raw', image)
        answer = client.ask('see', cameras=['raw'])
        assert answer.error_code == answer.ERROR_BAD_IMAGE, answer.message
        assert "camera 'raw'" in answer.message
    whole = jpeg_of(client)
    spoilt = whole[:200] + bytes(60) + whole[260:]  # to be seen only when it is decoded
    for data in (b'', b'\xff\xd8\xff\xe0 broken', whole[:-40], b'\x89PNG\r\n\x1a\n' + spoilt):
        show(jpeg, 'jpeg', CompressedImage(format='jpeg', data=data))
        answer = client.ask('see', cameras=['jpeg'])
        assert answer.error_code == answer.ERROR_BAD_IMAGE, answer.message
        assert "camera 'jpeg'" in answer.message
    assert int(value(client, 'raw', 'undecodable')) == len(bad)
    # A still takes the good one although bad ones came after it.
    show(raw, 'raw', client.grey(9))
    show(raw, 'raw', Image(encoding='rgb8'))
    answer = client.ask('see', cameras=['raw'])
    assert answer.error_code == 0, answer.message
    assert 'cannot be decoded' in client.status('camera raw').message


def jpeg_of(client, brightness=200):
    """Return a JPEG file of one brightness and some noise."""
    import cv2
    import numpy as np

    noise = np.random.default_rng(brightness).integers(0, 40, (64, 64, 3))
    pixels = np.clip(noise + brightness - 20, 0, 255).astype(np.uint8)
    return cv2.imencode('.jpg', pixels)[1].tobytes()


def png_of(brightness, *, spoilt=False):
    """Return a PNG file; one that is spoilt looks whole, and fails its checksum when decoded."""
    import cv2
    import numpy as np

    data = bytearray(cv2.imencode('.png', np.full((64, 64, 3), brightness, np.uint8))[1].tobytes())
    if spoilt:
        at = data.index(b'IDAT') + 4
        data[at : at + 8] = bytes(8)
    return bytes(data)


def test_damage_that_only_the_decoder_sees_costs_no_answer(other_robot):
    """A clip leaves such frames out and says how many; a still takes the next older one."""
    from sensor_msgs.msg import CompressedImage

    robot, client = other_robot, other_robot.client
    robot.vlm(
        {
            'chip': 'scripted',
            'model': robot.script(SCRIPT),
            'cameras.camera.transport': 'compressed',
            'cameras.camera.topic': '/odd/jpegs',
            'max_age_s': 60.0,
        }
    )
    publisher = client.node.create_publisher(CompressedImage, '/odd/jpegs', 20)
    client.until_state('ready')
    client.until(lambda: publisher.get_subscription_count() > 0, what='the subscription')

    def show(brightness, spoilt):
        before = int(value(client, 'camera', 'received'))
        message = CompressedImage(format='png', data=png_of(brightness, spoilt=spoilt))
        message.header.stamp = client.node.get_clock().now().to_msg()
        publisher.publish(message)
        client.until(lambda: int(value(client, 'camera', 'received')) > before, what='the image')
        return stamp_ns(message.header)

    client.until(lambda: client.status('camera camera') is not None)
    stamps = [show(20 * i, spoilt=i in {2, 4, 5}) for i in range(6)]
    clip = client.ask('see', last_seconds=60.0, max_frames=6)
    assert clip.error_code == 0, clip.message
    assert [stamp_ns(f.header) for f in clip.frames] == [stamps[0], stamps[1], stamps[3]]
    assert clip.text.startswith('I see 3 images')
    assert clip.message.startswith('3 of 6 frames could not be decoded: ')
    assert clip.header.stamp == clip.frames[-1].header.stamp
    client.until(lambda: value(client, 'camera', 'undecodable') == '3', what='the count')
    still = client.ask('see')
    assert (still.error_code, still.message) == (0, '')
    assert stamp_ns(still.header) == stamps[3]

    # A new one is damaged: found out by the question itself, which takes the one before.
    show(200, spoilt=True)
    still = client.ask('see')
    assert still.error_code == 0, still.message
    assert stamp_ns(still.header) == stamps[3]
    assert [c.done for c in client.all_chunks_of(still.request_id)][-1:] == [True]
    client.until(lambda: value(client, 'camera', 'undecodable') == '4', what='the count')
    again = client.ask('see', max_age_s=0.001)
    assert again.error_code in {again.ERROR_STALE_FRAME, again.ERROR_BAD_IMAGE}


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_camera_that_nobody_watches_ends_in_order_too(other_robot, number):
    camera = other_robot.camera({'wait_for_subscriber': 'true'})
    camera.wait_for_output('playing')
    time.sleep(0.2)
    with contextlib.suppress(ProcessLookupError):
        camera.process.send_signal(number)
    assert camera.wait(10) == 0
    assert 'Traceback' not in camera.output()
