"""The examples do what they say, with a real node."""

from __future__ import annotations

import sys

import pytest

pytestmark = [pytest.mark.ros, pytest.mark.slow]

SCRIPT = """
answers:
  - {question: blocked, answer: 'free'}
  - {question: Describe, answer: 'A room.'}
  - {question: see, answer: 'A dog. It runs'}
limits: {samples_on_chip: true, has_logits: false}
"""


def example(robot, name):
    return robot.run(name, [sys.executable, '-m', f'edge_vlm_ros.examples.{name}'])


def vlm(robot):
    model = robot.script(SCRIPT)
    return robot.vlm({'chip': 'scripted', 'model': model, 'frame_wait_s': 5.0})


def test_the_robot_goes_only_while_fresh_answers_say_that_the_way_is_free(other_robot):
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from std_msgs.msg import Bool

    robot, client = other_robot, other_robot.client
    said = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    topic = '/stop_while_blocked/stop'
    client.node.create_subscription(Bool, topic, lambda m: said.append(m.data), latched)
    example(robot, 'stop_while_blocked')
    client.until(lambda: said == [True], what='stop, while there is no node')
    node, camera = vlm(robot), robot.camera({'width': 64})
    client.until(lambda: said == [True, False], what='go')
    camera.stop()
    client.until(lambda: said == [True, False, True], what='stop: the camera is dead')
    robot.camera({'width': 64})
    client.until(lambda: said == [True, False, True, False], what='go again')
    node.stop()
    client.until(lambda: said[-1] is True, what='stop: the node is gone')
    vlm(robot)
    client.until(lambda: said[-1] is False, what='go: it is there again')


def test_what_waits_for_the_model_begins_when_it_is_ready(other_robot):
    waits = example(other_robot, 'wait_for_ready')
    vlm(other_robot)
    other_robot.camera({'width': 64})
    waits.wait_for_output('ready')
    waits.wait_for_output('A room.')


def test_speech_is_hinted_asked_and_said_in_sentences(other_robot):
    from edge_vlm_ros.msg import Hint
    from std_msgs.msg import Bool, String

    client, node = other_robot.client, other_robot.client.node
    vlm(other_robot)
    other_robot.camera({'width': 64})
    hints, said = [], []
    node.create_subscription(Hint, '/vlm/hint', hints.append, 10)
    node.create_subscription(String, '/say', lambda m: said.append(m.data), 10)
    voice = node.create_publisher(Bool, '/voice_activity', 10)
    speech = node.create_publisher(String, '/speech', 10)
    example(other_robot, 'talk')
    client.until_state('ready')
    client.until(lambda: voice.get_subscription_count() and speech.get_subscription_count())

    def hint():
        voice.publish(Bool(data=True))
        client.spin(0.2)
        return hints

    client.until(hint, what='a hint')
    assert hints[0].session_id == 'voice'

    def ask():
        speech.publish(String(data='What do you see?'))
        client.spin(1.0)
        return 'A dog.' in said and 'It runs' in said

    client.until(ask, what='the answer in sentences')
