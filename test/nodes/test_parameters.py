"""Parameters: declared, described, read into settings; what makes no sense is named."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.ros
rclpy = pytest.importorskip('rclpy')
pytest.importorskip('edge_vlm_ros.msg')

from edge_vlm_ros.core import CHIPS, BadRequestError  # noqa: E402
from edge_vlm_ros.nodes.declaring import (  # noqa: E402
    ParameterTable,
    Rule,
    SettingsError,
    nested_names,
)
from edge_vlm_ros.nodes.parameters import (  # noqa: E402
    PRESETS,
    declare_parameters,
    read_preset,
    read_settings,
)
from edge_vlm_ros.nodes.remote_parameters import RemoteSettings  # noqa: E402
from edge_vlm_ros.nodes.request_parameters import read_request_defaults  # noqa: E402
from edge_vlm_ros.remote.options import RemoteOptions  # noqa: E402

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
    declare_parameters(ParameterTable(node))
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
            '-p', "camera_names:=['front','rear']",
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
        ("camera_names:=['front door']", 'front door'),
        ("camera_names:=['a','a']", 'twice'),
        ('chip:=toaster', 'toaster'),
        ('cameras.camera.transport:=smoke', 'smoke'),
        ('cameras.camera.qos.reliability:=maybe', 'maybe'),
        ('cameras.camera.range_16bit:=[5]', r'range_16bit.*65535.*\[5\]'),
        ('cameras.camera.range_16bit:=[9, 5]', r'range_16bit.*\[9, 5\]'),
        ('cameras.camera.range_16bit:=[0, 70000]', '70000'),
        ("engine_options:=['speed']", 'speed'),
        ("preset_names:=['scene','mood']", 'mood'),
        ('ahead_mode:=perhaps', 'off, encode, prefill'),
        ('ahead_mode:=true', 'off, encode, prefill'),
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
    two = ['-p', "camera_names:=['front','rear']"]
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


IN_QUOTES = """(in quotes it is a text: '7' in a file, "'7'" in a shell)"""
IDS = 'a list of whole numbers from 0 to 255, as [0, 1]'
POLICIES = 'reject, queue, replace_oldest, preempt'
NO_NAME = 'is no name (a letter, then letters, digits and _)'
GONE = 'is no parameter any more: write'
STAY = '<name> and what is below it stay as they are)'
NO_TOPIC = (
    'is no topic: topic name must not contain characters other than alphanumerics, '
    "'_', '~', '{', or '}'"
)


@pytest.mark.parametrize(
    ('argument', 'line'),
    [
        ('max_age_s:=-1', 'max_age_s takes a number from 0 to 1e9, not -1'),
        ('max_age_s:=.nan', 'max_age_s takes a number from 0 to 1e9, not nan'),
        ('max_age_s:=soon', "max_age_s takes a number from 0 to 1e9, not 'soon'"),
        ('max_frames:=8.5', 'max_frames takes a whole number from 1 to 256, not 8.5'),
        ('max_frames:=0', 'max_frames takes a whole number from 1 to 256, not 0'),
        ('autostart:=1', 'autostart takes true or false, not 1'),
        ('model:=7', f'model takes a text, not 7 {IN_QUOTES}'),
        ('device_ids:=[a]', f"device_ids takes {IDS}, not ['a']"),
        ('device_ids:=[]', f'device_ids takes {IDS}, not []'),
        ('queue_policy:=lifo', f"queue_policy takes one of {POLICIES}, not 'lifo'"),
        ('camera_names:=a,b', f"camera_names: 'a,b' {NO_NAME}; a list is written ['a', 'b']"),
        ('preset_names:=[a-b]', f"preset_names: 'a-b' {NO_NAME}"),
        ('cameras:=front', f"cameras {GONE} camera_names: ['front'] (cameras.{STAY}"),
        ('cameras:=[a, b]', f"cameras {GONE} camera_names: ['a', 'b'] (cameras.{STAY}"),
        ('presets:=[path]', f"presets {GONE} preset_names: ['path'] (presets.{STAY}"),
        ("presets.scene:=' '", "presets.scene: ' ' is empty: a preset needs a question"),
        ('cameras.camera.topic:=a b', f"cameras.camera.topic: 'a b' {NO_TOPIC}"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_line_with_name_value_and_what_is_taken(make_node, argument, line):
    with pytest.raises(SettingsError) as refused:
        declared(make_node('-p', argument))
    assert str(refused.value) == line


def test_whole_numbers_are_taken_for_numbers_and_single_values_for_lists(make_node):
    arguments = [
        'max_age_s:=2', 'cameras.front.buffer.megabytes:=3', 'camera_names:=front',
        'device_ids:=1', 'engine_options:=threads=2', 'model_dirs:=[]',
    ]  # fmt: skip
    node = make_node(*(word for argument in arguments for word in ('-p', argument)))
    settings = declared(node)
    assert repr(read_request_defaults(node).max_age_s) == '2.0'
    assert [camera.name for camera in settings.cameras] == ['front']
    assert settings.cameras[0].buffer_bytes == 3_000_000
    assert settings.device_ids == (1,)
    assert settings.engine_options == (('threads', 2),)
    assert settings.model_dirs == ()


def test_values_that_make_no_sense_together_are_refused(make_node):
    with pytest.raises(SettingsError, match=r'frame_wait_s is 1.0 and timeout_s 0.5'):
        declared(make_node('-p', 'timeout_s:=0.5'))
    declared(make_node('-p', 'timeout_s:=0'))
    declared(make_node('-p', 'timeout_s:=0.5', '-p', 'frame_wait_s:=0.5'))


def test_unknown_names_are_named_with_what_was_meant(make_node):
    arguments = ['max_age:=2.0', 'cameras.rear.topic:=x', 'zzz:=1', 'max_tokens:=7']
    node = make_node(*(word for argument in arguments for word in ('-p', argument)))
    table = ParameterTable(node)
    declare_parameters(table)
    said = []
    node.get_logger = lambda: SimpleNamespace(warning=said.append)
    table.warn_of_unknown()
    (line,) = said
    assert line == (
        'parameters that do not exist are ignored: cameras.rear.topic (camera_names does not name '
        "'rear'), max_age (is max_age_s meant?), zzz"
    )


GIVEN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=300),
    st.lists(st.integers(-5, 300)),
    st.lists(st.text(max_size=5)),
    st.lists(st.floats()),
    st.lists(st.booleans()),
)
RULES = [
    Rule('wanted', 1.0, 0.0, 10.0),
    Rule('wanted', 1, 0, 10),
    Rule('wanted', default=True),
    Rule('wanted', ''),
    Rule('wanted', 'a', choices=('a', 'b')),
    Rule('wanted', ['']),
    Rule('wanted', [0], 0, 255),
]


@given(GIVEN, st.sampled_from(RULES))
def test_a_value_comes_out_in_its_parameters_type_or_one_line_says_why_not(value, rule):
    try:
        taken, refusal = rule.taken(value), ''
    except SettingsError as error:
        taken, refusal = None, str(error)
    if refusal:
        assert refusal.startswith('wanted takes ')
        assert len(refusal.splitlines()) == 1
        assert len(refusal) < 400
        return
    items = taken if isinstance(taken, list) else [taken]
    default = rule.default if isinstance(taken, list) else [rule.default]
    assert type(taken) is type(rule.default)
    assert items
    assert {type(item) for item in items} == {type(default[0])}
    assert rule.low is None or all(rule.low <= item <= rule.high for item in items)
    assert not rule.choices or taken in rule.choices
    assert rule.taken(taken) == taken, 'what was dumped can be loaded'


def test_a_name_that_is_value_and_prefix_is_found():
    names = ['cameras', 'cameras.front.topic', 'camera_names', 'a.b', 'a.b.c', 'a.bc']
    assert nested_names(names) == [('a.b', 'a.b.c'), ('cameras', 'cameras.front.topic')]


def test_servers_become_options_of_chip_remote_alone(make_node):
    words = ['-p', "remote.servers:=['http://a:8000/v1', 'https://b/v1']", '-p', 'model:=large']
    words += ['-p', 'remote.api_key_env:=THE_KEY', '-p', "engine_options:=['parallel=2']"]
    settings = declared(make_node('-p', 'chip:=remote', *words))
    spec = settings.spec()
    assert (spec.chip, spec.model) == ('remote', 'large')
    assert settings.servers == ('http://a:8000/v1', 'https://b/v1')
    assert spec.options['servers'] == 'http://a:8000/v1,https://b/v1'
    assert (spec.options['api_key_env'], spec.options['parallel']) == ('THE_KEY', 2)
    assert 'order' not in spec.options
    local = declared(make_node('-p', 'chip:=cpu', *words))
    assert (local.servers, local.spec().options) == ((), {'parallel': 2})


def test_a_chip_beside_the_servers_is_one_of_this_machine(make_node):
    spec = declared(make_node('-p', 'chip:=remote', '-p', 'remote.fallback_chip:=cpu')).spec()
    assert (spec.options['fallback_chip'], spec.options['order']) == ('cpu', 'remote_then_local')
    with pytest.raises(SettingsError, match=r'remote\.fallback_chip takes one of'):
        declared(make_node('-p', 'remote.fallback_chip:=remote'))


def test_what_stands_for_itself_in_the_parameters_is_what_the_servers_have_by_default():
    options = RemoteOptions()
    for name, value in RemoteSettings().options().items():
        assert getattr(options, name) == value, name


@pytest.mark.parametrize(
    ('value', 'part'),
    [
        ("remote.servers:=['gpu-box']", 'is no address of a server'),
        ("remote.servers:=['https://me:hush@a']", 'a user or a password'),
        ('remote.api_key_env:=sk-hush', 'is the name of an environment variable'),
    ],
)
def test_a_key_in_a_parameter_is_refused_without_being_repeated(make_node, value, part):
    with pytest.raises(SettingsError) as caught:
        declared(make_node('-p', value))
    assert part in str(caught.value)
    assert 'hush' not in str(caught.value)
