"""Look at the machine: Python, compiler, ROS 2; name what is missing and how to get it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from console import SetupError, say

OLDEST = (3, 10)
"""Of Humble's Ubuntu 22.04."""
NEWEST = (3, 14)
"""Of Lyrical's Ubuntu 26.04; the wheels of ROS 2 on PyPI go as far."""
PROBE = 'import numpy, rclpy, rosidl_generator_py; print(numpy.__version__)'
WHEELS = ('kilted', 'jazzy')
"""The distributions of ROS 2 that PyPI has; the first is taken unless another is asked for."""


@dataclass(frozen=True)
class Ros:
    """Which ROS 2 is used: the sourced one, or the wheels from PyPI."""

    sourced: bool
    distro: str
    numpy_version: str = ''  # of the sourced one: its messages are compiled for this numpy


def check_python() -> None:
    """Go on with a Python of the right version; start again with a better one where there is one.

    Raises:
        SetupError: No Python from `OLDEST` to `NEWEST` is here.
    """
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        other = shutil.which(f'python3.{minor}')
        if other and works(other):
            say(f'Python {platform.python_version()} is out of range; using {other}')
            os.execv(other, [other, *sys.argv])  # noqa: S606, a Python, with our own arguments
    oldest, newest = ('.'.join(map(str, version)) for version in (OLDEST, NEWEST))
    raise SetupError(
        f'Python {oldest} to {newest} is needed, this is {platform.python_version()}. Debian 12, '
        'Ubuntu 22.04 and what came after them have one: sudo apt install python3. '
        'To choose another: make PYTHON=python3.12'
    )


def works(python: str) -> bool:
    """Return whether this Python starts; a version manager's stand-in may not."""
    return subprocess.run([python, '-c', ''], check=False, capture_output=True).returncode == 0


def check_system(ros: Ros) -> None:
    """Check that what pip cannot install is here.

    Raises:
        SetupError: Something is missing; the message has the command that installs it.
    """
    missing = missing_packages()
    if missing:
        raise SetupError(
            f'this machine lacks {" and ".join(missing.values())}. On Debian or Ubuntu:\n'
            f'    sudo apt update && sudo apt install {" ".join(missing)}'
        )
    if not ros.sourced:
        check_wheels_exist()


def missing_packages() -> dict[str, str]:
    """Return the Debian packages to install, each with what it is for."""
    # Debian's own Python comes in several packages; any other Python brings its own parts.
    python = f'python3.{sys.version_info.minor}' if is_versioned_python() else 'python3'
    missing = {}
    if importlib.util.find_spec('ensurepip') is None or importlib.util.find_spec('venv') is None:
        missing[f'{python}-venv'] = "Python's venv module"
    if not (Path(sysconfig.get_paths()['include']) / 'Python.h').is_file():
        missing[f'{python}-dev'] = "Python's headers"
    if shutil.which('c++') is None or shutil.which('cc') is None:
        missing['g++'] = 'a C++ compiler'
    return missing


def is_versioned_python() -> bool:
    """Return whether this is another Python than the distribution's python3."""
    default = shutil.which('python3', path='/usr/bin')
    return default is None or not Path(default).resolve().samefile(Path(sys.executable).resolve())


def check_wheels_exist() -> None:
    """Check that PyPI has ROS 2 for this kind of machine.

    Raises:
        SetupError: PyPI has no ROS 2 wheels for this machine.
    """
    libc, version = platform.libc_ver()
    new_enough = libc == 'glibc' and tuple(map(int, version.split('.')[:2])) >= (2, 28)
    if sys.platform != 'linux' or platform.machine() != 'x86_64' or not new_enough:
        raise SetupError(
            f'PyPI has ROS 2 only for x86-64 Linux with glibc 2.28 or newer, this is '
            f'{platform.machine()} {sys.platform} {libc} {version}. Install ROS 2 from '
            'docs.ros.org, source its setup.bash and run this again: it is then used instead.'
        )


def find_ros(wanted: str = '') -> Ros:
    """Return the ROS 2 to use: the sourced one where there is one.

    Args:
        wanted: The distribution that was asked for with `make ROS=...`; '' = any.

    Raises:
        SetupError: Another one is sourced than was asked for, this Python cannot import the
            sourced one, or none is sourced and PyPI does not have the one asked for.
    """
    distro = os.environ.get('ROS_DISTRO', '')
    if not (distro and os.environ.get('AMENT_PREFIX_PATH')):
        return Ros(sourced=False, distro=check_wheels_of(wanted or WHEELS[0]))
    if wanted not in {'', distro}:
        raise SetupError(
            f'ROS={wanted} was asked for, but ROS 2 {distro} is sourced. Use a shell in which no '
            f'ROS is sourced, or leave out ROS={wanted}.'
        )
    return sourced_ros(distro)


def check_wheels_of(distro: str) -> str:
    """Return the distribution if PyPI has it.

    Raises:
        SetupError: PyPI has no ROS 2 wheels for this machine.
    """
    if distro in WHEELS:
        return distro
    raise SetupError(
        f'ROS={distro}: PyPI has ROS 2 {" and ".join(WHEELS)}. To use another, install it from '
        'docs.ros.org, source its setup.bash and leave out ROS=.'
    )


def sourced_ros(distro: str) -> Ros:
    """Return the sourced ROS 2.

    Raises:
        SetupError: This Python cannot import it.
    """
    probe = subprocess.run(
        [sys.executable, '-c', PROBE], check=False, capture_output=True, text=True
    )
    if probe.returncode == 0:
        return Ros(sourced=True, distro=distro, numpy_version=probe.stdout.strip())
    reason = (probe.stderr.strip().splitlines() or ['unknown'])[-1]
    raise SetupError(
        f'ROS 2 {distro} is sourced, but {sys.executable} cannot use it ({reason}). Name its '
        'Python: make PYTHON=/usr/bin/python3, or use a shell in which no ROS is sourced.'
    )
