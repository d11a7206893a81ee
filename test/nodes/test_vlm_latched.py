"""Pictures that are sent once and kept for late subscribers, as maps are: transient local."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.ros, pytest.mark.slow]

SCRIPT = """
answers:
  - answer: '{images} seen'
"""


@pytest.fixture
def publisher(other_robot):
    """Keep pictures on /map_picture."""
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from sensor_msgs.msg import Image

    keep = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    return other_robot.client.node.create_publisher(Image, '/map_picture', keep)


def start(robot, **more):
    robot.vlm(
        {
            'chip': 'scripted',
            'model': robot.script(SCRIPT),
            'cameras.camera.topic': '/map_picture',
            'cameras.camera.qos.durability': 'transient_local',
            **more,
        }
    )
    robot.client.until_state('ready')


def message(client):
    status = client.status('camera camera')
    return status.message if status is not None else ''


def test_a_picture_that_was_sent_before_is_taken_and_is_as_old_as_its_stamp(
    other_robot, publisher
):
    client = other_robot.client
    now_ns = client.node.get_clock().now().nanoseconds
    publisher.publish(client.grey(200, now_ns - 3600 * 10**9))
    start(other_robot)
    answer = client.ask('see', max_age_s=1e6)
    assert answer.text == '1 seen', answer.message
    assert 3600 <= answer.frames[0].age_s < 7200
    refused = client.ask('see')
    assert refused.error_code == refused.ERROR_STALE_FRAME
    client.until(lambda: 'questions that say nothing of max_age_s are refused' in message(client))


def test_where_any_age_will_do_a_kept_picture_is_no_warning(other_robot, publisher):
    client = other_robot.client
    publisher.publish(client.grey(200, client.node.get_clock().now().nanoseconds))
    start(other_robot, max_age_s=0)
    assert client.ask('see').text == '1 seen'
    client.until(lambda: client.status('camera camera') is not None)
    client.spin(3.0)  # Any other camera would be said to have stopped by now.
    assert client.level('camera camera') == 0, message(client)


def test_a_kept_picture_is_there_again_after_time_went_back(other_robot, publisher):
    from builtin_interfaces.msg import Time
    from rclpy.qos import QoSProfile
    from rosgraph_msgs.msg import Clock

    client = other_robot.client
    clock = client.node.create_publisher(Clock, '/clock', QoSProfile(depth=10))
    publisher.publish(client.grey(200, 5 * 10**9))
    seconds = [1000]
    client.node.create_timer(0.05, lambda: clock.publish(Clock(clock=Time(sec=seconds[0]))))
    start(other_robot, use_sim_time='true', max_age_s=0, frame_wait_s=30.0)
    # Not before the node has heard what time it is.
    client.until(
        lambda: (answer := client.ask('see')).text == '1 seen' and answer.frames[0].age_s >= 990
    )
    seconds[0] = 100
    client.until(
        lambda: (again := client.ask('see')).text == '1 seen' and again.frames[0].age_s < 900
    )


def test_a_volatile_publisher_is_named_as_the_cause(other_robot):
    from sensor_msgs.msg import Image

    from edge_vlm_ros.nodes import qos

    client = other_robot.client
    events = qos.no_publisher_events()
    volatile = client.node.create_publisher(Image, '/map_picture', 5, event_callbacks=events)
    start(other_robot, frame_wait_s=0.0)
    said = 'another durability than the transient_local asked for (parameter cameras.camera.qos.d'
    client.until(lambda: said in message(client))
    assert said in client.ask('see').message
    del volatile
