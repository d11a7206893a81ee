"""Looking for the links of the chain. Each probe asks one thing and never raises.

Anything with native code is imported in a process of its own: vendor modules print, raise or
abort where their driver is absent, and ROS libraries of another Python crash.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edge_vlm_ros.cli.findings import Finding, State
from edge_vlm_ros.cli.machine import Machine, is_older, output_of, version_in
from edge_vlm_ros.fastdds import (
    PROFILE_NAME,
    PROFILE_VARIABLES,
    shipped_profile,
    variables_to_set,
)

_IMPORT_TIMEOUT_S = 60.0
_RMW_VARIABLE = 'RMW_IMPLEMENTATION'
_MEGABYTE = 1024 * 1024
_SHM = '/dev/shm'  # noqa: S108 (a mount point; nothing is made there)
SMALLEST_SEGMENT_BYTES = 8 * _MEGABYTE
"""A 1080p image has 6.2 MB; an image that does not fit the sender's segment is lost."""
SMALLEST_SHM_BYTES = 128 * _MEGABYTE
"""Room for a camera, the node and a few listeners with a segment of 16 MiB each."""
_ROS_OF_RCLPY = {3: 'humble', 7: 'jazzy', 9: 'kilted', 10: 'lyrical'}
_INTERFACES = 'from edge_vlm_ros.msg import Answer; from edge_vlm_ros.srv import Ask'


def import_error(code: str, *, without: str = '') -> str | None:
    """Run imports in a new process of this Python; return the last line of the failure.

    Args:
        code: What to run.
        without: An environment variable that the process does not get.
    """
    env = {name: value for name, value in os.environ.items() if name != without}
    try:
        done = subprocess.run(
            [sys.executable, '-c', code],
            env=env,
            capture_output=True,
            text=True,
            errors='replace',
            timeout=_IMPORT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f'{code!r} did not end within {_IMPORT_TIMEOUT_S:.0f} s'
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    if done.returncode < 0:
        return f'{code!r} was ended by signal {-done.returncode}'
    return lines[-1] if lines else f'{code!r} ended with {done.returncode}'


def version_of(module: str, *packages: str) -> str:
    """Return the version of the first of these packages that is installed, or the module's own."""
    versions = filter(None, map(_installed_version, packages))
    return next(versions, '') or _own_version(module) or f'{module} (version unknown)'


def _installed_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ''


def find_ros() -> list[Finding]:
    """Look for ROS 2, this package's interfaces and the middleware."""
    topic = 'ROS 2 (only for the node)'
    # The middleware is looked at on its own, below.
    error = import_error('import rclpy', without=_RMW_VARIABLE)
    if error is not None:
        remedy = "source /opt/ros/<distro>/setup.bash, or 'make setup' for ROS 2 from PyPI"
        return [Finding(topic, 'rclpy', State.ABSENT, error, remedy)]
    rclpy_version = version_of('rclpy', 'ros-rclpy', 'rclpy')
    major = rclpy_version.partition('.')[0]
    by_version = _ROS_OF_RCLPY.get(int(major), '') if major.isdigit() else ''
    distro = os.environ.get('ROS_DISTRO') or by_version or 'distribution unknown'
    found = [Finding(topic, 'rclpy', State.OK, f'{rclpy_version} ({distro})')]
    error = import_error(_INTERFACES, without=_RMW_VARIABLE)
    if error is None:
        found.append(Finding(topic, 'interfaces', State.OK, 'edge_vlm_ros/msg, /srv, /action'))
    else:
        remedy = "'colcon build' and source install/setup.bash, or 'pip install .' in this package"
        found.append(Finding(topic, 'interfaces', State.ABSENT, error, remedy))
    return [*found, _find_middleware(topic)]


def middleware() -> str:
    """Return the RMW implementation that is chosen: Fast DDS unless the variable says else."""
    return os.environ.get(_RMW_VARIABLE) or 'rmw_fastrtps_cpp'


def _find_middleware(topic: str) -> Finding:
    name = middleware()
    code = f'from rclpy.utilities import *; assert get_rmw_implementation_identifier() == {name!r}'
    error = import_error(code)
    if error is None:
        return Finding(topic, 'middleware', State.OK, name)
    remedy = 'install it, or unset RMW_IMPLEMENTATION'
    return Finding(topic, 'middleware', State.WARNING, f'{name}: {error}', remedy)


def find_shared_memory() -> list[Finding]:
    """Look for what carries large images between processes of one machine."""
    topic = 'Camera images between processes'
    return [_find_profile(topic), _find_shm(topic)]


def _find_profile(topic: str) -> Finding:
    name = 'profile'
    if 'fastrtps' not in middleware():
        return Finding(topic, name, State.OK, f'not needed by {middleware()}')
    variable = next((v for v in PROFILE_VARIABLES if os.environ.get(v)), '')
    if not variable:
        found = f'{PROFILE_VARIABLES[0]} is not set: images above 512 KB get lost'
        remedy = f'our nodes set it; for any other camera: {export_line(shipped_profile())}'
        return Finding(topic, name, State.WARNING, found, remedy)
    path = Path(os.environ[variable])
    remedy = export_line(shipped_profile())
    try:
        text = path.read_text(encoding='utf-8', errors='replace')
    except OSError as error:
        return Finding(topic, name, State.WARNING, f'{variable}: {error}', remedy)
    size = max(map(int, re.findall(r'<segment_size>\s*(\d+)\s*</segment_size>', text)), default=0)
    if size < SMALLEST_SEGMENT_BYTES:
        found = f'{path} has segments of {size} bytes, a 1080p image does not fit'
        return Finding(topic, name, State.WARNING, found, remedy)
    return Finding(topic, name, State.OK, f'{path}, segments of {size // _MEGABYTE} MiB')


def export_line(profile: Path | None) -> str:
    """Return the shell line that sets the profile; its old name, too, where that one is read."""
    path = f'<edge_vlm_ros>/config/{PROFILE_NAME}' if profile is None else profile
    return ' '.join(['export', *(f'{name}={path}' for name in variables_to_set())])


def _find_shm(topic: str) -> Finding:
    try:
        room = os.statvfs(_SHM)
    except OSError as error:
        return Finding(topic, _SHM, State.WARNING, str(error), 'mount a tmpfs there')
    size, free = room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize
    found = f'{size // _MEGABYTE} MiB, {free // _MEGABYTE} MiB free'
    if size < SMALLEST_SHM_BYTES:
        remedy = 'in a container: docker run --shm-size=256m'
        return Finding(topic, _SHM, State.WARNING, found, remedy)
    if free < SMALLEST_SHM_BYTES:
        remedy = "killed processes leave segments there: 'fastdds shm clean'"
        return Finding(topic, _SHM, State.WARNING, found, remedy)
    return Finding(topic, _SHM, State.OK, found)


def find_vendor_module(
    topic: str, module: str, package: str, remedy: str, oldest: tuple[int, ...] = ()
) -> Finding:
    """Look for a chip vendor's Python module.

    Args:
        topic: The heading.
        module: The vendor's module.
        package: The package that carries its version.
        remedy: Where the module comes from.
        oldest: The oldest version that will do.
    """
    try:
        is_there = importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        is_there = False
    if not is_there:
        return Finding(topic, module, State.ABSENT, 'no such module', remedy)
    error = import_error(f'import {module}')
    if error is not None:
        return Finding(topic, module, State.WARNING, error, 'install its driver, or reinstall it')
    found = version_of(module, package)
    if is_older(version_in(found), oldest):
        needed = '.'.join(map(str, oldest))
        return Finding(topic, module, State.WARNING, found, f'{needed} or later: {remedy}')
    return Finding(topic, module, State.OK, found)


def _own_version(module: str) -> str:
    """Ask a module, whose package may have any name, for its version."""
    code = f'import {module} as it; print(it.__version__)'
    return output_of(sys.executable, '-c', code).strip().rpartition('\n')[2]


def find_devices(topic: str, machine: Machine, patterns: tuple[str, ...]) -> Finding:
    """Look for a chip's device nodes; one that matches a pattern is enough."""
    found = machine.found(*patterns)
    if not found:
        remedy = 'no such chip here, or its driver is not loaded'
        return Finding(topic, 'device', State.ABSENT, f'no {" or ".join(patterns)}', remedy)
    barred = [path for path in found if not os.access(path, os.R_OK | os.W_OK)]
    names = ', '.join(map(machine.name_of, found))
    if barred:
        remedy = f'sudo chmod 666 {machine.name_of(barred[0])}, or a udev rule'
        return Finding(topic, 'device', State.WARNING, f'{names}: not allowed', remedy)
    return Finding(topic, 'device', State.OK, names)
