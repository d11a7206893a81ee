"""doc/adding_a_chip.md, done as it says: its package is installed, its chip is asked by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.engine_laws import broken_laws
from support.guide import files_in, install_guide

from edge_vlm_ros.core import BadRequestError, ModelFileError, launchable_chips
from edge_vlm_ros.engines import inspect_model, open_engine
from edge_vlm_ros.models import find_model

ROOT = Path(__file__).resolve().parents[2]
GUIDE = 'adding_a_chip.md'
SENTENCE = 'Polly wants a cracker.'


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """Install the guide's package; give the folder it lies in."""
    return install_guide(GUIDE, tmp_path_factory.mktemp('site'))


@pytest.fixture(scope='module')
def path(site):
    """Give the environment of a process that sees the package."""
    return {'PYTHONPATH': os.pathsep.join([str(site), os.environ.get('PYTHONPATH', '')])}


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    """Make the guide's folder of models."""
    folder = tmp_path_factory.mktemp('models')
    (folder / 'catalogue.yaml').write_text(files_in(GUIDE)['models/catalogue.yaml'])
    shutil.copytree(find_model('scripted').tokenizer_folder, folder / 'polly')
    (folder / 'polly' / 'polly.parrot').write_text(f'{SENTENCE}\n')
    return folder


@pytest.fixture
def here(site, monkeypatch):
    """Let this process see the package."""
    monkeypatch.syspath_prepend(str(site))


@pytest.fixture
def edge_vlm(path):
    def run(*words):
        return subprocess.run(
            [sys.executable, '-m', 'edge_vlm_ros.cli.main', *map(str, words)],
            cwd=ROOT,
            env={**os.environ, **path},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.ros
def test_the_new_chip_is_asked_through_the_node_by_its_name(robot, path, models):
    node = {'chip': 'parrot', 'model_dirs': f"['{models}']", 'engine_options': "['shout=true']"}
    robot.vlm(node, env=path)
    client = robot.client
    client.until_state('ready')
    answer = client.ask('Who are you?', images=[client.grey(99)])
    assert answer.error_code == 0, answer.message
    assert answer.text == SENTENCE.upper()
    assert (answer.model, answer.chip) == ('polly', 'parrot')
    assert answer.stats.vision_tokens > 0


@pytest.mark.ros
def test_an_option_that_it_lacks_ends_the_start_with_the_list(other_robot, path, models):
    node = {'chip': 'parrot', 'model_dirs': f"['{models}']", 'engine_options': "['threads=2']"}
    started = other_robot.vlm(node, env=path)
    assert started.wait() == 1
    assert "no option 'threads' here: family internvl takes" in started.output()
    assert 'chip parrot takes shout' in started.output()


@pytest.mark.ros
def test_without_its_package_there_is_no_such_chip(other_robot):
    started = other_robot.vlm({'chip': 'parrot'})
    assert started.wait() == 1
    (line,) = started.output().splitlines()
    assert 'chip takes one of cpu, scripted, ' in line
    assert line.endswith("not 'parrot'")


def test_the_command_line_lists_it_and_asks_it(edge_vlm, models):
    listed = json.loads(
        edge_vlm('models', '--chip', 'parrot', '--model-dir', models, '--json').stdout
    )
    assert [(model['name'], model['is_default']) for model in listed] == [('polly', True)]
    words = ['ask', '--chip', 'parrot']
    done = edge_vlm(*words, '--model-dir', models, 'Who are you?')
    assert (done.returncode, done.stdout) == (0, f'{SENTENCE}\n'), done.stderr
    done = edge_vlm(*words, '--model', models / 'polly', '--option', 'shout=true', 'Who?')
    assert done.stdout == f'{SENTENCE.upper()}\n', done.stderr


def test_the_doctor_lists_it(edge_vlm, models):
    findings = json.loads(edge_vlm('doctor', '--json', '--model-dir', models).stdout)['findings']
    names = {finding['name']: finding for finding in findings}
    assert (names['chip parrot']['state'], names['chip parrot']['found']) == (
        'ok',
        'parrot.engine',
    )
    assert names['polly (parrot)']['found'] == str(models / 'polly')


def test_a_file_of_another_chip_is_refused(here, models):
    with pytest.raises(ModelFileError, match=r'a model for chip parrot is a \.parrot file'):
        find_model('parrot', str(models / 'polly' / 'config.json'))


def test_the_new_engine_keeps_the_laws(here, models):
    engine = open_engine('parrot', find_model('parrot', '', [models]))
    only_one = {'other tokens have other scores'}  # It says its sentence whatever was said.
    assert broken_laws(engine, rows=4, except_for=frozenset(only_one)) == []


def test_what_the_new_engine_leaves_out_is_refused(here, models):
    with pytest.raises(BadRequestError, match='models for chip parrot cannot be inspected'):
        inspect_model('parrot', find_model('parrot', '', [models]))


def test_the_launch_file_offers_it(here):
    assert launchable_chips()[-1] == 'parrot'
