"""A question that comes before its frame waits for it, over the real middleware."""

from __future__ import annotations

import re
import signal

import pytest

pytestmark = [pytest.mark.ros, pytest.mark.slow]

SCRIPT = "answers: [{answer: 'I see {images} images.'}]"
LONG_S = 30.0
"""Longer than any test here waits: what ends sooner was ended by something else."""


@pytest.fixture(scope='module')
def client(robot):
    parameters = {
        'chip': 'scripted',
        'model': robot.script(SCRIPT),
        'camera_names': "['front','dead']",
        'cameras.front.topic': 'image_raw',
        'frame_wait_s': LONG_S,
        'queue_size': 3,
    }
    robot.node = robot.vlm(parameters)
    robot.client.until_state('ready')
    return robot.client


def later(client, request_id, **fields):
    """Ask about the camera that never sends; return the future once the request waits."""
    future = client.ask_later('see', request_id=request_id, **{'cameras': ['dead'], **fields})
    client.spin(0.5)
    assert not future.done()
    return future


def ended(client, future, request_id):
    """Return the answer of a request that ended with one final chunk, before its time."""
    answer = client.result(future, LONG_S / 2).answer
    assert [chunk.done for chunk in client.all_chunks_of(request_id)] == [True]
    return answer


def set_frame_wait(client, seconds):
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
    from rcl_interfaces.srv import SetParameters

    setter = client.node.create_client(SetParameters, 'vlm/set_parameters')
    client.until(setter.service_is_ready)
    value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=seconds)
    request = SetParameters.Request(parameters=[Parameter(name='frame_wait_s', value=value)])
    (result,) = client.result(setter.call_async(request)).results
    assert result.successful


@pytest.fixture
def frame_wait(client):
    """Set the parameter for one test."""
    yield lambda seconds: set_frame_wait(client, seconds)
    set_frame_wait(client, LONG_S)


def test_a_question_waits_for_the_first_frame_and_for_a_camera_that_comes_back(client, robot):
    early = later(client, 'early', cameras=[])
    assert client.cancel('nobody').cancelled == 0, 'other services answer meanwhile'
    camera = robot.camera()
    answer = client.result(early).answer
    assert (answer.text, answer.frames[0].camera) == ('I see 1 images.', 'front'), answer.message
    stats = answer.stats
    assert 0.4 < stats.frame_wait_s <= stats.queue_s <= stats.time_to_first_token_s
    assert stats.newest_frame_age_s == 0, 'the frame is newer than the question'
    assert 0 < stats.newest_frame_age_at_first_token_s < stats.time_to_first_token_s
    assert sum(chunk.done for chunk in client.all_chunks_of('early')) == 1
    client.until_frames('front')
    assert client.ask('see').stats.frame_wait_s == 0

    camera.process.send_signal(signal.SIGSTOP)
    try:
        client.spin(1.0)
        back = client.ask_later('see', request_id='back', max_age_s=0.8)
        client.spin(0.5)
        assert not back.done()
    finally:
        camera.process.send_signal(signal.SIGCONT)
    answer = client.result(back).answer
    assert answer.text == 'I see 1 images.', answer.message
    assert answer.stats.frame_wait_s > 0.3
    assert answer.frames[0].age_s == 0


def test_no_frame_in_time_is_refused_with_the_time_waited(client, frame_wait):
    frame_wait(0.5)
    answer = client.ask('see', cameras=['dead'], request_id='none')
    assert answer.error_code == answer.ERROR_NO_FRAME
    assert '/dead/image_raw' in answer.message
    assert re.search(r'waited \d+\.\d', answer.message)
    assert 0.5 <= answer.stats.frame_wait_s < LONG_S / 2
    assert [chunk.done for chunk in client.all_chunks_of('none')] == [True]


def test_a_wait_of_0_s_refuses_at_once(client, frame_wait):
    frame_wait(0.0)
    answer = client.ask('see', cameras=['dead'])
    assert answer.error_code == answer.ERROR_NO_FRAME
    assert 'waited' not in answer.message
    assert answer.stats.frame_wait_s == 0


def test_no_request_waits_longer_than_its_own_timeout(client):
    answer = client.ask('see', cameras=['dead'], timeout_s=0.4)
    assert answer.error_code == answer.ERROR_NO_FRAME
    assert 0.4 <= answer.stats.frame_wait_s < LONG_S / 2


def test_a_time_that_is_over_is_not_waited_for(client):
    from builtin_interfaces.msg import Time

    now = client.node.get_clock().now().nanoseconds // 10**9
    answer = client.ask('see', cameras=['dead'], as_of=Time(sec=now - 5))
    assert answer.error_code == answer.ERROR_NO_FRAME
    assert answer.stats.frame_wait_s == 0


def test_what_could_not_be_answered_anyway_is_refused_at_once(client):
    answer = client.ask(' ', cameras=['dead'])
    assert answer.error_code == answer.ERROR_BAD_REQUEST


def test_a_waiting_request_is_cancelled_by_its_id_and_with_all_others(client):
    one, other = later(client, 'c1'), later(client, 'c2')
    assert client.cancel('c1').cancelled == 1
    assert ended(client, one, 'c1').error_code == 302
    assert not other.done()
    # The same id may come again at once.
    again = client.ask_later('see', request_id='c1', cameras=['dead'])
    client.spin(0.3)
    assert client.cancel().cancelled == 2
    for future in (other, again):
        assert client.result(future, LONG_S / 2).answer.error_code == 302
    assert sum(chunk.done for chunk in client.all_chunks_of('c1')) == 2
    assert client.cancel().cancelled == 0


def test_a_waiting_goal_is_cancelled(client):
    from edge_vlm_ros.action import Ask

    client.until(client.action.server_is_ready)
    goal = Ask.Goal(question='see', cameras=['dead'], request_id='goal')
    feedback = []
    handle = client.result(client.action.send_goal_async(goal, feedback.append))
    client.spin(0.3)
    client.result(handle.cancel_goal_async())
    # In this order: rclpy's client drops the feedback of a goal whose result it has.
    client.until(lambda: bool(feedback), LONG_S / 2)
    result = client.result(handle.get_result_async())
    assert result.status == 5  # STATUS_CANCELED
    assert result.result.answer.error_code == 302
    assert [m.feedback.chunk.done for m in feedback] == [True]
    assert [chunk.done for chunk in client.all_chunks_of('goal')] == [True]


def test_waiting_requests_count_and_keep_their_ids(client):
    futures = [later(client, f'q{i}') for i in range(3)]
    twin = client.ask('see', request_id='q0')
    assert twin.error_code == twin.ERROR_DUPLICATE_REQUEST
    more = client.ask('see', request_id='q3')
    assert more.error_code == more.ERROR_BUSY
    assert client.cancel().cancelled == 3
    for i, future in enumerate(futures):
        assert ended(client, future, f'q{i}').error_code == 302
    assert client.ask('see').error_code == 0


def test_deactivate_ends_a_waiting_request(client):
    from lifecycle_msgs.srv import ChangeState

    change = client.node.create_client(ChangeState, 'vlm/change_state')
    client.until(change.service_is_ready)
    future = later(client, 'off')
    for label in ('deactivate', 'activate'):
        request = ChangeState.Request()
        request.transition.label = label
        assert client.result(change.call_async(request)).success
    answer = ended(client, future, 'off')
    assert answer.error_code == answer.ERROR_CANCELLED
    assert 'deactivated' in answer.message
    assert client.ask('see').error_code == 0


def test_ctrl_c_ends_a_waiting_request(client, robot):
    future = later(client, 'last')
    robot.node.process.send_signal(signal.SIGINT)
    assert ended(client, future, 'last').error_code == 302
    assert robot.node.wait(LONG_S / 2) == 0
    assert 'Traceback' not in robot.node.output()
