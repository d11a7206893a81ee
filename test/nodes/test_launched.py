"""What the launch files start answers: their processes, started with the words that they give.

ROS's `launch` is not on PyPI; the stand-in says what it would start, the processes are real.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.ros_launch import carry_out

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
answers:
  - answer: '{images} seen'
"""

pytestmark = [pytest.mark.ros, pytest.mark.slow]


@pytest.fixture
def here(monkeypatch):
    """Let launch files find those of this tree."""
    from ament_index_python import packages

    monkeypatch.setattr(packages, 'get_package_share_directory', lambda _: str(ROOT))


@pytest.fixture
def launch(other_robot, here):
    """Start what a launch file of this tree starts: `launch('vlm.launch.py', chip='scripted')`."""

    def start(name, **values):
        started = []
        for node in carry_out(ROOT / 'launch' / name, values, other_robot.folder):
            assert node.package == 'edge_vlm_ros'
            module = f'{node.executable.removesuffix("_node")}_main'
            words = [sys.executable, '-m', f'edge_vlm_ros.nodes.{module}', *node.arguments]
            started.append(other_robot.run(node.executable, words, node.environment))
        return started

    return start


def test_the_vlm_node_answers_with_the_launch_files_parameters(launch, other_robot):
    script = other_robot.script(SCRIPT)
    more = other_robot.script('/**: {ros__parameters: {timeout_s: 7.5}}', 'more.yaml')
    (node,) = launch(
        'vlm.launch.py',
        chip='scripted',
        model=str(script),
        namespace='robot1',
        cameras='left, right',
        image_topic='/shared/image',
        params_file=str(more),
        log_level='debug',
    )
    client = other_robot.new_client('robot1')
    client.until_state('ready')
    client.project('/shared/image')
    client.until(lambda: client.status('camera left') is not None, what='a camera of that name')
    client.until(lambda: client.level('camera left') == 0, what='frames of the first camera')
    answer = client.ask('what', cameras=['left'])
    assert answer.text == '1 seen', answer.message
    assert answer.chip == 'scripted'
    assert 'DEBUG' in node.output()
    assert 'Traceback' not in node.output()


def test_the_demo_plays_its_clip_to_the_node(launch, other_robot):
    script = other_robot.script(SCRIPT)
    vlm, camera = launch('demo.launch.py', chip='scripted', model=str(script), fps='5.0')
    client = other_robot.client
    client.until_state('ready')
    client.until_frames()
    assert client.ask('what').text == '1 seen'
    for process in (vlm, camera):
        assert process.stop() == 0
        assert 'Traceback' not in process.output()


def test_the_page_is_served_beside_the_node_with_the_files_and_the_arguments(launch, other_robot):
    script = other_robot.script(SCRIPT)
    token = other_robot.script('a-token-of-one-line\n', 'token')
    more = other_robot.script(
        '/**/vlm_web: {ros__parameters: {web: {port: 70000, read_only: true}}}', 'more.yaml'
    )
    vlm, page = launch(
        'vlm.launch.py',
        chip='scripted',
        model=str(script),
        namespace='robot1',
        params_file=str(more),
        web='true',
        web_port='0',
        web_token_file=str(token),
    )
    page.wait_for_output(f'?token=... (from {token})')
    client = other_robot.new_client('robot1')
    client.until_state('ready')
    names = client.node.get_node_names_and_namespaces
    client.until(lambda: ('vlm_web', '/robot1') in names(), what='the page')
    for process in (vlm, page):
        assert process.stop() == 0
        assert 'Traceback' not in process.output()


def test_without_autostart_the_node_waits_to_be_configured(launch, other_robot):
    script = other_robot.script(SCRIPT)
    launch('vlm.launch.py', chip='scripted', model=str(script), autostart='false')
    client = other_robot.client
    client.until(lambda: bool(client.states), what='a state')
    assert client.states[-1] != 'ready'


@pytest.mark.parametrize(('value', 'is_again'), [('true', True), ('false', False)])
def test_a_node_that_ends_is_started_again_where_that_is_wanted(tmp_path, here, value, is_again):
    (node,) = carry_out(ROOT / 'launch' / 'vlm.launch.py', {'respawn': value}, tmp_path)
    assert (node.respawn_s is not None) is is_again
    assert not is_again or node.respawn_s > 0, 'as fast as it can is no cure'


@pytest.mark.parametrize(
    ('name', 'value'), [('chip', 'toaster'), ('autostart', 'perhaps'), ('log_level', 'loud')]
)
def test_a_value_that_is_no_choice_starts_nothing(launch, name, value):
    with pytest.raises(RuntimeError, match=f'{name}.*{value}'):
        launch('vlm.launch.py', **{name: value})


def test_a_parameter_file_that_is_not_there_starts_nothing(launch, tmp_path):
    missing = tmp_path / 'mine.yaml'
    for path, what in ((missing, 'does not exist'), (tmp_path, 'is no file')):
        with pytest.raises(RuntimeError, match=f'params_file:={path}: {path} {what}'):
            launch('vlm.launch.py', params_file=str(path))


def test_a_file_of_the_first_versions_gets_the_new_name_in_one_line(launch, other_robot):
    old = other_robot.script('/**: {ros__parameters: {cameras: [front]}}', 'old.yaml')
    (node,) = launch('vlm.launch.py', chip='scripted', params_file=str(old))
    assert node.wait() == 1
    (line,) = node.output().splitlines()
    assert "write camera_names: ['front']" in line
