"""The self-test at load: how far a driver lets memory be bound in place, found out by trying."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from support.axera import sets
from support.axera.stub.build import build_stub
from support.axera.weights import tiny_weights

pytestmark = pytest.mark.axera

ROOT = Path(__file__).parents[3]
PROCESS = Path(__file__).with_name('self_test_process.py')
PYTHON_PATH = f'{ROOT}:{ROOT / "test"}:{ROOT / "test" / "support" / "axera" / "standin"}'
LAYERS = len(tiny_weights().layers)


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    @cache
    def write(name):
        return sets.write_tiny(tmp_path_factory.mktemp(name), sets.TINY_LAYOUTS[name])

    return write


@pytest.fixture
def trial(written):
    """Open a set in a process of its own; return what it says."""

    def run(name='tiny', library='stub', **options):
        chip = sets.TINY_LAYOUTS[name].chip
        environment = {**os.environ, 'EDGE_VLM_AX_CHIP': chip, 'PYTHONPATH': PYTHON_PATH}
        if library == 'stub':
            environment['EDGE_VLM_AX_LIBRARY'] = str(build_stub(chip))
        done = subprocess.run(
            [sys.executable, PROCESS, written(name), name, json.dumps(options)],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout.splitlines()[-1])
        assert (said['blocks'], said['handles']) == (0, 0)  # the trial's memory is free again
        return said

    return run


@pytest.mark.parametrize('name', sorted(sets.TINY_LAYOUTS))
def test_where_pointers_are_followed_rows_are_written_in_place(trial, name):
    said = trial(name, early_writes=1)
    assert said['rows'] == 'DirectRows'
    assert said['takes_slots']
    assert said['is_equal']
    assert said['loaded'] == LAYERS + 1
    assert [level for level, _ in said['log']] == ['INFO']


@pytest.mark.parametrize('name', ['tiny', 'tiny-irregular', 'tiny-decode-groups', 'tiny-fixed'])
@pytest.mark.parametrize(
    ('misbehaviour', 'why', 'takes_slots'),
    [({'latch': 1}, 'logits differ', False), ({'refuse_inside': 1}, 'the run failed', True)],
)
def test_where_pointers_do_not_move_rows_are_copied(trial, name, misbehaviour, why, takes_slots):
    said = trial(name, **misbehaviour)
    assert said['takes_slots'] is takes_slots
    assert said['rows'] == 'CopiedRows'
    assert said['is_equal']
    ((level, message),) = said['log']
    assert level == 'INFO'
    assert why in message


@pytest.mark.parametrize('misbehaviour', [{'latch': 2}, {'refuse_sharing': 1}])
def test_where_memory_cannot_be_shared_one_warning_says_so(trial, misbehaviour):
    said = trial(**misbehaviour)
    assert said['rows'] == ''
    assert said['loaded'] == 0
    ((level, message),) = said['log']
    assert level == 'WARNING'
    assert 'rows written in place: qwen2_p16' in message
    assert 'copied rows: qwen2_p16' in message


def test_without_the_c_library_one_warning_says_so(trial):
    said = trial(library='none')
    assert said['rows'] == ''
    ((level, message),) = said['log']
    assert level == 'WARNING'
    assert 'libax_engine.so cannot be loaded' in message
