"""The set-up does a step again exactly when it has to, and names what a machine lacks."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parents[2] / 'tools' / 'setup'


@pytest.fixture
def setup_modules(monkeypatch):
    """Return the set-up's modules `stamps`, `steps`, `system`, `console` and `browser`.

    They are scripts beside each other, not a package: a bare Python runs them.
    """
    monkeypatch.syspath_prepend(str(SETUP))
    names = ('stamps', 'steps', 'system', 'console', 'browser')
    modules = {name: __import__(name) for name in names}
    yield modules
    for name in names:
        sys.modules.pop(name)


@pytest.fixture
def make_step(setup_modules, tmp_path):
    """Make a step over one input file; `done` collects its runs."""

    def make(work):
        key = setup_modules['stamps'].key_of(tmp_path / 'input')
        stamp = setup_modules['stamps'].Stamp(tmp_path / 'stamps' / 'step', key)
        return setup_modules['steps'].Step('a step', stamp, work)

    (tmp_path / 'input').write_text('one')
    return make


def test_a_finished_step_is_not_done_again(make_step):
    make_step(lambda: None).run()
    assert make_step(lambda: None).is_done()


def test_a_changed_input_makes_a_step_due_again(make_step, tmp_path):
    make_step(lambda: None).run()
    (tmp_path / 'input').write_text('two')
    assert not make_step(lambda: None).is_done()


def test_an_interrupted_step_is_due_again_even_if_it_was_done_before(make_step):
    def interrupt():
        raise KeyboardInterrupt

    make_step(lambda: None).run()
    with pytest.raises(KeyboardInterrupt):
        make_step(interrupt).run()
    assert not make_step(lambda: None).is_done()


def test_keys_see_names_and_contents_of_all_files_in_a_folder(setup_modules, tmp_path):
    key_of = setup_modules['stamps'].key_of
    folder = tmp_path / 'msg'
    folder.mkdir()
    (folder / 'A.msg').write_text('bool a')
    keys = [key_of(folder)]
    (folder / 'A.msg').write_text('bool b')
    keys.append(key_of(folder))
    (folder / 'A.msg').rename(folder / 'B.msg')
    keys.append(key_of(folder))
    assert len(set(keys)) == 3


def test_missing_system_packages_are_named_with_the_command(setup_modules, monkeypatch):
    system = setup_modules['system']
    monkeypatch.setattr(system.shutil, 'which', lambda *_args, **_kw: None)
    monkeypatch.setattr(system.sysconfig, 'get_paths', lambda: {'include': '/nowhere'})
    with pytest.raises(setup_modules['console'].SetupError) as error:
        system.check_system(system.Ros(sourced=False, distro='kilted'))
    version = f'python3.{sys.version_info.minor}'
    assert 'a C++ compiler' in str(error.value)
    assert f'sudo apt install {version}-dev g++' in str(error.value)


def test_a_machine_without_wheels_is_told_to_install_ros(setup_modules, monkeypatch):
    system = setup_modules['system']
    monkeypatch.setattr(system.platform, 'machine', lambda: 'aarch64')
    with pytest.raises(setup_modules['console'].SetupError, match=r'source its setup\.bash'):
        system.check_wheels_exist()


def test_a_failed_command_shows_the_end_of_its_output(setup_modules, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    failing = [sys.executable, '-c', "print('no such header'); raise SystemExit(3)"]
    with pytest.raises(setup_modules['console'].SetupError, match='no such header'):
        setup_modules['console'].run_logged(failing)


def test_a_sourced_ros_keeps_the_numpy_it_was_built_for(setup_modules, tmp_path):
    ros = setup_modules['system'].Ros(sourced=True, distro='humble', numpy_version='1.21.5')
    (tmp_path / '.venv').mkdir()
    option, file = setup_modules['steps'].Environment(tmp_path, ros).constraints()
    assert option == '--constraint'
    assert Path(file).read_text() == 'numpy>=1,<2\n'


@pytest.fixture
def not_sourced(monkeypatch):
    monkeypatch.delenv('ROS_DISTRO', raising=False)


@pytest.mark.parametrize(('wanted', 'distro'), [('', 'kilted'), ('jazzy', 'jazzy')])
def test_the_wheels_of_the_wanted_distribution_are_taken(
    setup_modules, not_sourced, wanted, distro
):
    assert setup_modules['system'].find_ros(wanted).distro == distro


def test_a_distribution_that_pypi_does_not_have_is_refused_with_those_it_has(
    setup_modules, not_sourced
):
    error = setup_modules['console'].SetupError
    with pytest.raises(error, match='ROS=humble: PyPI has ROS 2 kilted and jazzy'):
        setup_modules['system'].find_ros('humble')


def test_another_distribution_than_the_sourced_one_is_refused(setup_modules, monkeypatch):
    monkeypatch.setenv('ROS_DISTRO', 'humble')
    monkeypatch.setenv('AMENT_PREFIX_PATH', '/opt/ros/humble')
    with pytest.raises(setup_modules['console'].SetupError, match='ROS 2 humble is sourced'):
        setup_modules['system'].find_ros('jazzy')


@pytest.mark.parametrize('wanted', ['', 'kilted', 'jazzy'])
def test_run_chooses_the_environment_that_the_set_up_made(setup_modules, tmp_path, wanted):
    """With a copy of run.sh in a tree that has nothing else."""
    script = tmp_path / 'tools' / 'setup' / 'run.sh'
    script.parent.mkdir(parents=True)
    script.write_text((SETUP / 'run.sh').read_text())
    env = {'PATH': os.defpath, 'ROS': wanted}
    words = ['sh', script, 'sh', '-c', 'echo $VIRTUAL_ENV ${ROS_DISTRO-none}']
    done = subprocess.run(words, env=env, check=True, capture_output=True, text=True)
    folder = tmp_path / setup_modules['steps'].folder_name(wanted)
    assert done.stdout.split() == [str(folder), 'jazzy' if wanted == 'jazzy' else 'none']


@pytest.mark.parametrize('distro', ['kilted', 'jazzy'])
def test_every_distribution_has_its_list_and_its_constraints_make_the_step_due(
    setup_modules, tmp_path, distro
):
    system, steps = setup_modules['system'], setup_modules['steps']
    assert distro in system.WHEELS
    (found,) = steps.constraints_of([steps.REQUIREMENTS / f'ros-{distro}.txt']) or [None]
    assert (found is not None) == (distro == 'jazzy')
    assert found is None or found.is_file()


def test_the_constraints_of_jazzy_are_for_one_release_and_name_all_that_must_not_be_newer(
    setup_modules,
):
    folder = setup_modules['steps'].REQUIREMENTS
    lines = (folder / 'ros-jazzy-constraints.txt').read_text().splitlines()
    pinned = {line.partition('==')[0] for line in lines if not line.startswith('#')}
    wanted = (folder / 'ros-jazzy.txt').read_text().splitlines()
    names = {line.partition('==')[0].partition('[')[0] for line in wanted if line[:4] == 'ros-'}
    assert names <= pinned


def test_a_python_out_of_range_is_refused_with_the_range(setup_modules, monkeypatch):
    system = setup_modules['system']
    monkeypatch.setattr(system.sys, 'version_info', (3, 9, 0))
    monkeypatch.setattr(system.shutil, 'which', lambda *_: None)
    with pytest.raises(setup_modules['console'].SetupError, match=r'Python 3\.10 to 3\.14 is'):
        system.check_python()


def test_each_level_has_the_steps_of_the_one_before(setup_modules, tmp_path):
    steps = setup_modules['steps']
    env = steps.Environment(tmp_path, setup_modules['system'].Ros(sourced=False, distro='jazzy'))
    titles = [[s.title for s in steps.steps_for(level, env)] for level in steps.LEVELS]
    assert [len(t) for t in titles] == sorted(len(t) for t in titles)
    for less, more in itertools.pairwise(titles):
        assert [title for title in more if title in less] == less
    assert any('Jazzy' in title for title in titles[0])


@pytest.fixture
def machine(setup_modules, monkeypatch, capsys):
    """Make a machine with or without a browser, apt-get and the rights of root.

    Returns what makes it, and with `run` carries its browser step out: the commands that would be
    run and what was said.
    """
    browser = setup_modules['browser']
    commands = []

    class Machine:
        steps = setup_modules['steps']

        def __call__(self, *, programs=(), is_root=True, failing=''):
            def run_logged(command, env):
                commands.append(command)
                if failing in command:
                    raise setup_modules['console'].SetupError('no network')

            monkeypatch.setattr(browser.shutil, 'which', {p: f'/bin/{p}' for p in programs}.get)
            monkeypatch.setattr(browser.os, 'geteuid', lambda: 0 if is_root else 1000)
            monkeypatch.setattr(browser, 'run_logged', run_logged)

        def run(self):
            commands.clear()
            browser.provide()
            return commands, capsys.readouterr().out

    return Machine()


def test_a_browser_that_is_there_is_taken(machine):
    machine(programs=['chromium', 'apt-get'])
    assert machine.run() == ([], '')


def test_as_root_on_a_debian_the_browser_is_installed(machine):
    machine(programs=['apt-get'])
    (update, install), _ = machine.run()
    assert update == ['apt-get', 'update']
    assert {'install', '--no-install-recommends', 'chromium', 'fonts-dejavu-core'} < set(install)


@pytest.mark.parametrize('how', [{'is_root': False, 'programs': ['apt-get']}, {'programs': []}])
def test_elsewhere_the_command_is_said_and_the_set_up_goes_on(machine, how):
    machine(**how)
    commands, said = machine.run()
    assert not commands
    assert 'sudo apt-get install --yes --no-install-recommends chromium' in said


@pytest.mark.parametrize('failing', ['update', 'install'])
def test_a_browser_that_cannot_be_installed_ends_nothing(machine, failing):
    machine(programs=['apt-get'], failing=failing)
    _, said = machine.run()
    assert '`browser` tests are skipped: no network' in said


def test_the_browser_step_is_due_while_it_can_be_installed_and_else_once(machine, tmp_path):
    steps = machine.steps
    env = steps.Environment(tmp_path, steps.system.Ros(sourced=False, distro='kilted'))
    step = steps.page_browser(env)
    machine(programs=['apt-get'], is_root=False)
    assert not step.is_done()
    step.run()
    assert step.is_done(), 'said once'
    machine(programs=['apt-get'])
    assert not step.is_done(), 'now it can be installed'
    machine(programs=['chromium'])
    assert step.is_done()
