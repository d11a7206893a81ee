"""The benchmark's frame: pairs, goals, table, file. What it measures is not tested: times vary."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools.bench import registry
from tools.bench.figure import Figure, as_table
from tools.bench.timing import Pairs, in_turn

ROOT = Path(__file__).resolve().parents[2]
KEYS = ['name', 'value', 'unit', 'baseline', 'ratio', 'goal', 'met', 'against']


@pytest.mark.parametrize(
    ('goal', 'value', 'ratio', 'met'),
    [
        ('ratio <= 1.2', 9.0, 1.2, True),
        ('ratio <= 1.2', 9.0, 1.21, False),
        ('ratio >= 8', 9.0, 10.0, True),
        ('value < 50', 49.0, None, True),
        ('value < 50', 50.0, None, False),
        ('value >= 100', 99.9, 1.0, False),
        ('', 1.0, 1.0, None),
    ],
)
def test_a_goal_is_met_or_not(goal, value, ratio, met):
    assert Figure('x', value, 'ms', None, '', ratio, goal).met is met


@pytest.mark.parametrize(
    ('goal', 'ratio'), [('fast', 1.0), ('ratio <= 1', None), ('value <', 1.0)]
)
def test_a_goal_that_says_nothing_is_refused(goal, ratio):
    with pytest.raises(ValueError, match='goal'):
        Figure('x', 1.0, 'ms', None, '', ratio, goal)


def test_the_ratio_is_the_median_of_the_pairs():
    pairs = Pairs((1.0, 10.0, 3.0), (2.0, 10.0, 2.0))
    assert (pairs.value_s, pairs.baseline_s) == (3.0, 2.0)
    assert (pairs.cost, pairs.gain) == (1.0, 1.0)


def test_both_are_measured_in_turn_and_take_turns_to_go_first():
    order = []

    def work(name, seconds):
        order.append(name)
        return seconds

    pairs = in_turn(lambda: work('v', 1.0), lambda: work('b', 2.0), rounds=4, warm_up=1)
    assert order == ['b', 'v', 'v', 'b', 'b', 'v', 'v', 'b', 'b', 'v']
    assert (pairs.values_s, pairs.baselines_s) == ((1.0,) * 4, (2.0,) * 4)


def test_the_table_says_what_was_not_met():
    good = Figure('good', 2.0, 'ms', 1.0, 'plain', 2.0, 'ratio >= 2')
    bad = Figure('bad', 2.0, 'ms', 1.0, 'plain', 2.0, 'ratio <= 1')
    lines = as_table([good, bad]).splitlines()
    assert [line.split()[-2] for line in lines[1:]] == ['yes', 'NO']


def test_every_module_of_figures_is_registered_and_says_what_it_measures():
    files = (ROOT / 'tools' / 'bench' / 'figures').glob('*.py')
    assert {file.stem for file in files} - {'__init__'} == set(registry.MODULES)
    assert all(registry.title_of(module).endswith('.') for module in registry.MODULES)


def test_names_may_be_shortened():
    assert registry.choose(['node_m', 'cam']) == ('camera', 'node_memory')
    assert registry.choose([]) == registry.MODULES
    with pytest.raises(ValueError, match='no figures'):
        registry.choose(['tea'])


def test_the_command_writes_a_table_and_a_file(tmp_path):
    output = tmp_path / 'new' / 'bench.json'
    command = [sys.executable, '-m', 'tools.bench', '--only', 'start', '--output', output]
    done = subprocess.run(
        [*map(str, command), '--plain-priority'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    figures = json.loads(output.read_text())['figures']
    assert [list(figure) for figure in figures] == [KEYS] * len(figures)
    assert 'import_package' in [figure['name'] for figure in figures]
    assert all(figure['value'] > 0 for figure in figures)
    assert 'import_package' in done.stdout


def test_an_unknown_figure_is_bad_usage():
    command = [sys.executable, '-m', 'tools.bench', '--only', 'tea']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert 'tea' in done.stderr


def test_what_cannot_be_measured_is_named_and_the_rest_goes_on(monkeypatch, tmp_path, capsys):
    from tools.bench import __main__ as bench

    def measure(module):
        if module == 'camera':
            raise RuntimeError('no camera')
        yield Figure(module, 1.0, 'ms')

    monkeypatch.setattr(bench, 'measure', measure)
    output = tmp_path / 'bench.json'
    monkeypatch.setattr(
        sys, 'argv', ['bench', '--plain-priority', '--only', 'camera', '--only', 'node_m']
    )
    monkeypatch.setattr(bench, 'OUTPUT', output)
    sys.argv += ['--output', str(output)]
    assert bench.main() == 1
    assert [f['name'] for f in json.loads(output.read_text())['figures']] == ['node_memory']
    assert 'camera' in capsys.readouterr().err


def test_what_this_machine_has_not_is_said_and_is_no_failure(monkeypatch, tmp_path, capsys):
    from support.sophgo import emulator

    from tools.bench import __main__ as bench

    monkeypatch.setattr(emulator, 'missing', lambda: 'no chip emulator: libcmodel.so is missing')
    output = tmp_path / 'bench.json'
    arguments = ['bench', '--plain-priority', '--only', 'sophgo', '--output', str(output)]
    monkeypatch.setattr(sys, 'argv', arguments)
    assert bench.main() == 0
    assert json.loads(output.read_text()) == {'figures': []}
    assert 'not measured: no chip emulator: libcmodel.so' in capsys.readouterr().out
