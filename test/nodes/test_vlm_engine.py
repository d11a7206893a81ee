"""An engine that hangs, dies or never comes: what the node says of it, and what it costs."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from support import processes
from support.environment import on_domain

pytestmark = [pytest.mark.ros, pytest.mark.slow]

SCRIPT = """
answers: [{answer: 'one two three four five six seven eight nine ten'}]
latency: {decode_s: 0.02}
faults:
  - {at: next_token, kind: hang, question: hang}
"""


def children_of(pid):
    """Return the ids of a process's children."""
    files = Path(f'/proc/{pid}/task').glob('*/children')
    return [int(word) for file in files for word in file.read_text().split()]


def values_of(status):
    return {pair.key: pair.value for pair in status.values}


def start(robot, script=SCRIPT, **parameters):
    """Start a node that looks at the test's own camera."""
    chosen = {'chip': 'scripted', 'model': robot.script(script), 'max_age_s': 30.0, **parameters}
    robot.client.project()
    return robot.vlm(chosen)


class Lifecycle:
    """The node's lifecycle services."""

    def __init__(self, client):
        from lifecycle_msgs.srv import ChangeState, GetState

        self._client, self._kind = client, ChangeState
        self._change = client.node.create_client(ChangeState, 'vlm/change_state')
        self._get = client.node.create_client(GetState, 'vlm/get_state')
        self._ask = GetState.Request
        client.until(self._change.service_is_ready, what='change_state')
        client.until(self._get.service_is_ready, what='get_state')

    def go(self, label):
        """Ask for a transition; return whether it succeeded."""
        request = self._kind.Request()
        request.transition.label = label
        return self._client.result(self._change.call_async(request)).success

    @property
    def state(self):
        """The primary state."""
        return self._client.result(self._get.call_async(self._ask())).current_state.label


@pytest.fixture(scope='module')
def client(robot):
    robot.node = start(robot, engine_stall_s=6.0)
    robot.client.until_state('ready')
    robot.client.until_frames()
    return robot.client


def test_a_wedge_is_told_and_its_end_too(client, robot):
    (model,) = children_of(robot.node.pid)
    future = client.ask_later('count', request_id='x')
    client.until(lambda: bool(client.chunks_of('x')), what='a word')
    client.states.clear()
    os.kill(model, signal.SIGSTOP)
    client.until_state('stalled: no sign of life for ')
    os.kill(model, signal.SIGCONT)
    client.until_state('ready')
    told = [state for state in client.states if state.startswith('stalled')]
    assert told[0].endswith(' s in decode of request x')
    assert client.result(future).answer.error_code == 0
    assert robot.node.output().count('the engine has stalled') == 1
    assert robot.node.output().count('the engine gives signs of life again') == 1


def test_a_hang_costs_its_own_question_and_diagnostics_say_where_it_is(client, robot):
    client.until(lambda: client.level('engine') == 0, what='a ready engine')
    bad = client.ask_later('hang', request_id='bad')
    good = client.ask_later('count', request_id='good')
    client.until(lambda: client.level('engine') == 1, what='a warning')
    client.until(
        lambda: client.status('engine').message.endswith('in decode of request bad'),
        what='where it hangs',
    )
    assert values_of(client.status('engine'))['state'] == 'stalled'
    assert client.result(good, 120).answer.text.endswith('ten')
    answer = client.result(bad).answer
    assert answer.error_code == answer.ERROR_DEVICE
    assert 'within 6 s' in answer.message
    for request_id in ('bad', 'good'):
        assert sum(chunk.done for chunk in client.all_chunks_of(request_id)) == 1
    client.until_state('ready')
    client.until(lambda: client.level('engine') == 0, what='a ready engine')


def test_a_conversation_that_died_is_refused_once_and_then_begun_anew(client, robot):
    client.until_state('ready')
    assert client.ask('count', session_id='talk').error_code == 0
    (model,) = children_of(robot.node.pid)
    client.states.clear()
    os.kill(model, signal.SIGKILL)
    client.until(lambda: 'restarting' in client.states, what='state restarting')
    lost = client.ask('and now?', session_id='talk', request_id='lost')
    assert lost.error_code == lost.ERROR_UNKNOWN_SESSION
    assert "'talk'" in lost.message
    assert [chunk.done for chunk in client.all_chunks_of('lost')] == [True]
    anew = client.ask('count', session_id='talk')
    assert anew.error_code == 0
    assert len(anew.frames) == 1


def test_deactivating_is_not_held_up_by_a_chip_that_hangs(client):
    lifecycle = Lifecycle(client)
    client.until_state('ready')
    future = client.ask_later('hang', request_id='deactivated')
    client.until_state('stalled')
    assert lifecycle.go('deactivate')
    answer = client.result(future).answer
    assert answer.error_code == answer.ERROR_CANCELLED
    assert sum(chunk.done for chunk in client.all_chunks_of('deactivated')) == 1
    assert lifecycle.go('activate')
    client.until_state('ready')
    client.until_frames()
    assert client.ask('count').text.endswith('ten')


def test_the_last_word_is_finalized(client, robot):
    assert Lifecycle(client).go('shutdown')
    client.until_state('finalized')
    robot.node.process.send_signal(signal.SIGINT)
    assert robot.node.wait() == 0


def test_it_is_finalized_after_ctrl_c_too(other_robot):
    node = start(other_robot)
    other_robot.client.until_state('ready')
    node.process.send_signal(signal.SIGINT)
    other_robot.client.until_state('finalized')
    assert node.wait() == 0


LOADS_SLOWLY = "answers: [{answer: 'Here.'}]\nlatency: {load_s: 5.0, load_parts: 5}"


def test_with_wait_for_model_it_is_active_when_it_can_answer(other_robot):
    client = other_robot.client
    start(other_robot, LOADS_SLOWLY, wait_for_model='true')
    lifecycle = Lifecycle(client)
    client.until_state('loading')
    before = lifecycle.state
    refused = client.ask('Where?')
    assert (before, refused.error_code) in {
        ('inactive', refused.ERROR_NOT_READY),
        ('active', 0),  # on a machine that was kept busy meanwhile
    }
    client.until_state('ready')
    assert lifecycle.state == 'active'
    client.until_frames()
    assert client.ask('Where?').text == 'Here.'


def test_with_wait_for_model_activating_fails_while_it_loads_and_the_node_answers_meanwhile(
    other_robot,
):
    client = other_robot.client
    script = LOADS_SLOWLY.replace('5.0', '3600')
    node = start(other_robot, script, wait_for_model='true', autostart='false')
    lifecycle = Lifecycle(client)
    assert lifecycle.go('configure')
    assert not lifecycle.go('activate')
    assert lifecycle.state == 'inactive'
    node.wait_for_output('cannot activate: the model is not ready')
    assert lifecycle.go('cleanup')
    assert lifecycle.state == 'unconfigured'


def test_after_the_last_failed_start_diagnostics_and_state_say_error_and_why(other_robot):
    client = other_robot.client
    node = start(
        other_robot,
        "faults: [{at: load, kind: error, message: 'no chip here'}]",
        autostart='false',
    )
    assert Lifecycle(client).go('configure')
    client.until_state('failed: the model cannot be loaded: no chip here (5 starts failed)')
    client.until(lambda: client.level('engine') == 2, what='an error')
    assert 'no chip here' in client.status('engine').message
    assert children_of(node.pid) == []


PRINTS = """
import os, sys
from edge_vlm_ros.serving.process import launcher
launcher._BOOT = launcher._BOOT.replace('main(int', '''
import logging, os
from edge_vlm_ros.serving import backend
open_it = backend.open_backend
def opened(*args, **more):
    logging.getLogger('vendor').error('an error of theirs')
    logging.getLogger('vendor').info('chatter of theirs')
    os.write(2, b'printed to stderr' + bytes([10]))
    os.write(1, b'printed to stdout' + bytes([10]))
    return open_it(*args, **more)
backend.open_backend = opened
main(int''', 1)
from edge_vlm_ros.nodes.vlm_main import main
sys.exit(main())
"""


def program(robot, text, script=SCRIPT):
    """Start the node after some other lines of Python."""
    path = robot.script(script)
    words = ['--ros-args', '-p', 'chip:=scripted', '-p', f'model:={path}']
    log = robot.folder / 'program.log'
    spawned = processes.spawn([sys.executable, '-c', text, *words], log, on_domain(robot.domain))
    robot._stack.callback(spawned.stop)
    return spawned


def test_what_the_model_process_says_is_in_the_nodes_log_once(other_robot):
    node = program(other_robot, PRINTS)
    other_robot.client.until_state('ready')
    node.process.send_signal(signal.SIGINT)
    assert node.wait() == 0
    lines = node.output().splitlines()

    def found(text):
        return [line for line in lines if text in line]

    (error,) = found('an error of theirs')
    assert '[ERROR]' in error
    assert '[vlm]: [model process] [vendor] an error' in error
    (info,) = found('chatter of theirs')
    assert '[INFO]' in info
    (printed,) = found('printed to stderr')
    assert '[INFO]' in printed
    assert found('printed to stdout') == [], 'DEBUG'
    assert all('] [vlm]: ' in line for line in lines), 'nothing goes past the log'


UNKILLABLE = """
import sys
from edge_vlm_ros.serving.process.launcher import Child
Child.kill = lambda self: None
from edge_vlm_ros.nodes.vlm_main import main
sys.exit(main())
"""


def test_a_process_that_cannot_be_killed_does_not_hold_up_the_end(other_robot):
    client = other_robot.client
    node = program(other_robot, UNKILLABLE)
    client.until_state('ready')
    (model,) = children_of(node.pid)
    os.kill(model, signal.SIGSTOP)
    node.process.send_signal(signal.SIGINT)
    assert node.wait() == 0
    assert f'the model process {model} does not end, not even by SIGKILL' in node.output()
    assert 'left behind' in node.output()
    os.kill(model, signal.SIGKILL)


CYCLES = int(os.environ.get('EDGE_VLM_CYCLES', '6'))


def test_cycles_of_the_lifecycle_leave_nothing(other_robot):
    """A hundred: EDGE_VLM_CYCLES=100."""
    client = other_robot.client
    node = start(other_robot, autostart='false')
    lifecycle = Lifecycle(client)

    def cycle():
        for label in ('configure', 'activate', 'deactivate', 'cleanup'):
            if label == 'deactivate':
                client.until_state('ready')
            assert lifecycle.go(label), label
        client.until_state('unconfigured')

    def count():
        folder = Path(f'/proc/{node.pid}')
        return tuple(len(list((folder / part).iterdir())) for part in ('fd', 'task'))

    for _ in range(2):
        cycle()
    before = count()
    for _ in range(CYCLES):
        cycle()
    assert count() <= before
    assert children_of(node.pid) == []
