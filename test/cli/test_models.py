"""`edge-vlm models`."""

from __future__ import annotations

import json
import re

import pytest

from edge_vlm_ros.cli.cpu_estimate import MachineSpeed, estimate
from edge_vlm_ros.core import chip_names
from edge_vlm_ros.models import load_catalogue
from edge_vlm_ros.models.catalogue import ModelWork


def test_the_table_lists_the_whole_catalogue(edge_vlm):
    done = edge_vlm('models')
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    for entry in load_catalogue().entries:
        assert any(line[:2] == [entry.chip, entry.name] for line in lines)


def test_one_chip_alone_comes_with_the_commands_that_fetch_its_models(edge_vlm, tmp_path):
    env_dir = tmp_path / 'models'
    done = edge_vlm('models', '--chip', 'ax650', '--model-dir', env_dir)
    assert 'bm1684x' not in done.stdout
    assert 'to get internvl3-2b:' in done.stdout
    assert str(env_dir / 'ax650' / 'internvl3-2b') in done.stdout


def test_json_says_what_is_on_disk(edge_vlm):
    models = json.loads(edge_vlm('models', '--json').stdout)
    scripted = next(model for model in models if model['chip'] == 'scripted')
    assert scripted['folder'] != ''
    assert scripted['problem'] == ''
    assert scripted['nbytes'] > 0
    away = next(model for model in models if model['chip'] == 'ax630c')
    assert away['folder'] == ''
    assert 'missing' in away['problem']
    assert away['remedy'] != ''
    assert (away['context_tokens'], away['sdk']) == (1280, 'AX630C 3.12')
    assert away['device_memory_mb'] == 1638
    chips = [model['chip'] for model in models]
    assert chips == sorted(chips, key=chip_names().index)


def test_what_models_of_the_cpu_take_here_is_said_and_how_it_is_known(edge_vlm):
    done = edge_vlm('models', '--chip', 'cpu')
    assert 'on the CPU of this machine, estimated in float32 from' in done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith('  smolvlm-256m: ')]
    assert re.fullmatch(
        r'  smolvlm-256m: 600 MiB, first word after [\d.]+ s with one tile, '
        r'each more [\d.]+ s, then \d+ tokens/s',
        lines[0],
    )
    models = json.loads(edge_vlm('models', '--chip', 'cpu', '--json').stdout)
    costs = {model['name']: model['cost'] for model in models}
    assert costs['demo'] is None
    small, large = costs['smolvlm2-256m'], costs['smolvlm2-500m']
    assert 0 < small['first_word_s'] < large['first_word_s']
    assert 0 < large['tokens_per_s'] < small['tokens_per_s']


def test_an_estimate_is_what_the_weights_and_the_machine_make_it():
    """As measured: 2.35 s a tile and 38 ms a token of SmolVLM-256M in float32."""
    work = ModelWork(94, 768, 12, 1024, 64, 136)
    found = estimate(work, MachineSpeed(arithmetic=50e9, reading=4e9))
    assert found.tile_s == pytest.approx(2.35 + 64 * 136e6 / 50e9, abs=0.15)
    assert found.tokens_per_s == pytest.approx(1 / 0.038, rel=0.15)
    assert found.first_word_s > found.tile_s


def test_a_model_of_ones_own_is_listed(edge_vlm, tmp_path, script):
    folder = tmp_path / 'mine'
    (folder / 'parrot').mkdir(parents=True)
    script.rename(folder / 'parrot' / 'script.yaml')
    (folder / 'catalogue.yaml').write_text(
        'models:\n- {name: parrot, chip: scripted, family: internvl,'
        ' files: {script: {path: script.yaml}}}\n'
    )
    done = edge_vlm('models', '--chip', 'scripted', '--json', '--model-dir', folder)
    assert 'parrot' in [model['name'] for model in json.loads(done.stdout)]


def test_an_unknown_chip_ends_with_2(edge_vlm):
    done = edge_vlm('models', '--chip', 'tpu')
    assert (done.returncode, done.stdout) == (2, '')
    assert 'tpu' in done.stderr


def test_a_broken_catalogue_ends_with_3(edge_vlm, tmp_path):
    (tmp_path / 'catalogue.yaml').write_text('models: [{name: 3}]')
    done = edge_vlm('models', '--model-dir', tmp_path)
    assert (done.returncode, done.stdout) == (3, '')
    assert str(tmp_path) in done.stderr
