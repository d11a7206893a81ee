"""`ros2 vlm`: its words do with a running node what those of `edge-vlm` do with files."""

from __future__ import annotations

import json
import signal
import sys

import pytest
from support.patience import Patience

pytestmark = [pytest.mark.ros, pytest.mark.slow]

STORY = ' '.join(map(str, range(1000)))
SCRIPT = f"""
answers:
  - {{question: door, answer: 'The door is open.'}}
  - {{question: Describe, answer: 'A room.'}}
  - {{question: long, answer: '{STORY}'}}
  - {{answer: 'yes'}}
latency: {{decode_s: 0.005}}
limits: {{context_tokens: 8192}}
"""


@pytest.fixture(scope='module')
def ready(robot):
    """A vlm node in a namespace and a camera that it sees."""
    robot.camera({'width': 64}, ['__ns:=/robot1'])
    robot.vlm(
        {'chip': 'scripted', 'model': robot.script(SCRIPT), 'frame_wait_s': 30.0},
        ['__ns:=/robot1'],
    )
    client = robot.new_client('/robot1')
    client.until_state('ready')
    return robot


def ros2_vlm(robot, *words):
    return robot.run('ros2_vlm', [sys.executable, '-m', 'edge_vlm_ros.ros2vlm', *words])


def test_an_answer_comes_as_text_or_as_one_object(ready):
    plain = ros2_vlm(ready, 'ask', 'Is the door open?', '--stats')
    as_json = ros2_vlm(ready, 'ask', 'Is it?', '--yes-no', '--json', '--last', '1')
    assert plain.wait(60) == 0, plain.output()
    assert 'The door is open.\n' in plain.output()
    assert 'camera, 64x48, ' in plain.output()
    assert as_json.wait(60) == 0, as_json.output()
    answer = json.loads(as_json.output())
    assert (answer['choice'], answer['error_code_name']) == ('yes', 'NONE')
    assert len(answer['frames']) > 1


def test_words_that_belong_to_the_node(ready):
    described = ros2_vlm(ready, 'describe', '--node', 'robot1/vlm')
    unknown = ros2_vlm(ready, 'describe', 'no such preset')
    assert described.wait(60) == 0, described.output()
    assert 'A room.' in described.output()
    assert unknown.wait(60) == 2, unknown.output()
    assert 'no such preset' in unknown.output()
    cancelled = ros2_vlm(ready, 'cancel')
    assert cancelled.wait(60) == 0, cancelled.output()
    assert '0 of 0 requests cancelled' in cancelled.output()


def test_ctrl_c_takes_the_question_back_and_says_what_there_was(ready):
    asked = ros2_vlm(ready, 'ask', 'A long story, please.')
    asked.wait_for_output('10 11 12')
    asked.signal(signal.SIGINT)
    assert asked.wait(60) == 130, asked.output()
    assert 'the question was taken back' in asked.output()
    assert '999' not in asked.output()


def test_a_watch_is_set_followed_listed_and_removed(ready):
    words = ['--question', 'Is there a dog?', '--period', '0.3', '--once']
    once = ros2_vlm(ready, 'watch', 'dog', *words)
    assert once.wait(60) == 0, once.output()
    assert 'dog begin: ' in once.output()
    listed = ros2_vlm(ready, 'watch', '--list', '--json')
    assert listed.wait(60) == 0, listed.output()
    (state,) = map(json.loads, listed.output().splitlines())
    assert (state['spec']['name'], state['event_on']) == ('dog', True)
    wrong = ros2_vlm(ready, 'watch', 'no name', *words)
    assert wrong.wait(60) == 2, wrong.output()
    removed = ros2_vlm(ready, 'watch', 'dog', '--remove')
    assert removed.wait(60) == 0, removed.output()
    unknown = ros2_vlm(ready, 'watch', 'dog', '--remove')
    assert unknown.wait(60) == 2, unknown.output()


def test_a_node_that_is_not_there_is_named(ready):
    missing = ros2_vlm(ready, 'ask', 'Is it?', '--node', '/robot2/vlm', '--wait', '1')
    assert missing.wait(60) == 3, missing.output()
    assert 'nothing answers at /robot2/vlm/ask (waited 1 s)' in missing.output()


def test_of_two_nodes_one_must_be_chosen(ready):
    other = ready.vlm({'chip': 'scripted', 'model': ready.script(SCRIPT)}, ['__ns:=/robot2'])
    ready.new_client('/robot2').until_state('ready')
    patience = Patience(60.0)
    while True:  # Until a new process, too, hears of both at once.
        asked = ros2_vlm(ready, 'ask', 'Is it?')
        if asked.wait(60) == 3 or patience.is_over():
            break
    assert '2 vlm nodes run: choose with --node /robot1/vlm or /robot2/vlm' in asked.output()
    other.stop()


def test_the_words_that_need_no_node_are_those_of_edge_vlm(other_robot):
    models = ros2_vlm(other_robot, 'models', '--chip', 'cpu', '--json')
    assert models.wait(60) == 0, models.output()
    assert {'demo'} <= {model['name'] for model in json.loads(models.output())}
    nobody = ros2_vlm(other_robot, 'ask', 'Is it?', '--wait', '0.5')
    assert nobody.wait(60) == 3, nobody.output()
    assert f'ROS_DOMAIN_ID is {other_robot.domain}' in nobody.output()
