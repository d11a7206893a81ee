"""The vlm node on an Axera chip that is not there: axengine's stand-in over the C stub."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.axera]


@pytest.fixture(scope='module')
def chip():
    """Give the environment of a process that finds the chip."""
    from support.axera.stub.build import build_stub

    places = [ROOT / 'test' / 'support' / 'axera' / 'standin', ROOT, ROOT / 'test']
    return {
        'PYTHONPATH': os.pathsep.join([*map(str, places), os.environ.get('PYTHONPATH', '')]),
        'EDGE_VLM_AX_LIBRARY': str(build_stub('ax650')),
    }


@pytest.fixture(scope='module')
def demo_set(tmp_path_factory):
    from support.axera.sets import write_demo

    return write_demo(tmp_path_factory.mktemp('demo'))


@pytest.fixture(scope='module')
def client(robot, chip, demo_set):
    robot.camera({'width': 320})
    parameters = {'chip': 'ax650', 'model': demo_set, 'max_age_s': 5.0, 'autostart': 'false'}
    robot.node = robot.vlm(parameters, env=chip)
    start_once_heard(robot.client)
    robot.client.until_state('ready', 90)
    robot.client.until_frames()
    return robot.client


def start_once_heard(client):
    """Configure and activate the node when what it says while it loads gets to the client.

    The state is latched with depth 1: who is connected late hears the last one alone.
    """
    from lifecycle_msgs.srv import ChangeState

    change = client.node.create_client(ChangeState, 'vlm/change_state')
    client.until(lambda: change.service_is_ready() and client.states == ['unconfigured'])
    for label in ('configure', 'activate'):
        request = ChangeState.Request()
        request.transition.label = label
        assert client.result(change.call_async(request), 90).success


def test_the_node_answers_word_by_word(client, robot):
    answer = client.describe(request_id='still')
    assert answer.error_code == 0, answer.message
    assert answer.chip == 'ax650'
    assert answer.stats.vision_tokens == 16
    assert len(client.all_chunks_of('still')) > 2
    assert answer.text.strip()
    assert 'portable' not in robot.node.output()  # it warns when it cannot work in place


def test_the_chip_says_what_the_cpu_says(client, other_robot):
    """Same weights, same picture: bfloat16 on one side, float32 on the other."""
    from sensor_msgs.msg import Image

    other_robot.vlm({'chip': 'cpu', 'model': 'demo'})
    other_robot.client.until_state('ready', 90)
    image = Image(encoding='rgb8', width=64, height=64, step=192)
    image.data.frombytes(bytes([200, 30, 30]) * 64 * 64)
    answers = [
        asked.ask('Is there a red box?', images=[image]) for asked in (client, other_robot.client)
    ]
    assert [answer.error_code for answer in answers] == [0, 0]
    assert answers[0].text == answers[1].text
    closed = [
        asked.ask('Which color is the box?', images=[image], choices=['red', 'blue', 'light red'])
        for asked in (client, other_robot.client)
    ]
    assert [answer.error_code for answer in closed] == [0, 0], closed[0].message
    assert closed[0].choice == closed[0].text == closed[1].choice
    assert closed[0].choice_probability == pytest.approx(closed[1].choice_probability, abs=0.1)


def test_loading_is_told_part_by_part(client):
    assert any(state.startswith('loading: ') for state in client.states), client.states


def test_a_prompt_too_long_is_refused_with_both_numbers_and_the_node_lives(client):
    answer = client.ask('why ' * 600)
    assert answer.error_code == answer.ERROR_PROMPT_TOO_LONG
    assert '510' in answer.message  # a cache of 511 rows, one of them for the answer
    assert client.ask('Is there a ball?').error_code == 0


def test_more_images_than_fit_are_refused_and_the_node_lives(client):
    images = [client.grey(100, size=(112, 112)) for _ in range(30)]
    answer = client.ask('What do you see?', images=images)
    assert answer.error_code == answer.ERROR_TOO_MANY_FRAMES
    assert '30' in answer.message
    assert client.ask('Is there a ball?').error_code == 0


def test_a_set_without_a_layer_fails_the_start_with_the_files_name(
    other_robot, chip, demo_set, tmp_path
):
    for path in demo_set.iterdir():
        (tmp_path / path.name).symlink_to(path)
    missing = next(tmp_path.glob('*_l2_together.axmodel'))
    missing.unlink()
    node = other_robot.vlm({'chip': 'ax650', 'model': tmp_path}, env=chip)
    assert node.wait(60) == 1
    assert missing.name in node.output()
    assert 'Traceback' not in node.output()


def test_without_axengine_the_start_fails_and_says_where_to_get_it(other_robot, demo_set):
    node = other_robot.vlm({'chip': 'ax650', 'model': demo_set})
    assert node.wait(60) == 1
    assert 'pyaxengine' in node.output()
    assert 'Traceback' not in node.output()
