"""Looking for the links of the chain. Each probe asks one thing and never raises.

Anything with native code is imported in a process of its own: vendor modules print, raise or
abort where their driver is absent, and ROS libraries of another Python crash.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from edge_vlm_ros.cli.findings import Finding, State
from edge_vlm_ros.cli.machine import Machine, is_older, output_of, version_in

_IMPORT_TIMEOUT_S = 60.0
_RMW_VARIABLE = 'RMW_IMPLEMENTATION'
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
    """Return the identifier of the middleware that runs here.

    A distribution may have another default than Fast DDS, so ROS is asked; where it cannot be, it
    is what the variable says, or Fast DDS.
    """
    chosen = os.environ.get(_RMW_VARIABLE, '')
    return _identifier(chosen) or chosen or 'rmw_fastrtps_cpp'


@cache
def _identifier(_chosen: str) -> str:
    """Ask rclpy, in a process that has the variable as it is now; '' = it cannot say."""
    code = 'from rclpy.utilities import *; print(get_rmw_implementation_identifier())'
    return output_of(sys.executable, '-c', code).strip().rpartition('\n')[2]


def _find_middleware(topic: str) -> Finding:
    name = middleware()
    code = f'from rclpy.utilities import *; assert get_rmw_implementation_identifier() == {name!r}'
    error = import_error(code)
    if error is None:
        return Finding(topic, 'middleware', State.OK, name)
    remedy = 'install it, or unset RMW_IMPLEMENTATION'
    return Finding(topic, 'middleware', State.WARNING, f'{name}: {error}', remedy)


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
