"""The demo's processes are gone when it is."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from support.patience import Patience

from edge_vlm_ros.demo.processes import StartedProcess, StartedProcesses

ROOT = Path(__file__).resolve().parents[2]
GONE_S = 30.0
STUBBORN = """\
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
helper = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
print(helper.pid, flush=True)
time.sleep(60)
"""
POLITE = """\
import time
print('here', flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    print('good-bye', flush=True)
"""


PARENT = """\
import os, time
from pathlib import Path
from edge_vlm_ros.demo.processes import StartedProcess
child = StartedProcess('it', 'polite', [], dict(os.environ), Path({!r}))
print('pid', child.pid, 'end', flush=True)
time.sleep(60)
"""


@pytest.fixture
def child(tmp_path):
    started = []

    def start(code):
        module = tmp_path / f'module{len(started)}.py'
        module.write_text(code)
        env = {**os.environ, 'PYTHONPATH': str(tmp_path)}
        started.append(
            StartedProcess('it', module.stem, [], env, tmp_path / f'{len(started)}.log')
        )
        _wait_for_output(started[-1])
        return started[-1]

    yield start
    for one in started:
        one.stop(0.1)


def _wait_for_output(child):
    patience = Patience(GONE_S)
    while not child.last_lines():
        assert not patience.is_over()
        patience.look()


def _is_running(pid):
    try:
        stat = Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return False
    return stat.rpartition(')')[2].split()[0] != 'Z'


def _until_gone(pid):
    patience = Patience(GONE_S)
    while _is_running(pid):
        assert not patience.is_over()
        patience.look()


def test_a_polite_process_is_asked_first(child):
    one = child(POLITE)
    assert one.returncode is None
    assert one.stop() == 0
    assert one.last_lines() == ['here', 'good-bye']


def test_a_stubborn_process_goes_with_all_it_started(child):
    one = child(STUBBORN)
    helper = int(one.last_lines()[0])
    assert _is_running(helper)
    assert one.stop(0.2) == -signal.SIGKILL
    _until_gone(helper)


def test_one_that_has_ended_is_noticed(tmp_path):
    with StartedProcesses() as children:
        ended = children.start('it', 'no_such_module', [], os.environ, tmp_path / 'log')
        patience = Patience(GONE_S)
        while children.ended() is None and not patience.is_over():
            patience.look()
        assert children.ended() is ended
        assert 'no_such_module' in ended.last_lines()[-1]


def test_a_killed_parent_takes_its_processes_along(tmp_path, spawn):
    (tmp_path / 'polite.py').write_text(POLITE)
    env = {'PYTHONPATH': f'{ROOT}:{tmp_path}'}
    parent = spawn([sys.executable, '-c', PARENT.format(str(tmp_path / 'log'))], env=env)
    parent.wait_for_output('end')
    pid = int(parent.output().split()[1])
    assert _is_running(pid)
    os.kill(parent.pid, signal.SIGKILL)
    _until_gone(pid)
