"""Both builds of the same tree install everything, and their messages cross between processes."""

import os
import shlex
import signal
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
from support.environment import environment

CROSS = Path(__file__).with_name('messages_cross.py')
PYTHON_VERSION = f'python{sys.version_info.major}.{sys.version_info.minor}'
# Set by the ROS wheels for the Python they are installed in; another one must find its own.
WHEEL_VARIABLES = ('_ROS_WHEELS_BOOTSTRAP_COMPLETE', 'LD_LIBRARY_PATH')
ROS_WHEELS = [d for d in distributions() if d.metadata['Name'] == 'ros-rclpy']
ROS_IS_SOURCED = not ROS_WHEELS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def run(command, env, cwd=None):
    """Run a command that must succeed; return what it printed. A timeout ends its children too.

    Args:
        command: Program and arguments.
        env: What changes in its environment.
        cwd: Where it runs.
    """
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd=cwd,
        env=environment(env),
    )
    try:
        printed, _ = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    assert process.returncode == 0, printed[-6000:]
    return printed


def own_files(tree):
    """Return the package's own files, relative to the tree."""
    files = (f for f in (tree / 'edge_vlm_ros').rglob('*') if f.is_file())
    return {str(f.relative_to(tree)) for f in files if f.suffix not in {'.pyc', '.so'}}


def shared_files(tree):
    """Return the launch and configuration files, relative to the tree."""
    files = (f for d in ('config', 'launch') for f in (tree / d).rglob('*') if f.is_file())
    return {str(f.relative_to(tree)) for f in files if f.suffix != '.pyc'}


def missing(folder, names):
    """Return the names that are not files in `folder`."""
    return sorted(name for name in names if not (folder / name).is_file())


def assert_installed(tree, prefix, site_packages):
    """Check that everything of the tree that must be installed is."""
    assert missing(site_packages, own_files(tree)) == []
    assert missing(prefix / 'share' / 'edge_vlm_ros', shared_files(tree)) == []
    assert missing(prefix / 'share' / 'edge_vlm_ros', {'package.xml', 'msg/Answer.msg'}) == []
    for name in ('lib/edge_vlm_ros/vlm_node', 'lib/edge_vlm_ros/camera_node', 'bin/edge-vlm'):
        assert os.access(prefix / name, os.X_OK), name


def assert_messages_cross(spawn, python, folder, setup='true', env=None):
    """Check that an answer gets from one process to another with these interfaces."""

    def start(role):
        words = shlex.join([str(python), str(CROSS), role, str(folder)])
        return spawn(['bash', '-c', f'{setup} && exec {words}'], cwd=folder, env=env)

    listener = start('listen')
    listener.wait_for_output('listening')
    talker = start('talk')
    assert talker.wait(90) == 0, talker.output()
    assert listener.wait(90) == 0, listener.output()
    assert 'heard a red ball, 红色的球 1 front' in listener.output()


@pytest.mark.exhaustive
@pytest.mark.ros
def test_colcon_builds_and_its_messages_cross(clean_tree, tmp_path, spawn, ros_domain):
    folders = {f'--{kind}-base': tmp_path / kind for kind in ('build', 'install')}
    options = [word for pair in folders.items() for word in pair]
    prefixes = [p for p in os.environ.get('AMENT_PREFIX_PATH', '').split(':') if p]
    joined = ':'.join(dict.fromkeys([*prefixes, sys.prefix]))
    path = f'{sys.prefix}/bin:{os.environ["PATH"]}'
    env = {'PATH': path, 'AMENT_PREFIX_PATH': joined, 'CMAKE_PREFIX_PATH': joined}
    colcon = [sys.executable, '-m', 'colcon', '--log-base', tmp_path / 'log', 'build', *options]
    python_is = f'-DPython3_EXECUTABLE={sys.executable}'
    run([*colcon, '--base-paths', clean_tree, '--cmake-args', python_is], env=env, cwd=tmp_path)
    prefix = tmp_path / 'install' / 'edge_vlm_ros'
    site_packages = prefix / 'lib' / PYTHON_VERSION / 'site-packages'
    assert_installed(clean_tree, prefix, site_packages)
    setup = f'. {tmp_path}/install/setup.bash'
    assert_messages_cross(spawn, sys.executable, prefix, setup, env)


@pytest.mark.exhaustive
@pytest.mark.ros
def test_pip_builds_in_a_fresh_environment_and_its_messages_cross(
    clean_tree, tmp_path, spawn, ros_domain
):
    env, python = fresh_environment(tmp_path, with_ros=True)
    run([python, '-m', 'pip', 'install', '--no-deps', clean_tree], env=env, cwd=tmp_path)
    prefix = tmp_path / 'venv'
    site_packages = prefix / 'lib' / PYTHON_VERSION / 'site-packages'
    assert_installed(clean_tree, prefix, site_packages)
    first_line = (prefix / 'lib/edge_vlm_ros/vlm_node').read_text().partition('\n')[0]
    assert first_line == f'#!{python}'
    if ROS_IS_SOURCED:
        env['LD_LIBRARY_PATH'] = f'{prefix}/lib:{os.environ.get("LD_LIBRARY_PATH", "")}'
        env['AMENT_PREFIX_PATH'] = f'{prefix}:{os.environ["AMENT_PREFIX_PATH"]}'
    assert_messages_cross(spawn, python, site_packages, env=env)
    run([python, '-m', 'pip', 'uninstall', '--yes', 'edge_vlm_ros'], env=env)
    left = [f for f in prefix.rglob('*edge_vlm*') if f.is_file()]
    assert left == []


def test_pip_installs_the_modules_alone_where_there_is_no_ros(clean_tree, tmp_path):
    env, python = fresh_environment(tmp_path, with_ros=False)
    pip = [python, '-m', 'pip', '-v', 'install', '--no-deps', clean_tree]
    printed = run(pip, env=env, cwd=tmp_path)
    site_packages = tmp_path / 'venv' / 'lib' / PYTHON_VERSION / 'site-packages'
    assert 'installing the Python modules only' in printed
    assert missing(site_packages, own_files(clean_tree)) == []
    assert not (site_packages / 'edge_vlm_ros' / 'msg').exists()
    assert 'py3-none-any' in next(site_packages.glob('edge_vlm_ros-*/WHEEL')).read_text()


def fresh_environment(tmp_path, *, with_ros):
    """Make a virtual environment; return what changes in the variables, and its Python."""
    folder = tmp_path / 'venv'
    env = dict.fromkeys(WHEEL_VARIABLES)
    sourced = with_ros and ROS_IS_SOURCED
    if not sourced:
        env |= dict.fromkeys(('AMENT_PREFIX_PATH', 'CMAKE_PREFIX_PATH', 'PYTHONPATH'))
    options = ['--system-site-packages'] if sourced else []
    run(
        [getattr(sys, '_base_executable', sys.executable), '-m', 'venv', *options, folder], env=env
    )
    python = folder / 'bin' / 'python'
    if with_ros and not sourced:
        requirements = Path(__file__).resolve().parents[2] / 'tools' / 'setup' / 'requirements'
        distro = os.environ.get('ROS_DISTRO', 'kilted')  # run.sh names any other
        files = ['-r', requirements / f'ros-{distro}.txt', '-r', requirements / 'build.txt']
        run([python, '-m', 'pip', 'install', '-q', *files], env=env)
    return env, python
