"""doc/adding_a_family.md, done as it says: its package is installed, a model of it is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.guide import install_guide

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.ros, pytest.mark.slow]


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    """Install the guide's package; give the PYTHONPATH that it is seen with."""
    site = install_guide('adding_a_family.md', tmp_path_factory.mktemp('site'))
    return {'PYTHONPATH': os.pathsep.join([str(site), os.environ.get('PYTHONPATH', '')])}


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """Write a model of the new family: the tiny model, under another type."""
    pytest.importorskip('onnx', reason='the tiny model is written with onnx (test extra)')
    from support.tiny_model.make import make_tiny_model

    folder = make_tiny_model(tmp_path_factory.mktemp('tinysight'))
    config = json.loads((folder / 'config.json').read_text())
    config.update(model_type='tinysight', image_tokens=4)
    (folder / 'config.json').write_text(json.dumps(config))
    return folder


@pytest.fixture
def edge_vlm(path):
    def run(*words):
        command = [sys.executable, '-m', 'edge_vlm_ros.cli.main', *map(str, words)]
        env = {**os.environ, **path}
        return subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )

    return run


def test_a_model_of_the_new_family_is_asked_through_the_node(robot, path, model):
    robot.vlm({'chip': 'cpu', 'model': model, 'engine_options': "['threads=1']"}, env=path)
    client = robot.client
    client.until_state('ready')
    images = [client.grey(level) for level in (10, 200)]
    answer = client.ask('What do you see?', images=images, max_tokens=8)
    assert answer.error_code == 0, answer.message
    assert answer.stats.vision_tokens == 2 * 4
    assert answer.stats.answer_tokens > 0
    again = client.ask('And now?', images=images, max_tokens=8)
    assert again.stats.cached_prompt_tokens > 2 * 4, 'the frames were kept'


def test_its_options_reach_it_and_others_are_refused_with_the_list(edge_vlm, model):
    words = ['ask', '--model', model, '--max-tokens', '4']
    done = edge_vlm(*words, '--option', 'resize=fast', 'What do you see?')
    assert done.returncode == 0, done.stderr
    done = edge_vlm(*words, '--option', 'max_tiles=4', 'What do you see?')
    assert (done.returncode, done.stdout) == (2, '')
    assert (
        "no option 'max_tiles' here: family tinysight takes resize; chip cpu takes" in done.stderr
    )


def test_the_doctor_lists_it(edge_vlm):
    report = json.loads(edge_vlm('doctor', '--json').stdout)
    (found,) = [f for f in report['findings'] if f['name'] == 'family tinysight']
    assert (found['state'], found['found']) == ('ok', 'tinysight.family')


def test_without_its_package_the_model_is_of_no_known_family(model):
    from edge_vlm_ros.core import ModelConfig, ModelFileError
    from edge_vlm_ros.families import read_family

    with pytest.raises(
        ModelFileError, match='model_type is "tinysight", expected one of idefics3'
    ):
        read_family(ModelConfig(model))
