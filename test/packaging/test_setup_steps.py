"""The set-up does a step again exactly when it has to, and names what a machine lacks."""

import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parents[2] / 'tools' / 'setup'


@pytest.fixture
def setup_modules(monkeypatch):
    """Return the set-up's modules `stamps`, `steps`, `system` and `console`.

    They are scripts beside each other, not a package: a bare Python runs them.
    """
    monkeypatch.syspath_prepend(str(SETUP))
    names = ('stamps', 'steps', 'system', 'console')
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
