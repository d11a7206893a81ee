"""What a test run starts ends with it, also when the run is killed."""

from __future__ import annotations

import os
import signal
import sys
import uuid
from pathlib import Path

import pytest
from support import leftovers
from support.guardian import Guardian
from support.patience import Patience
from support.processes import spawn as start

ROOT = Path(__file__).resolve().parents[2]
GONE_S = 60.0

# A test of a node, as far as the moment at which its pytest is killed.
UNENDING = """
import sys, time
from pathlib import Path
import pytest

@pytest.mark.timeout(0)
def test_a_node(spawn, ros_domain):
    words = '--ros-args -p chip:=cpu -p model:=demo -p autostart:=true'
    node = spawn([sys.executable, '-m', 'edge_vlm_ros.nodes.vlm_main', *words.split()])
    Path('starting').write_text(str(node.pid))
    Path('starting').rename('started')
    time.sleep(10_000)
"""


@pytest.fixture
def run():
    """Name a run of which this test starts the processes."""
    return f'{os.environ[leftovers.VARIABLE]}/{uuid.uuid4()}'


def until(condition, what):
    patience = Patience(GONE_S)
    while not condition():
        assert not patience.is_over(), what()
        patience.look()


def shared_memory():
    """Return name and inode of what is there; a name may be taken again."""
    return {(entry.name, entry.inode()) for entry in os.scandir('/dev/shm')}


def memory_of(pid):
    """Return name and inode of the shared memory that a process has mapped."""
    words = [line.split() for line in Path(f'/proc/{pid}/maps').read_text().splitlines()]
    return {(Path(w[-1]).name, int(w[4])) for w in words if w[-1].startswith('/dev/shm/fast')}


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize('workers', [(), ('-n', '1')], ids=['serial', 'workers'])
def test_a_killed_run_leaves_neither_processes_nor_shared_memory(tmp_path, run, workers):
    (tmp_path / 'test_unending.py').write_text(UNENDING)
    words = ['-c', ROOT / 'pyproject.toml', '--rootdir', ROOT, '-p', 'conftest', *workers]
    path = os.pathsep.join(map(str, (ROOT / 'test', ROOT)))
    killed = start(
        [sys.executable, '-m', 'pytest', *words, tmp_path / 'test_unending.py'],
        tmp_path / 'log',
        {leftovers.VARIABLE: run, 'PYTHONPATH': path},
        cwd=tmp_path,
    )
    try:
        until((tmp_path / 'started').exists, killed.output)
        node = int((tmp_path / 'started').read_text())
        until(lambda: len(model_processes(run)) == 1, killed.output)
        until(lambda: memory_of(node), killed.output)
        memory = memory_of(node)
        os.kill(killed.pid, signal.SIGKILL)
        killed.process.wait()
        until(lambda: not leftovers.processes_of(run), lambda: str(leftovers.processes_of(run)))
        assert not memory & shared_memory()
    finally:
        leftovers.kill_processes_of(run)


def model_processes(run):
    return [
        command for command in leftovers.processes_of(run).values() if 'serving.process' in command
    ]


def test_a_guardian_ends_what_hides_in_groups_and_sessions_of_its_own(run, tmp_path):
    hidden = 'import os, time; os.fork() or (os.setsid(), os.fork()); time.sleep(10_000)'
    guardian = Guardian(run)
    started = start([sys.executable, '-c', hidden], tmp_path / 'log', {leftovers.VARIABLE: run})
    until(lambda: len(leftovers.processes_of(run)) == 3, lambda: 'not started')
    guardian.close()
    assert not leftovers.processes_of(run)
    assert started.process.wait() == -signal.SIGKILL


def test_other_runs_are_left_alone(run, tmp_path):
    other = start(
        [sys.executable, '-c', 'import time; time.sleep(10_000)'],
        tmp_path / 'log',
        {leftovers.VARIABLE: f'{run}1'},
    )
    try:
        until(lambda: leftovers.processes_of(f'{run}1'), lambda: 'not started')
        leftovers.kill_processes_of(run)
        assert other.process.poll() is None
    finally:
        other.stop(0.0)


def test_shared_memory_whose_lock_is_held_is_kept_and_without_owner_removed():
    import fcntl

    name = f'fastdds_{uuid.uuid4().hex[:16]}'
    segment, lock = (Path('/dev/shm') / file for file in (name, f'{name}_el'))
    segment.write_bytes(b'memory')
    with lock.open('w') as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert name not in leftovers.remove_dead_shared_memory()
        assert segment.exists()
    assert name in leftovers.remove_dead_shared_memory()
    assert not segment.exists()
    assert not lock.exists()
