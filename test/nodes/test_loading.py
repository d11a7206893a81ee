"""A load that takes long is followed: in the state, in diagnostics, in few lines of the log."""

from __future__ import annotations

import signal

from edge_vlm_ros.nodes.loading_log import LoadingLog
from edge_vlm_ros.serving import LoadProgress

SLOW = """
answers: [{answer: 'Here.'}]
latency: {load_s: 3.0, load_parts: 30}
"""


def lines(total):
    log = LoadingLog()
    return [n for n in range(1, total + 1) if log.is_worth_a_line(LoadProgress(n, total))]


def test_each_tenth_of_a_load_is_worth_a_line():
    assert lines(30) == [3, 6, 9, 12, 15, 18, 21, 24, 27, 30]
    assert lines(4) == [1, 2, 3, 4]
    assert len(lines(1001)) == 10


def test_a_second_load_is_told_from_its_beginning():
    log = LoadingLog()
    for _ in range(2):
        told = [n for n in range(1, 21) if log.is_worth_a_line(LoadProgress(n, 20))]
        assert told == list(range(2, 21, 2))


def test_how_far_a_load_is_stands_in_state_diagnostics_and_log(other_robot):
    robot, client = other_robot, other_robot.client
    client.project()
    node = robot.vlm({'chip': 'scripted', 'model': robot.script(SLOW), 'max_age_s': 30.0})
    client.until_state('loading: ')
    client.until(lambda: 'of 30 parts' in words_of_engine(client), what='progress in diagnostics')
    status = client.status('engine')
    assert {pair.key: pair.value for pair in status.values}['state'] == 'loading'
    assert status.message.startswith('loading: ')
    client.until_state('ready')
    client.until_frames()
    assert client.ask('Where are you?').text == 'Here.'
    seen = [state for state in client.states if state.startswith('loading: ')]
    assert set(seen) <= {f'loading: {n} of 30 parts' for n in range(1, 31)}
    assert len(seen) > 5
    node.process.send_signal(signal.SIGTERM)
    assert node.wait(20) == 0
    assert 0 < node.output().count('of 30 parts') <= 10


def words_of_engine(client):
    status = client.status('engine')
    return status.message if status else ''
