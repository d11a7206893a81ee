"""Deactivate: what runs may end first, within a bound, and all else goes on meanwhile.

The requests here wait for a frame that the test holds back, so nothing depends on speed.
"""

from __future__ import annotations

import os
import signal

import pytest
from support.asker import model_processes_of

pytestmark = [pytest.mark.ros, pytest.mark.slow]

SCRIPT = """
answers: [{answer: 'I see {images} images.'}]
faults:
  - {at: next_token, kind: hang, question: hang}
"""
LONG_S = 600.0
"""Longer than any test here waits: what ends sooner was ended by something else."""
ACTIVE_SHUTDOWN = 7
"""lifecycle_msgs/Transition: TRANSITION_ACTIVE_SHUTDOWN."""


def start(robot, drain_s):
    """Start a node and a camera that shows nothing yet; return the camera."""
    parameters = {
        'chip': 'scripted',
        'model': robot.script(SCRIPT),
        'frame_wait_s': 3600.0,
        'timeout_s': 0.0,
        'drain_s': drain_s,
    }
    robot.node = robot.vlm(parameters)
    robot.client.until_state('ready')
    camera = robot.client.project()
    camera.is_on = False
    return camera


@pytest.fixture
def camera(other_robot):
    return start(other_robot, LONG_S)


@pytest.fixture
def client(other_robot, camera):
    return other_robot.client


def change(client, label='', number=0):
    """Ask for a transition; return the future."""
    from lifecycle_msgs.srv import ChangeState

    caller = client.node.create_client(ChangeState, 'vlm/change_state')
    client.until(caller.service_is_ready, what='change_state')
    request = ChangeState.Request()
    request.transition.label = label
    request.transition.id = number
    return caller.call_async(request)


def drain(client, *names):
    """Have requests wait, and deactivate; return their futures and the transition's."""
    futures = [client.ask_later('see', request_id=name) for name in names]
    client.until(lambda: waiting(client) == len(names), what='the requests')
    changed = change(client, 'deactivate')
    client.until_state('deactivating')
    assert not changed.done()
    return futures, changed


def waiting(client):
    """Count the requests that are open, by diagnostics."""
    status = client.status('queue')
    return int(status.message.partition(' ')[0]) if status is not None else -1


def lifecycle_state(client):
    from lifecycle_msgs.srv import GetState

    caller = client.node.create_client(GetState, 'vlm/get_state')
    client.until(caller.service_is_ready, what='get_state')
    return client.result(caller.call_async(GetState.Request())).current_state.label


def finals(client, name):
    return sum(chunk.done for chunk in client.all_chunks_of(name))


def test_what_runs_ends_while_all_else_goes_on_and_new_requests_are_refused(client, camera):
    (first, second), changed = drain(client, 'first', 'second')
    refused = client.ask('see', request_id='refused')
    assert refused.error_code == refused.ERROR_NOT_READY
    assert 'deactivating' in refused.message
    assert lifecycle_state(client) == 'active', 'the transition has not begun'
    assert client.cancel('nobody').cancelled == 0
    client.diagnostics.clear()
    client.until(lambda: client.status('engine') is not None, what='diagnostics')
    assert 'deactivating' in client.status('engine').message
    camera.is_on = True  # Cameras are still subscribed.
    for name, future in (('first', first), ('second', second)):
        assert client.result(future).answer.text == 'I see 1 images.'
        assert finals(client, name) == 1
    assert client.result(changed).success
    client.until_state('inactive')
    assert lifecycle_state(client) == 'inactive'
    assert client.result(change(client, 'activate')).success
    client.until_state('ready')
    assert client.ask('see').error_code == 0
    assert client.result(change(client, 'deactivate')).success, 'at once: nothing is open'


def test_cancelling_what_runs_ends_the_drain(client):
    (future,), changed = drain(client, 'one')
    again = change(client, 'deactivate')
    assert client.cancel().cancelled == 1
    assert client.result(future).answer.error_code == 302
    assert client.result(changed).success
    assert not client.result(again).success, 'it was done when its turn came'
    client.until_state('inactive')


def test_shutdown_does_not_wait_for_a_drain(client):
    (future,), changed = drain(client, 'one')
    assert client.result(change(client, number=ACTIVE_SHUTDOWN)).success
    assert client.result(future).answer.error_code == 302
    assert finals(client, 'one') == 1
    assert not client.result(changed).success
    client.until_state('finalized')


def test_ctrl_c_does_not_wait_for_a_drain(client, other_robot):
    (future,), _ = drain(client, 'one')
    node = other_robot.node
    node.process.send_signal(signal.SIGINT)
    assert client.result(future).answer.error_code == 302
    assert finals(client, 'one') == 1
    client.until_state('finalized')
    assert node.wait(LONG_S / 2) == 0
    assert 'Traceback' not in node.output()


def test_a_model_that_is_given_up_does_not_wait_for_a_drain(client, other_robot):
    (future,), _ = drain(client, 'one')
    node = other_robot.node
    other_robot.script(SCRIPT).unlink()  # It cannot be started again.
    (model,) = model_processes_of(node.pid)
    os.kill(model, signal.SIGKILL)
    answer = client.result(future).answer
    assert answer.error_code == answer.ERROR_MODEL_FILE, answer.message
    assert finals(client, 'one') == 1
    assert node.wait(LONG_S / 2) == 1
    assert 'Traceback' not in node.output()


def test_what_does_not_end_within_the_bound_is_cancelled_once_each(other_robot):
    camera = start(other_robot, 0.5)
    camera.is_on = True
    client = other_robot.client
    client.until_frames()
    names = ('hangs', 'waits')
    futures = [client.ask_later('hang', request_id=name) for name in names]
    client.until(lambda: waiting(client) == 2, what='the requests')
    assert client.result(change(client, 'deactivate')).success
    for name, future in zip(names, futures, strict=True):
        answer = client.result(future).answer
        assert (answer.error_code, answer.message) == (302, 'the node was deactivated')
        assert finals(client, name) == 1
    assert 'deactivating' in client.states
    client.until_state('inactive')
