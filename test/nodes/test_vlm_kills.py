"""Processes that are killed: every open request ends once, nothing stays behind."""

from __future__ import annotations

import contextlib
import os
import signal
from itertools import product
from pathlib import Path

import pytest
from support.patience import Patience

SCRIPT = """
answers: [{answer: 'one two three four five six seven eight nine ten'}]
latency: {decode_s: 0.06}
"""
SLOW_TO_LOAD = 'latency: {load_s: 60.0}'
END_S = 8.0
"""A few seconds."""

pytestmark = [pytest.mark.ros, pytest.mark.slow]


def children_of(pid):
    """Return the ids of a process's children."""
    files = Path(f'/proc/{pid}/task').glob('*/children')
    return [int(word) for file in files for word in file.read_text().split()]


def is_alive(pid):
    """Return whether a process runs; one that waits to be reaped does not."""
    try:
        stat = Path(f'/proc/{pid}/stat').read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(')')[2].split()[0] != 'Z'


def until_gone(pid, timeout_s=END_S):
    patience = Patience(timeout_s)
    while is_alive(pid):
        assert not patience.is_over(), f'process {pid} outlives its parent'
        patience.look()


def start(robot, script=SCRIPT):
    """Start a node that looks at the test's own camera."""
    robot.client.project()
    return robot.vlm({'chip': 'scripted', 'model': robot.script(script), 'max_age_s': 30.0})


def engine_words(client):
    """Return what the newest diagnostics have said of the engine, oldest first."""
    found = [
        s for message in client.diagnostics for s in message.status if s.name == '/vlm: engine'
    ]
    return [status.message.partition(':')[0] for status in found]


def told(client):
    """Return what diagnostics say of the engine now."""
    status = client.status('engine')
    return status.message if status else ''


def restarts(client):
    return int({p.key: p.value for p in client.status('engine').values}.get('restarts', 0))


@pytest.fixture(scope='module')
def client(robot):
    robot.node = start(robot)
    robot.client.until_state('ready')
    robot.client.until_frames()
    return robot.client


def test_killed_again_and_again_each_open_request_ends_once_and_one_is_lost(client, robot):
    loaded = client.ask('count').model
    assert loaded.endswith('script.yaml')
    for turn in range(3):
        (model,) = children_of(robot.node.pid)
        ids = [f'{turn} running', f'{turn} waiting']
        futures = [client.ask_later('count', request_id=request_id) for request_id in ids]
        client.until(lambda ids=ids: bool(client.chunks_of(ids[0])), what='a word')
        os.kill(model, signal.SIGKILL)
        died, waited = (client.result(future).answer for future in futures)
        assert died.error_code == died.ERROR_ENGINE_DIED
        assert died.message
        assert waited.error_code == 0, waited.message
        assert waited.text.endswith('ten'), 'it had no word yet: it was asked again'
        for request_id, answer in zip(ids, (died, waited), strict=True):
            assert answer.request_id == request_id
            assert (answer.model, answer.chip) == (loaded, 'scripted'), request_id
            chunks = client.all_chunks_of(request_id)
            assert chunks[-1].message == answer.message
            assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
            assert ''.join(chunk.delta for chunk in chunks) == answer.text
        good = client.ask('count', request_id=f'{turn} good')
        assert good.text.endswith('ten'), good.message
        assert not is_alive(model)
    assert len(children_of(robot.node.pid)) == 1


def test_killed_while_idle_it_is_told_and_started_again(client, robot):
    client.until(lambda: client.level('engine') == 0, what='a ready engine')
    before = restarts(client)
    (model,) = children_of(robot.node.pid)
    client.states.clear()
    client.diagnostics.clear()
    os.kill(model, signal.SIGKILL)
    client.until(lambda: 'restarting' in client.states, what='state restarting')
    client.until(lambda: 'restarting' in engine_words(client), what='restarting in diagnostics')
    client.until_state('ready')
    client.until(lambda: client.level('engine') == 0, what='a ready engine')
    assert restarts(client) == before + 1
    assert client.ask('count').text.endswith('ten')


def test_a_node_that_is_killed_leaves_no_process_and_a_new_one_answers(client, robot):
    client.until_state('ready')
    (model,) = children_of(robot.node.pid)
    client.ask_later('count', request_id='cut off')
    client.until(lambda: bool(client.chunks_of('cut off')), what='a word')
    robot.node.process.kill()
    assert robot.node.wait(10) == -signal.SIGKILL
    until_gone(model)
    client.states.clear()
    robot.node = robot.vlm({'chip': 'scripted', 'model': robot.script(SCRIPT), 'max_age_s': 30.0})
    client.until_state('ready')
    client.until_frames()
    assert client.ask('count').text.endswith('ten')


def test_killed_while_it_loads_it_leaves_no_process_either(other_robot):
    node = start(other_robot, SLOW_TO_LOAD)
    client = other_robot.client
    client.until(lambda: 'loading the model' in told(client), what='loading')
    (model,) = children_of(node.pid)
    node.process.kill()
    node.wait(10)
    until_gone(model)


@pytest.mark.parametrize(
    ('number', 'moment'),
    [
        *product(
            [signal.SIGINT, signal.SIGTERM], ['loading', 'answering', 'answering, as a group']
        ),
        (signal.SIGHUP, 'answering'),
    ],
)
def test_signals_end_it_in_order_at_any_moment(other_robot, number, moment):
    """As Ctrl-C or a service manager does, who also signal the model process itself."""
    robot, client = other_robot, other_robot.client
    is_loading = moment == 'loading'
    node = start(robot, SLOW_TO_LOAD if is_loading else SCRIPT)
    client.until_state('loading' if is_loading else 'ready')
    client.until_frames()
    future = client.ask_later('count', request_id='last')
    if is_loading:
        client.spin(0.5)
    else:
        client.until(lambda: bool(client.chunks_of('last')), what='a word')
    models = children_of(node.pid)
    if 'group' in moment:
        node.signal(number)
    else:
        with contextlib.suppress(ProcessLookupError):
            node.process.send_signal(number)
    answer = client.result(future).answer
    # A service manager's SIGTERM may end the model process before the node has.
    assert answer.error_code in {answer.ERROR_CANCELLED, answer.ERROR_ENGINE_DIED}
    if 'group' not in moment or number == signal.SIGINT:
        assert answer.error_code == answer.ERROR_CANCELLED
    assert sum(chunk.done for chunk in client.all_chunks_of('last')) == 1
    assert node.wait(END_S) == 0
    assert 'Traceback' not in node.output()
    for model in models:
        until_gone(model)
