"""Parameters: declared, described, read into settings; what makes no sense is named."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

pytestmark = pytest.mark.ros
rclpy = pytest.importorskip('rclpy')
pytest.importorskip('edge_vlm_ros.msg')

from edge_vlm_ros.core import CHIPS, BadRequestError  # noqa: E402
from edge_vlm_ros.nodes.declaring import SettingsError  # noqa: E402
from edge_vlm_ros.nodes.parameters import (  # noqa: E402
    PRESETS,
    declare_parameters,
    read_preset,
    read_request_defaults,
    read_settings,
)

CONFIG = Path(__file__).resolve().parents[2] / 'config'


@pytest.fixture
def make_node(ros_domain):
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    nodes = []

    def make(*arguments):
        with warnings.catch_warnings():
            # The message generator, imported with the first message, imports old modules.
            warnings.simplefilter('ignore', DeprecationWarning)
            words = ['--ros-args', *arguments]
            nodes.append(rclpy.create_node('vlm', context=context, cli_args=words))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    context.try_shutdown()


def declared(node):
    declare_parameters(node)
    return read_settings(node)


def test_defaults_are_one_camera_and_the_shipped_model(make_node):
    node = make_node()
    settings = declared(node)
    assert (settings.chip, settings.model, settings.device_ids) == ('cpu', '', (0,))
    (camera,) = settings.cameras
    assert (camera.name, camera.topic, camera.transport) == ('camera', 'image_raw', 'raw')
    assert settings.presets == tuple(PRESETS)
    assert read_preset(node, settings, '') == PRESETS['scene']
    assert read_request_defaults(node).max_frames == 8
    assert read_request_defaults(node).frame_wait_s == 1.0


def test_each_camera_has_its_own(make_node):
    settings = declared(
        make_node(
            '-p', "cameras:=['front','rear']",
            '-p', 'cameras.front.topic:=/f/image',
            '-p', 'cameras.rear.transport:=compressed',
            '-p', 'cameras.rear.buffer.megabytes:=1.5',
            '-p', 'cameras.rear.qos.reliability:=reliable',
        )
    )  # fmt: skip
    front, rear = settings.cameras
    assert front.topic == '/f/image'
    assert rear.topic == 'rear/image_raw/compressed'
    assert (rear.buffer_bytes, rear.reliability) == (1_500_000, 'reliable')


@pytest.mark.parametrize('topic', ['/jpegs', '/f/image_raw', '/f/image_raw/compressed'])
@pytest.mark.parametrize('transport', ['raw', 'compressed'])
def test_a_topic_that_is_set_is_subscribed_as_it_stands(make_node, topic, transport):
    arguments = [f'cameras.camera.topic:={topic}', f'cameras.camera.transport:={transport}']
    (camera,) = declared(make_node('-p', arguments[0], '-p', arguments[1])).cameras
    assert camera.topic == topic


def test_the_range_of_16_bit_images_is_two_numbers_or_nothing(make_node):
    (camera,) = declared(make_node()).cameras
    assert camera.range16 == (0, 0)
    name = 'cameras.camera.range_16bit'
    (camera,) = declared(make_node('-p', f'{name}:=[20000, 24000]')).cameras
    assert camera.range16 == (20_000, 24_000)


@pytest.mark.parametrize('chip', [chip.name for chip in CHIPS])
def test_the_shipped_files_are_taken(make_node, chip):
    files = [str(CONFIG / f'{name}.yaml') for name in ('vlm', chip)]
    settings = declared(make_node('--params-file', files[0], '--params-file', files[1]))
    assert settings.chip == chip


@pytest.mark.parametrize(
    ('argument', 'part'),
    [
        ("cameras:=['front door']", 'front door'),
        ("cameras:=['a','a']", 'twice'),
        ('chip:=toaster', 'toaster'),
        ('cameras.camera.transport:=smoke', 'smoke'),
        ('cameras.camera.qos.reliability:=maybe', 'maybe'),
        ('cameras.camera.range_16bit:=[5]', r'range_16bit.*65535.*\[5\]'),
        ('cameras.camera.range_16bit:=[9, 5]', r'range_16bit.*\[9, 5\]'),
        ('cameras.camera.range_16bit:=[0, 70000]', '70000'),
        ("engine_options:=['speed']", 'speed'),
        ("presets:=['scene','mood']", 'mood'),
        ('ahead_mode:=perhaps', 'off, encode, prefill'),
        ('ahead_mode:=on', 'off, encode, prefill'),
        ("ahead.cameras:=['camera','side']", 'side.*camera'),
        ("ahead.cameras:=['camera+camera']", 'twice'),
        ("ahead.cameras:=['camera','camera']", 'twice'),
    ],
)
def test_what_makes_no_sense_is_named(make_node, argument, part):
    with pytest.raises(SettingsError, match=part):
        declared(make_node('-p', argument))


def test_engine_options_are_numbers_where_they_are_whole(make_node):
    node = make_node('-p', "engine_options:=['threads=2','resize=fast','scale=1.5','a=b=c']")
    options = dict(declared(node).engine_options)
    assert options == {'threads': 2, 'resize': 'fast', 'scale': '1.5', 'a': 'b=c'}


@pytest.mark.parametrize(
    ('argument', 'mode'),
    [('', 'off'), ('off', 'off'), ("'off'", 'off'), ('encode', 'encode'), ('prefill', 'prefill')],
)
def test_off_is_a_word_even_where_yaml_takes_it_for_a_false(make_node, argument, mode):
    words = ['-p', f'ahead_mode:={argument}'] if argument else []
    settings = declared(make_node(*words))
    assert settings.ahead.mode == mode
    assert settings.ahead.is_on == (mode != 'off')


def test_what_is_watched_is_the_first_camera_or_what_is_said(make_node):
    two = ['-p', "cameras:=['front','rear']"]
    assert declared(make_node(*two)).ahead.watches == (('front',),)
    said = ['-p', "ahead.cameras:=['rear','front + rear']", '-p', 'ahead.frames:=4']
    ahead = declared(make_node(*two, *said)).ahead
    assert ahead.watches == (('rear',), ('front', 'rear'))
    assert ahead.window().frames == 4


def test_the_backend_is_told_its_share_and_how_long_a_conversation_lives(make_node):
    words = ['-p', 'ahead.duty:=0.25', '-p', 'ahead.live_s:=7.5']
    serving = declared(make_node(*words)).serving()
    assert (serving.ahead_duty, serving.live_s) == (0.25, 7.5)


def test_an_unknown_preset_lists_the_known(make_node):
    node = make_node()
    settings = declared(node)
    with pytest.raises(BadRequestError, match='scene, path'):
        read_preset(node, settings, 'mood')
