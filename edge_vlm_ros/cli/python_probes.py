"""Looking for Python and the packages of the model path, with the line that installs them."""

from __future__ import annotations

import platform
import shutil
import sys
from typing import NamedTuple

from edge_vlm_ros.cli.findings import Finding, State
from edge_vlm_ros.cli.installing import PythonHome, PythonKind, this_python
from edge_vlm_ros.cli.probes import import_error, version_of

TOPIC = 'Python'
OLDEST_PYTHON = (3, 10)
_SEE_ENVIRONMENT = "not with pip into this Python: the line of 'environment' below"


class Package(NamedTuple):
    """A package that the model path needs.

    Attributes:
        module: What is imported.
        name: Its name on PyPI.
        apt: Its name in Debian and Ubuntu, where package.xml names it; '' = only PyPI is asked.
    """

    module: str
    name: str
    apt: str = ''


PACKAGES = (
    Package('aiohttp', 'aiohttp', 'python3-aiohttp'),
    Package('numpy', 'numpy', 'python3-numpy'),
    Package('cv2', 'opencv-python-headless', 'python3-opencv'),
    Package('onnxruntime', 'onnxruntime'),
    Package('tokenizers', 'tokenizers'),
    Package('transformers', 'transformers'),
    Package('yaml', 'PyYAML', 'python3-yaml'),
)


def find_python(
    home: PythonHome | None = None, packages: tuple[Package, ...] = PACKAGES
) -> list[Finding]:
    """Look at the Python that this runs on and at what the model path needs of it.

    Args:
        home: The Python; None = look at it.
        packages: What to look for.

    Returns:
        Python itself, each package, and, where something is missing that must not be installed
        into this Python, the environment to make.
    """
    home = home or this_python()
    found = [find_package(package, home) for package in packages]
    lacking = [
        package
        for package, finding in zip(packages, found, strict=True)
        if finding.state is not State.OK
    ]
    if lacking and home.kind is PythonKind.SYSTEM:
        found.append(find_environment(lacking, home))
    return [_find_interpreter(home), *found]


def _find_interpreter(home: PythonHome) -> Finding:
    found = f'{platform.python_version()} ({home.executable}, {home.kind.value})'
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Finding(TOPIC, 'python', State.MISSING, found, 'use Python 3.10 or later')
    return Finding(TOPIC, 'python', State.OK, found)


def find_package(package: Package, home: PythonHome) -> Finding:
    """Look for one package by importing it."""
    error = import_error(f'import {package.module}')
    if error is None:
        found = version_of(package.module, package.name)
        if package.module == 'cv2' and home.needs_numpy_1:
            found = f'{found}, built for numpy 1'
        return Finding(TOPIC, package.name, State.OK, found)
    if _is_broken_by_numpy(package, home):
        error = f'{error} (OpenCV is built for numpy 1 here, numpy is {home.numpy_version})'
    remedy = _SEE_ENVIRONMENT
    if home.kind is not PythonKind.SYSTEM:
        remedy = home.install_line(_to_install([package], home))
    return Finding(TOPIC, package.name, State.MISSING, error, remedy)


def find_environment(lacking: list[Package], home: PythonHome) -> Finding:
    """Say how to get what is missing beside a Python that is not for pip.

    What the distribution has comes first: only then can be seen which numpy its OpenCV is built
    for.
    """
    found = f'{home.executable} is {home.kind.value}'
    apt = [p.apt for p in lacking if p.apt and not _is_broken_by_numpy(p, home)]
    if apt and shutil.which('apt-get'):
        remedy = f'sudo apt install {" ".join(apt)}'
        if len(apt) < len(lacking):
            remedy += ', then ask the doctor again'
    else:
        line = home.install_line(_to_install(lacking, home))
        remedy = f'in your workspace, its venv to be activated before each launch: {line}'
    return Finding(TOPIC, 'environment', State.WARNING, found, remedy)


def _is_broken_by_numpy(package: Package, home: PythonHome) -> bool:
    return package.module == 'cv2' and home.is_numpy_too_new


def _to_install(packages: list[Package], home: PythonHome) -> list[str]:
    """Name what pip is to install; an OpenCV that only lacks its numpy is there already."""
    return [p.name for p in packages if not _is_broken_by_numpy(p, home)]
