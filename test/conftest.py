"""Fixtures and rules for all tests: markers, ROS domains, processes."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import itertools
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from support.sophgo.emulator import missing as missing_emulator

ROOT = Path(__file__).resolve().parents[1]
FASTDDS_PROFILE = ROOT / 'config' / 'fastdds_shm.xml'
FAST_DDS_2_DISTROS = {'humble', 'iron', 'jazzy'}
IN_CI = os.environ.get('CI', '').lower() in {'1', 'true'}
# Fast DDS derives its ports from the domain: above 101 they leave the safe range.
LAST_DOMAIN = 101
_counter = itertools.count()


def _lacks_ros() -> str:
    if importlib.util.find_spec('rclpy') is None:
        return 'no ROS 2: rclpy cannot be imported'
    if importlib.util.find_spec('edge_vlm_ros.msg') is None:
        return 'the interfaces are not built: make setup'
    return ''


def _lacks_torch() -> str:
    if importlib.util.find_spec('torch') is None:
        return 'no float reference: torch is not installed (no CPU build for this Python)'
    return ''


REQUIREMENTS = {'emulator': missing_emulator, 'reference': _lacks_torch, 'ros': _lacks_ros}


def pytest_configure():
    """Hear Ctrl-C also where the shell started us in the background, which ignores it.

    An ignored signal stays ignored in every process that a test starts.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item):
    """Skip what cannot run here and say why; in CI everything must run."""
    for marker, lacks in REQUIREMENTS.items():
        reason = lacks() if item.get_closest_marker(marker) else ''
        if reason and IN_CI:
            pytest.fail(f'in CI nothing is skipped: {reason}', pytrace=False)
        if reason:
            pytest.skip(reason)


@pytest.fixture
def ros_domain(monkeypatch):
    """Give this test a ROS domain of its own, on this machine only.

    The environment is set for the test's own process and for those it starts; the value is the
    domain id, for `rclpy.init(context=..., domain_id=...)`.
    """
    domain, lock = _take_domain()
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    if os.environ.get('ROS_DISTRO') == 'humble':
        monkeypatch.setenv('ROS_LOCALHOST_ONLY', '1')
    monkeypatch.setenv('FASTDDS_DEFAULT_PROFILES_FILE', str(FASTDDS_PROFILE))
    monkeypatch.delenv('FASTRTPS_DEFAULT_PROFILES_FILE', raising=False)
    if os.environ.get('ROS_DISTRO') in FAST_DDS_2_DISTROS:
        monkeypatch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', str(FASTDDS_PROFILE))
    yield domain
    lock.close()


def _take_domain():
    """Return a domain id that no other test run on this machine holds, and the lock on it."""
    folder = Path(tempfile.gettempdir()) / f'edge_vlm_ros_domains_{os.getuid()}'
    folder.mkdir(exist_ok=True)
    first = os.getpid() + next(_counter)
    for offset in range(LAST_DOMAIN):
        domain = 1 + (first + offset) % LAST_DOMAIN
        lock = (folder / str(domain)).open('w')
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
        else:
            return domain, lock
    pytest.fail(f'all {LAST_DOMAIN} ROS domains are taken by other test runs')


class Spawned:
    """A process started by a test, with all its children in a process group of its own.

    Args:
        process: The started process.
        log: The file its output goes to.
    """

    def __init__(self, process, log):
        self.process = process
        self.log = log

    @property
    def pid(self):
        return self.process.pid

    def output(self):
        """Return what it has printed so far, standard error included."""
        return self.log.read_text(errors='replace')

    def wait_for_output(self, text, timeout_s=30.0):
        """Wait until it has printed `text`."""
        deadline = time.monotonic() + timeout_s
        while text not in self.output():
            if self.process.poll() is not None and text not in self.output():
                pytest.fail(
                    f'ended ({self.process.returncode}) without {text!r}:\n{self.output()}'
                )
            if time.monotonic() > deadline:
                pytest.fail(f'no {text!r} within {timeout_s} s:\n{self.output()}')
            time.sleep(0.02)

    def wait(self, timeout_s=30.0):
        """Wait for its end and return the exit status."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f'still running after {timeout_s} s:\n{self.output()}')

    def signal(self, number):
        """Send a signal to the process and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def stop(self, timeout_s=10.0):
        """End it as Ctrl-C does, harder if it does not obey; return the exit status."""
        for number in (signal.SIGINT, signal.SIGTERM):
            if self.process.poll() is not None:
                break
            self.signal(number)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                continue
        self.signal(signal.SIGKILL)  # children that outlived it, too
        return self.process.wait()


@pytest.fixture
def spawn(tmp_path):
    """Start processes that are gone after the test: `spawn([sys.executable, '-m', ...])`.

    Their output is kept in files and readable with `output()`.
    """
    started = []

    def start(command, **options):
        log = tmp_path / f'process-{len(started)}.log'
        with log.open('w') as output:
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **options,
            )
        started.append(Spawned(process, log))
        return started[-1]

    yield start
    for spawned in reversed(started):
        spawned.stop()
