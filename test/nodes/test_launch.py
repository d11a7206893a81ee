"""Launch and parameter files: what can be said of them without starting anything."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
from pathlib import Path

import pytest
import yaml
from support import ros_launch

from edge_vlm_ros.core import CHIPS, launchable_chips
from edge_vlm_ros.fastdds import PROFILE_VARIABLES
from edge_vlm_ros.nodes import process_setup

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILES = sorted((ROOT / 'launch').glob('*.launch.py'))
CONFIG = ROOT / 'config'
# Not in Humble's launch or launch_ros.
TOO_NEW = {'EqualsSubstitution', 'NotEqualsSubstitution', 'IfElseSubstitution', 'FileContent'}


@pytest.mark.parametrize('path', LAUNCH_FILES, ids=lambda path: path.name)
def test_a_launch_file_runs_no_code_of_others_and_is_fit_for_humble(path):
    tree = ast.parse(path.read_text(), str(path))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    modules = {
        n.name for node in ast.walk(tree) if isinstance(node, ast.Import) for n in node.names
    }
    imported = {
        n.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for n in node.names
    }
    assert not {'eval', 'exec', '__import__'} & names
    assert not {'subprocess'} & modules
    assert not TOO_NEW & imported


@pytest.mark.parametrize('chip', ['vlm', *(chip.name for chip in CHIPS)])
def test_every_chip_has_a_file_of_parameters_for_any_node_name(chip):
    content = yaml.safe_load((CONFIG / f'{chip}.yaml').read_text())
    (node,) = content
    assert node == '/**'
    parameters = content[node]['ros__parameters']
    assert parameters['chip'] == ('cpu' if chip == 'vlm' else chip)


@pytest.fixture(autouse=True)
def launch_packages():
    """ROS's own launch, or the stand-in for it."""
    with contextlib.nullcontext() if ros_launch.is_installed() else ros_launch.stand_in():
        yield


def load(path):
    spec = importlib.util.spec_from_file_location(path.name.replace('.', '_'), path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments(path):
    description = load(path).generate_launch_description()
    return {a.name: a for a in description.get_launch_arguments()}


def test_the_arguments_of_the_launch_file_are_described():
    found = arguments(ROOT / 'launch' / 'vlm.launch.py')
    assert set(found) == {
        'ahead',
        'autostart',
        'cameras',
        'chip',
        'device_ids',
        'fallback_chip',
        'image_topic',
        'log_level',
        'model',
        'namespace',
        'params_file',
        'respawn',
        'servers',
        'use_sim_time',
        'web',
        'web_host',
        'web_port',
        'web_token_file',
    }
    assert all(argument.description for argument in found.values())
    assert tuple(found['chip'].choices) == launchable_chips()
    assert launchable_chips() == tuple(chip.name for chip in CHIPS if chip.is_launchable)


def test_arguments_set_parameters_and_empty_ones_set_none():
    overrides = load(ROOT / 'launch' / 'vlm.launch.py').overrides
    given = {'chip': 'cpu', 'autostart': 'true', 'use_sim_time': 'false'}
    assert overrides(lambda name: given.get(name, '')) == {
        'chip': 'cpu',
        'autostart': True,
        'use_sim_time': False,
    }
    given |= {'cameras': 'front, rear', 'image_topic': '/f', 'device_ids': '0,1', 'model': 'demo'}
    given |= {'ahead': 'prefill', 'servers': 'http://a, http://b/v1', 'fallback_chip': 'cpu'}
    chosen = overrides(lambda name: given.get(name, ''))
    assert chosen['ahead_mode'] == 'prefill'
    assert chosen['remote.servers'] == ['http://a', 'http://b/v1']
    assert chosen['remote.fallback_chip'] == 'cpu'
    assert chosen['camera_names'] == ['front', 'rear']
    assert chosen['cameras.front.topic'] == '/f'
    assert chosen['device_ids'] == [0, 1]
    assert chosen['model'] == 'demo'


def test_arguments_set_the_parameters_of_the_page():
    overrides = load(ROOT / 'launch' / 'vlm.launch.py').web_overrides
    given = {'use_sim_time': 'true'}
    assert overrides(lambda name: given.get(name, '')) == {'use_sim_time': True}
    given |= {'web_host': '0.0.0.0', 'web_port': '8090', 'web_token_file': '/a/token'}
    assert overrides(lambda name: given.get(name, '')) == {
        'use_sim_time': True,
        'web.host': '0.0.0.0',
        'web.port': 8090,
        'web.token_file': '/a/token',
    }
    given['web_port'] = 'http'
    with pytest.raises(RuntimeError, match='web_port:=http: a number is wanted'):
        overrides(lambda name: given.get(name, ''))


@pytest.mark.parametrize('text', ['a', '0,', '0;1', '-1', '0.5', ','])
def test_device_ids_that_are_no_numbers_are_named(text):
    overrides = load(ROOT / 'launch' / 'vlm.launch.py').overrides
    given = {'device_ids': text}
    with pytest.raises(RuntimeError, match=f'device_ids:={text}: chip numbers with commas'):
        overrides(lambda name: given.get(name, ''))


@pytest.mark.parametrize(
    ('distro', 'names'),
    [
        ('humble', {'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'}),
        ('kilted', {'FASTDDS_DEFAULT_PROFILES_FILE'}),
        ('', {'FASTDDS_DEFAULT_PROFILES_FILE'}),
    ],
)
def test_the_profile_is_set_under_the_names_that_the_distribution_reads(
    monkeypatch, distro, names
):
    for name in PROFILE_VARIABLES:
        monkeypatch.setenv(name, '')
    monkeypatch.setenv('ROS_DISTRO', distro)
    profile = process_setup.use_shared_memory_profile()
    assert profile is not None
    found = {n for n in PROFILE_VARIABLES if os.environ[n] == str(profile)}
    assert found == names
    assert process_setup.use_shared_memory_profile() is None, 'the user has set one'
    from launch.utilities import perform_substitutions

    from launch import LaunchContext

    launch_file = load(ROOT / 'launch' / 'vlm.launch.py')
    assert launch_file.shared_memory_profile() == []
    for name in PROFILE_VARIABLES:
        monkeypatch.setenv(name, '')
    monkeypatch.setattr(launch_file, 'config_folder', lambda: CONFIG)
    actions = launch_file.shared_memory_profile()
    assert {perform_substitutions(LaunchContext(), a.name) for a in actions} == names


def test_cyclone_dds_is_given_its_profile_unless_the_user_has_his_own(monkeypatch):
    monkeypatch.setenv('CYCLONEDDS_URI', '')
    uri = process_setup.use_large_receive_buffers()
    assert uri == os.environ['CYCLONEDDS_URI'] == f'file://{CONFIG / "cyclonedds.xml"}'
    monkeypatch.setenv('CYCLONEDDS_URI', 'file:///my/own.xml')
    assert process_setup.use_large_receive_buffers() == ''
    assert os.environ['CYCLONEDDS_URI'] == 'file:///my/own.xml'
    pytest.importorskip('launch.actions')
    pytest.importorskip('launch_ros.actions')
    from launch.utilities import perform_substitutions

    from launch import LaunchContext

    launch_file = load(ROOT / 'launch' / 'vlm.launch.py')
    assert launch_file.receive_buffers() == []
    monkeypatch.setenv('CYCLONEDDS_URI', '')
    monkeypatch.setattr(launch_file, 'config_folder', lambda: CONFIG)
    (action,) = launch_file.receive_buffers()
    assert perform_substitutions(LaunchContext(), action.value) == uri
