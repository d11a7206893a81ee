"""Servers that come and go, and the robot's own chip: what the node answers and says of it."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.ros, pytest.mark.slow]

SCRIPT = """
answers:
  - question: 'see'
    answer: 'Here I see {images} images.'
  - answer: 'Here.'
"""


def values_of(status):
    return {pair.key: pair.value for pair in status.values}


def servers(*ports):
    return '[' + ','.join(f"'http://127.0.0.1:{port}/v1'" for port in ports) + ']'


def start(robot, port, **parameters):
    """Start a node on a server, and a camera in the test's own process."""
    chosen = {'chip': 'remote', 'remote.servers': servers(port), 'max_age_s': 30.0, **parameters}
    robot.node = robot.vlm(chosen)
    return robot.client.project()


def beside(robot):
    """Return the parameters of a chip beside the servers."""
    return {'remote.fallback_chip': 'scripted', 'remote.fallback_model': robot.script(SCRIPT)}


def until_answered_by(client, chip):
    client.until(lambda: client.ask('Well?').chip == chip, what=f'an answer of {chip}')


def test_the_robots_own_chip_answers_while_no_server_does_and_says_so(other_robot):
    robot, client = other_robot, other_robot.client
    server, port = robot.server()
    start(robot, port, **beside(robot))
    client.until_state(f'ready: images leave this robot for http://127.0.0.1:{port}/v1')
    client.until_frames()
    first = client.ask('What do you see?', session_id='tour')
    assert (first.text, first.chip, first.model) == ('I see 1 images.', 'remote', 'scripted-vlm')
    client.until(lambda: client.level('engine') == 0)
    values = values_of(client.status('engine'))
    assert values['images_leave_robot'] == values['server_answers'] == 'true'

    server.stop()
    second = client.ask('What do you see?', session_id='tour', request_id='over')
    assert (second.text, second.chip) == ('Here I see 1 images.', 'scripted')
    assert second.frames[0].header == first.frames[0].header, 'it went over with its frame'
    assert 'no server answered' in second.message
    assert [chunk.done for chunk in client.all_chunks_of('over')].count(True) == 1
    client.until_state('ready: no server since 20')
    assert ', answering with ' in client.states[-1]
    client.until(lambda: client.level('engine') == 1)
    values = values_of(client.status('engine'))
    assert (values['server_answers'], values['answering_chip']) == ('false', 'scripted')
    assert values['no_server_since'].endswith('Z')
    assert str(port) in values['no_server_because']
    third = client.ask('Well?')
    assert (third.chip, third.message) == ('scripted', '')

    robot.server(port)
    client.until_state('ready: images leave this robot')
    until_answered_by(client, 'remote')
    fourth = client.ask('What do you see?', session_id='tour')
    assert (fourth.text, fourth.chip) == ('I see 1 images.', 'remote')
    client.until(lambda: client.level('engine') == 0)
    log = robot.node.output()
    assert 'no server answers; ' in log
    assert 'a server answers again: scripted-vlm on remote' in log


def test_silence_is_over_for_the_chip_a_cancel_and_a_deadline(other_robot):
    robot, client = other_robot, other_robot.client
    _, port = robot.server()
    start(robot, port, **{'remote.first_token_s': 2.0}, **beside(robot))
    client.until_state('ready')
    client.until_frames()
    pending = client.ask_later('be silent', request_id='a')
    client.until(lambda: client.cancel('a').cancelled == 1)
    assert client.result(pending).answer.error_code == first_code(client, 'ERROR_CANCELLED')
    answer = client.ask('be silent', timeout_s=30.0)
    assert (answer.text, answer.chip) == ('Here.', 'scripted')
    assert 'no word' in answer.message
    client.until_state('ready: images leave')
    until_answered_by(client, 'remote')
    endless = client.ask('go on without end', timeout_s=1.5)
    assert endless.error_code == endless.ERROR_DEADLINE
    assert (endless.chip, bool(endless.text)) == ('remote', True)


def first_code(client, name):
    from edge_vlm_ros.msg import Answer

    return getattr(Answer, name)


def test_servers_alone_that_are_gone_are_an_error_with_a_code_and_come_back(other_robot):
    robot, client = other_robot, other_robot.client
    server, port = robot.server()
    start(robot, port, ahead_mode='prefill')
    client.until_state('ready: images leave')
    client.until_frames()
    robot.node.wait_for_output('ahead_mode is prefill, but chip remote')
    server.stop()
    answer = client.ask('Well?')
    assert answer.error_code == answer.ERROR_SERVER_UNREACHABLE
    assert (answer.text, answer.chip) == ('', 'remote')
    client.until_state('unreachable: no server since 20')
    client.until(lambda: client.level('engine') == 1)
    robot.server(port)
    client.until_state('ready')
    until_answered_by(client, 'remote')


def test_a_stale_camera_is_refused_before_anything_is_sent(other_robot):
    robot, client = other_robot, other_robot.client
    server, port = robot.server()
    camera = start(robot, port, max_age_s=1.0, frame_wait_s=0.0)
    client.until_state('ready')
    client.until_frames()
    camera.is_on = False
    client.until(lambda: client.ask('Well?').error_code == first_code(client, 'ERROR_STALE_FRAME'))
    asked = server.output().count('asked: ')
    assert client.ask('Anything new?').error_code == first_code(client, 'ERROR_STALE_FRAME')
    assert server.output().count('asked: ') == asked
    assert 'Anything new?' not in server.output()


def test_nothing_leaves_the_robot_where_the_chip_does_not_say_remote(other_robot):
    robot, client = other_robot, other_robot.client
    server, port = robot.server()
    start(robot, port, chip='scripted', model=robot.script(SCRIPT))
    client.until_state('ready')
    client.until_frames()
    assert client.states[-1] == 'ready'
    assert client.ask('What do you see?').text == 'Here I see 1 images.'
    assert 'images_leave_robot' not in values_of(client.status('engine'))
    assert 'asked: ' not in server.output()


WRONG = {
    'no server': ({}, 'needs the address of a server'),
    'no address': ({'remote.servers': "['gpu-box']"}, "remote.servers: 'gpu-box' is no address"),
    'a key in an address': (
        {'remote.servers': "['https://me:hush-hush@a/v1']"},
        'holds a user or a password',
    ),
    'a key for a name': (
        {'remote.servers': servers(9), 'remote.api_key_env': 'sk-hush-hush'},
        'is the name of an environment variable',
    ),
    'no such variable': (
        {'remote.servers': servers(9), 'remote.api_key_env': 'NOT_SET_ANYWHERE'},
        'NOT_SET_ANYWHERE, which is not set',
    ),
    'a fallback without a model': (
        {
            'remote.servers': servers(9),
            'remote.fallback_chip': 'scripted',
            'remote.fallback_model': '/nowhere.yaml',
        },
        '/nowhere.yaml',
    ),
    'an unknown option': (
        {'remote.servers': servers(9), 'engine_options': "['hurry=1']"},
        'hurry',
    ),
}


@pytest.mark.parametrize('name', WRONG)
def test_a_set_up_that_cannot_be_ends_the_start_with_a_line_and_no_secret(other_robot, name):
    parameters, part = WRONG[name]
    node = other_robot.vlm({'chip': 'remote', **parameters})
    assert node.wait(60) == 1
    assert part in node.output()
    assert 'Traceback' not in node.output()
    assert 'hush-hush' not in node.output()
