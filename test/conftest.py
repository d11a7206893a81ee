"""Fixtures and rules for all tests: markers, ROS domains, processes."""

from __future__ import annotations

import importlib.util
import os
import signal

import pytest
from hypothesis import HealthCheck, settings
from support import leftovers, processes
from support.browser import find_browser
from support.domains import own_domain
from support.environment import apply, on_domain
from support.guardian import Guardian
from support.patience import Patience
from support.sophgo.emulator import missing as missing_emulator

IN_CI = os.environ.get('CI', '').lower() in {'1', 'true'}
GONE_S = 20.0
# A law holds however busy the machine is.
settings.register_profile('untimed', deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile('untimed')
LONG_FILES = {'test_builds.py', 'test_known_answers.py', 'test_score.py', 'test_run.py'}
_guardian = pytest.StashKey[Guardian]()
_run = pytest.StashKey[str]()
_collected = pytest.StashKey[dict[str, bool]]()
"""What was collected before anything was left out: id -> whether it is exhaustive."""


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


def _lacks_browser() -> str:
    if not find_browser():
        return 'no browser: Chromium is not installed (make setup says how)'
    if importlib.util.find_spec('playwright') is None:
        return 'playwright is not installed: make setup'
    return ''


REQUIREMENTS = {
    'browser': _lacks_browser,
    'emulator': missing_emulator,
    'reference': _lacks_torch,
    'ros': _lacks_ros,
}


def pytest_configure(config):
    """Take charge of the processes that tests start.

    A worker of pytest-xdist has a run of its own within that of the process which started it, and
    whose guardian looks after both.
    """
    # Ctrl-C and a hang-up are heard also where the shell started us in the background or nohup
    # did, which ignore them: an ignored signal stays ignored in every process that a test starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # Humble's messages check the types of their fields always, the others only when they are told.
    os.environ['ROS_PYTHON_CHECK_FIELDS'] = '1'
    config.stash[_run] = leftovers.enter_run(str(os.getpid()))
    if not hasattr(config, 'workerinput'):
        config.stash[_guardian] = Guardian(config.stash[_run])


def pytest_unconfigure(config):
    """Let the guardian end what is left."""
    if _guardian in config.stash:
        config.stash[_guardian].close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """In CI a test that is skipped has failed: whatever CI never runs, nobody runs."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, 'wasxfail'):
        report.outcome = 'failed'
        report.longrepr = f'in CI nothing is skipped: {call.excinfo.value}'
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """Likewise for a whole file."""
    report = yield
    if IN_CI and report.skipped:
        report.outcome = 'failed'
        report.longrepr = f'in CI nothing is skipped: {report.longrepr}'
    return report


@pytest.fixture(scope='session', autouse=True)
def nothing_is_left(pytestconfig):
    """After the last test no process that a test has started lives on."""
    own = leftovers.processes_of(pytestconfig.stash[_run])  # the guardian
    yield
    patience = Patience(GONE_S)
    while left := _without(own, leftovers.processes_of(pytestconfig.stash[_run])):
        assert not patience.is_over(), f'tests have left processes: {left}'
        patience.look()


@pytest.fixture(scope='session')
def collected_here(pytestconfig):
    """Return what this run has collected before anything was left out: id -> is exhaustive."""
    return pytestconfig.stash[_collected]


def _without(known, found):
    return {pid: command for pid, command in found.items() if pid not in known}


def pytest_addoption(parser):
    """Add the choice between what every run proves and what repeats it on more variants."""
    parser.addoption(
        '--exhaustive',
        choices=('without', 'only'),
        help='run without the tests marked so (make test), or only those (make test-exhaustive)',
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Leave out what is not asked for; for several workers, put what takes longest first."""
    config.stash[_collected] = {
        item.nodeid: item.get_closest_marker('exhaustive') is not None for item in items
    }
    choice = config.getoption('exhaustive')
    if choice is not None:
        chosen = [
            item
            for item in items
            if (item.get_closest_marker('exhaustive') is not None) is (choice == 'only')
        ]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
        items[:] = chosen
    if hasattr(config, 'workerinput'):
        items.sort(key=lambda item: item.path.name not in LONG_FILES)  # stable


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Skip what cannot run here and say why."""
    for marker, lacks in REQUIREMENTS.items():
        if item.get_closest_marker(marker) and (reason := lacks()):
            pytest.skip(reason)


@pytest.fixture
def ros_domain(monkeypatch):
    """Give this test a ROS domain of its own, on this machine only.

    The environment is set for the test's own process and for those it starts; the value is the
    domain id, for `rclpy.init(context=..., domain_id=...)`.
    """
    with own_domain() as domain:
        apply(on_domain(domain), monkeypatch)
        yield domain


@pytest.fixture
def spawn(tmp_path):
    """Start processes that are gone after the test: `spawn([sys.executable, '-m', ...])`.

    Their output is kept in files and readable with `output()`; `env` is what changes in their
    environment.
    """
    started = []

    def start(command, env=None, cwd=None):
        log = tmp_path / f'process-{len(started)}.log'
        started.append(processes.spawn(command, log, env or {}, cwd=cwd))
        return started[-1]

    yield start
    for spawned in reversed(started):
        spawned.stop()
