"""Parameters that are set while the node runs: judged as a whole, and never set in part."""

from __future__ import annotations

import warnings

import pytest

pytestmark = pytest.mark.ros
rclpy = pytest.importorskip('rclpy')
pytest.importorskip('edge_vlm_ros.msg')

from rclpy.parameter import Parameter  # noqa: E402

from edge_vlm_ros.nodes.vlm_node import VlmNode  # noqa: E402

GOOD = {'max_age_s': 5.0, 'max_tokens': 7}


@pytest.fixture
def node(ros_domain):
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain, args=[])
    with warnings.catch_warnings():
        # The message generator, imported with the first message, imports old modules.
        warnings.simplefilter('ignore', DeprecationWarning)
        made = VlmNode(context=context)
    yield made
    made.destroy_node()
    context.try_shutdown()


def asked(**values):
    return [Parameter(name, value=value) for name, value in values.items()]


def values_of(node):
    return {name: node.get_parameter(name).value for name in node.get_parameters_by_prefix('')}


WRONG = {
    'out of range': ({'max_frames': 0}, 'max_frames takes a whole number from 1 to 256, not 0'),
    'of another type': ({'timeout_s': 'long'}, "timeout_s takes a number from 0 to 1e6, not 'lo"),
    'not a number': (
        {'timeout_s': float('nan')},
        'timeout_s takes a number from 0 to 1e6, not na',
    ),
    'empty preset': ({'presets.scene': ' '}, "presets.scene: ' ' is empty"),
    'long text': ({'system_prompt': 'a' * 70_000}, 'has 70000 bytes, the limit is 65536'),
    'unknown': ({'max_age': 2.0}, 'there is no parameter max_age (is max_age_s meant?)'),
    'fixed': ({'chip': 'scripted'}, "chip is fixed while the node runs: it is 'cpu', and 'scrip"),
    'fixed by rclpy': ({'start_type_description_service': False}, 'is fixed while the node runs'),
    'together': ({'frame_wait_s': 200.0}, 'frame_wait_s is 200.0 and timeout_s 120.0'),
    'together, one new': (
        {'frame_wait_s': 20.0, 'timeout_s': 10.0},
        'frame_wait_s is 20.0 and timeout_s 10.0',
    ),
}


@pytest.mark.parametrize('case', WRONG)
def test_where_one_is_wrong_nothing_is_set(node, case):
    wrong, reason = WRONG[case]
    if not all(map(node.has_parameter, wrong)) and 'max_age' not in wrong:
        pytest.skip('this distribution has no such parameter')
    before = values_of(node)
    parameters = asked(**GOOD, **wrong)
    result = node.set_parameters_atomically(parameters)
    assert not result.successful
    assert reason in result.reason
    assert len(result.reason.splitlines()) == 1
    results = node.set_parameters(parameters)
    assert [each.successful for each in results] == [False] * len(parameters)
    assert reason in results[-1].reason
    assert next(iter(wrong)) in results[0].reason
    assert values_of(node) == before


def test_what_is_right_together_is_set_together(node):
    both = asked(frame_wait_s=200.0, timeout_s=300.0)
    assert [result.successful for result in node.set_parameters(both)] == [True, True]
    assert (node.defaults().frame_wait_s, node.defaults().timeout_s) == (200.0, 300.0)
    assert node.set_parameters_atomically(asked(frame_wait_s=1.0, timeout_s=2.0)).successful
    assert node.defaults().timeout_s == 2.0


def test_a_whole_number_is_taken_for_a_number(node):
    assert node.set_parameters_atomically(asked(max_age_s=5)).successful
    assert repr(node.get_parameter('max_age_s').value) == '5.0'


def test_what_is_there_already_may_be_set_again(node):
    before = values_of(node)
    everything = [node.get_parameter(name) for name in before]
    assert node.set_parameters_atomically(everything).successful
    assert all(result.successful for result in node.set_parameters(everything))
    assert values_of(node) == before


def test_judging_changes_nothing(node):
    before = values_of(node)
    assert node.parameters.judge({'max_age_s': 9, 'device_ids': 0}) == {
        'max_age_s': 9.0,
        'device_ids': [0],
    }
    assert values_of(node) == before
