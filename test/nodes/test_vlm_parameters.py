"""Parameters of running nodes: dumped, loaded and started from, as `ros2 param` does it.

ros2cli is not on PyPI; what it does over the parameter services is done here: list, get, write
YAML with dots as maps, set, and start with the file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from edge_vlm_ros.nodes.declaring import nested_names

ROOT = Path(__file__).resolve().parents[2]
CLIP = ROOT / 'edge_vlm_ros' / 'demo' / 'clips' / 'box_cone_and_rolling_ball.mp4'

pytestmark = [pytest.mark.ros, pytest.mark.slow]

SCRIPT = """
answers:
  - answer: '{images} seen'
"""
VLM = {
    'chip': 'scripted',
    'camera_names': '[front, rear, twin]',
    'cameras.front.topic': '/shared',
    'cameras.twin.topic': '/shared',
    'cameras.twin.qos.reliability': 'reliable',
    'cameras.rear.qos.durability': 'transient_local',
    'qos_overrides./vlm/answer.publisher.depth': 700,
    'preset_names': '[scene, mood]',
    'presets.mood': 'Is it calm?',
    'system_prompt': "'on'",
    'max_age_s': 3,
    'model_dirs': '[]',
}


class Parameters:
    """The parameter services of a node."""

    def __init__(self, client, node):
        from rcl_interfaces import srv

        self.client, self.srv = client, srv
        self._clients = {
            kind: client.node.create_client(getattr(srv, kind), f'{node}/{service}')
            for kind, service in {
                'ListParameters': 'list_parameters',
                'GetParameters': 'get_parameters',
                'DescribeParameters': 'describe_parameters',
                'SetParameters': 'set_parameters',
                'SetParametersAtomically': 'set_parameters_atomically',
            }.items()
        }

    def call(self, kind, **fields):
        service = self._clients[kind]
        self.client.until(service.service_is_ready, what=kind)
        return self.client.result(service.call_async(getattr(self.srv, kind).Request(**fields)))

    def names(self):
        return sorted(self.call('ListParameters').result.names)

    def values(self):
        from rclpy.parameter import parameter_value_to_python

        names = self.names()
        values = self.call('GetParameters', names=names).values
        assert len(values) == len(names)
        found = dict(zip(names, map(parameter_value_to_python, values), strict=True))
        lists = (list, tuple)
        return {n: list(v) if hasattr(v, 'typecode') or isinstance(v, lists) else v
                for n, v in found.items()}  # fmt: skip

    def set(self, values, kind='SetParameters'):
        from rclpy.parameter import Parameter

        parameters = [Parameter(n, value=v).to_parameter_msg() for n, v in values.items()]
        answer = self.call(kind, parameters=parameters)
        return answer.results if kind == 'SetParameters' else answer.result


def dumped(node, values):
    """Write what `ros2 param dump` prints."""
    tree = {}
    for name, value in values.items():
        *above, last = name.split('.')
        inner = tree
        for part in above:
            inner = inner.setdefault(part, {})
        assert last not in inner, f'{name} is a value and holds others'
        inner[last] = value
    return yaml.safe_dump({node: {'ros__parameters': tree}}, default_flow_style=False)


@pytest.fixture(params=['vlm', 'camera'])
def started(request, other_robot):
    """Start a node of either kind; give its name, its process and how it was started."""
    name = request.param
    if name == 'vlm':
        module, given = 'vlm_main', {**VLM, 'model': other_robot.script(SCRIPT)}
    else:
        module, given = 'camera_main', {'source': CLIP, 'fps': 5, 'transport': 'both'}
    return name, module, other_robot.start(module, given)


def test_what_was_dumped_can_be_loaded_and_started_from(started, other_robot):
    name, module, process = started
    parameters = Parameters(other_robot.client, name)
    if name == 'vlm':
        other_robot.client.until_state('ready')
    before = parameters.values()
    assert nested_names(before) == []
    text = dumped(f'/{name}', before)
    results = parameters.set(before)
    assert [result.reason for result in results if not result.successful] == []
    assert parameters.set(before, 'SetParametersAtomically').successful
    assert parameters.values() == before
    assert process.stop() == 0
    path = other_robot.script(text, 'dumped.yaml')
    words = [sys.executable, '-m', f'edge_vlm_ros.nodes.{module}', '--ros-args']
    again = other_robot.run('again', [*words, '--params-file', path])
    client = other_robot.new_client()
    client.until(lambda: client.node.count_publishers('/parameter_events') >= 2)
    if name == 'vlm':
        client.until_state('ready')
    assert Parameters(client, name).values() == before
    assert 'WARN' not in again.output()


def test_a_set_over_the_services_holds_as_a_whole_or_not_at_all(other_robot):
    client = other_robot.client
    other_robot.vlm({'chip': 'scripted', 'model': other_robot.script(SCRIPT)})
    client.until_state('ready')
    parameters = Parameters(client, 'vlm')
    before = parameters.values()
    first, second = parameters.set({'max_tokens': 7, 'max_frames': 0})
    assert (first.successful, second.successful) == (False, False)
    assert first.reason == 'not set, for max_frames of the same set was refused'
    assert second.reason == 'max_frames takes a whole number from 1 to 256, not 0'
    wrong = {'max_tokens': 7, 'frame_wait_s': 200.0}
    refused = parameters.set(wrong, 'SetParametersAtomically')
    assert not refused.successful
    assert 'frame_wait_s is 200.0 and timeout_s 120.0' in refused.reason
    assert parameters.values() == before
    # The first could not be set without the second; whole numbers are taken for numbers.
    results = parameters.set({'frame_wait_s': 200, 'timeout_s': 300})
    assert [result.reason for result in results if not result.successful] == []
    assert parameters.values() == {**before, 'frame_wait_s': 200.0, 'timeout_s': 300.0}


def test_every_parameter_is_described_and_every_number_has_a_range(started, other_robot):
    from rcl_interfaces.msg import ParameterType

    parameters = Parameters(other_robot.client, started[0])
    ours = [n for n in parameters.names() if n != 'start_type_description_service']
    found = parameters.call('DescribeParameters', names=ours).descriptors
    assert len(found) == len(ours)
    assert [d.name for d in found if not d.description and d.name != 'use_sim_time'] == []
    numbers = [
        d for d in found
        if d.type in {ParameterType.PARAMETER_INTEGER, ParameterType.PARAMETER_DOUBLE}
    ]  # fmt: skip
    assert len(numbers) > 5
    assert [d.name for d in numbers if not d.integer_range and not d.floating_point_range] == []


def test_overrides_of_qos_are_taken_by_the_middleware(other_robot):
    robot, client = other_robot, other_robot.client
    robot.vlm(
        {
            'chip': 'scripted',
            'model': robot.script(SCRIPT),
            'qos_overrides./image_raw.subscription.reliability': 'reliable',
            'qos_overrides./vlm/answer_text.publisher.durability': 'transient_local',
        }
    )
    client.until_state('ready')
    values = Parameters(client, 'vlm').values()
    assert values['cameras.camera.qos.reliability'] == 'reliable', 'both say the same'
    assert values['qos_overrides./image_raw.subscription.history'] == 'keep_last'
    client.until(lambda: client.node.get_subscriptions_info_by_topic('/image_raw'))
    (camera,) = client.node.get_subscriptions_info_by_topic('/image_raw')
    (texts,) = client.node.get_publishers_info_by_topic('/vlm/answer_text')
    (chunks,) = client.node.get_publishers_info_by_topic('/vlm/answer')
    assert camera.qos_profile.reliability.name == 'RELIABLE'
    assert texts.qos_profile.durability.name == 'TRANSIENT_LOCAL'
    assert chunks.qos_profile.durability.name == 'VOLATILE', 'one override changes one topic'


WRONG_STARTS = [
    ('vlm_main', 'max_frames:=0', 'max_frames takes a whole number from 1 to 256, not 0'),
    ('vlm_main', 'cameras:=front', "write camera_names: ['front']"),
    ('vlm_main', 'preset_names:=[a-b]', "preset_names: 'a-b' is no name"),
    ('vlm_main', 'chip:=toaster', 'chip takes one of cpu, scripted, bm1684x, bm1688, ax650, ax63'),
    ('vlm_main', 'use_sim_time:=1', "'use_sim_time' to '1' of type 'INTEGER', expecting type 'BO"),
    ('vlm_main', 'max_frames:=[1, a]', 'max_frames:=[1, a]'),
    ('vlm_main', 'qos_overrides./vlm/state.publisher.depth:=deep', 'depth takes a whole number'),
    ('camera_main', 'source:=0', "source takes a text, not 0 (in quotes it is a text: '0' in a f"),
    ('camera_main', 'fps:=fast', "fps takes a number from 0 to 1000, not 'fast'"),
    (
        'camera_main',
        'transport:=smoke',
        "transport takes one of raw, compressed, both, not 'sm",
    ),
    ('camera_main', 'qos.reliability:=maybe', 'qos.reliability takes one of best_effort, reliabl'),
]


def test_a_wrong_value_ends_the_start_with_one_line(other_robot):
    started = [
        (other_robot.run('wrong', [
            sys.executable, '-m', f'edge_vlm_ros.nodes.{module}', '--ros-args', '-p', argument,
        ]), said)
        for module, argument, said in WRONG_STARTS
    ]  # fmt: skip
    for process, said in started:
        assert process.wait() == 1
        (line,) = process.output().splitlines()
        assert said in line


def test_a_parameter_file_that_cannot_be_read_is_one_line(other_robot):
    broken = other_robot.script('a: [1', 'broken.yaml')
    for path in ('/nowhere/mine.yaml', str(broken)):
        words = [sys.executable, '-m', 'edge_vlm_ros.nodes.vlm_main', '--ros-args']
        process = other_robot.run('unread', [*words, '--params-file', path])
        assert process.wait() == 1
        (line,) = process.output().splitlines()
        assert path in line


def test_a_name_that_does_not_exist_is_a_warning_with_the_nearest(other_robot):
    process = other_robot.start('camera_main', {'sources': CLIP, 'elsewhere.whole': 2})
    assert process.wait() == 1
    assert 'are ignored: elsewhere.whole, sources (is source meant?)' in process.output()
