"""The steps of the set-up: what each depends on and what it does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import browser
import emulator
import system
from console import SetupError, run_logged, say
from stamps import Stamp, key_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from system import Ros

REQUIREMENTS = Path(__file__).resolve().parent / 'requirements'
LEVELS = ('run', 'nodes', 'test')
"""What the set-up is for: the demo; the tests of the nodes too; all tests, checks, benchmarks."""
BUILD_INPUTS = (
    'action', 'config', 'launch', 'msg', 'scripts', 'srv',
    'CMakeLists.txt', 'package.xml', 'pyproject.toml', 'setup.py',
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One step: done when its stamp is current."""

    title: str
    stamp: Stamp
    work: Callable[[], None]

    def is_done(self) -> bool:
        """Return whether there is nothing to do."""
        return self.stamp.is_current()

    def run(self) -> None:
        """Do it; only a finished step leaves its stamp."""
        self.stamp.remove()
        self.work()
        self.stamp.write()


class BrowserStep(Step):
    """Done where a browser is; where none is and none can be installed, said once."""

    def is_done(self) -> bool:
        """Return whether there is nothing to do: it is the machine's, not the environment's."""
        if browser.find():
            return True
        return not browser.can_install() and super().is_done()


class Environment:
    """The virtual environment and the ways to fill it.

    Args:
        root: The top folder of the tree.
        ros: Which ROS 2 is used.
        name: The environment's folder, as `folder_name` gives it.
    """

    def __init__(self, root: Path, ros: Ros, name: str = '.venv') -> None:
        self.root = root
        self.ros = ros
        self.folder = root / name
        self.python = self.folder / 'bin' / 'python'

    def stamp(self, name: str, *inputs: str | Path) -> Stamp:
        """Return the stamp of one step."""
        return Stamp(self.folder / 'setup-stamps' / name, key_of(*inputs))

    def create(self) -> None:
        """Make a new virtual environment."""
        for folder in (self.folder, *(self.root / 'build').glob('editable-*')):
            shutil.rmtree(folder, ignore_errors=True)
        options = ['--system-site-packages'] if self.ros.sourced else []
        run_logged([sys.executable, '-m', 'venv', *options, str(self.folder)])
        # colcon would look for packages in it
        (self.folder / 'COLCON_IGNORE').touch()

    def pip_install(self, *arguments: str) -> None:
        """Install with the environment's pip."""
        command = [str(self.python), '-m', 'pip', 'install', '--disable-pip-version-check']
        run_logged([*command, *self.constraints(), *arguments], env=self.variables())

    def constraints(self) -> list[str]:
        """Keep the numpy that a sourced ROS was compiled for: 1 stays 1, 2 stays 2."""
        if not self.ros.sourced:
            return []
        major = int(self.ros.numpy_version.split('.')[0])
        file = self.folder / 'constraints.txt'
        file.write_text(f'numpy>={major},<{major + 1}\n', encoding='utf-8')
        return ['--constraint', str(file)]

    def variables(self) -> dict[str, str]:
        """Return the environment variables for commands: the tools of `.venv` first."""
        path = os.pathsep.join([str(self.python.parent), os.environ.get('PATH', os.defpath)])
        return {**os.environ, 'PATH': path, 'EDGE_VLM_ROS_INTERFACES': 'on'}


def folder_name(wanted: str) -> str:
    """Return the environment's folder: one for each ROS 2 that is asked for by name.

    `run.sh` chooses by the same rule.
    """
    return '.venv' if wanted in {'', system.WHEELS[0]} else f'.venv-{wanted}'


def steps_for(level: str, env: Environment) -> list[Step]:
    """Return the steps of a level, one of `LEVELS`; each level has those before it."""
    rank = LEVELS.index(level)
    steps = [virtual_environment(env), ros_and_build_tools(env), run_requirements(env)]
    if rank >= LEVELS.index('nodes'):
        steps += [test_requirements(env)]
    if rank >= LEVELS.index('test'):
        steps += [reference_requirements(env), chip_emulator(env), page_browser(env)]
    return [*steps, interfaces(env)]


def virtual_environment(env: Environment) -> Step:
    """Check the machine and make the environment; again when Python or ROS is another."""

    def work() -> None:
        system.check_system(env.ros)
        env.create()

    which = f'{sys.version} {sys.base_prefix} {env.ros}'
    title = f'virtual environment {env.folder.name} with Python {sys.version.split()[0]}'
    return Step(title, env.stamp('venv', which), work)


def ros_and_build_tools(env: Environment) -> Step:
    """Install CMake, Ninja and, unless one is sourced, ROS 2."""
    files = [REQUIREMENTS / 'build.txt']
    title = f'build tools (ROS 2 {env.ros.distro} is sourced and used)'
    if not env.ros.sourced:
        files.append(REQUIREMENTS / f'ros-{env.ros.distro}.txt')
        name = env.ros.distro.capitalize()
        title = f'ROS 2 {name} and build tools from PyPI (300 MB on disk, about a minute)'
    inputs = [*files, *constraints_of(files)]
    return Step(title, env.stamp('ros', *inputs), lambda: env.pip_install(*from_files(files)))


def constraints_of(files: list[Path]) -> list[Path]:
    """Return the files that requirement files name with `--constraint`, beside themselves."""
    lines = (line for file in files for line in file.read_text(encoding='utf-8').splitlines())
    named = (line.split()[1] for line in lines if line.startswith('--constraint '))
    return [REQUIREMENTS / name for name in named]


def run_requirements(env: Environment) -> Step:
    """Install what the package needs at run time."""
    files = [REQUIREMENTS / 'run.txt']
    title = 'Python packages of the model path'
    return Step(title, env.stamp('run', *files), lambda: env.pip_install(*from_files(files)))


def test_requirements(env: Environment) -> Step:
    """Install what tests and checks need."""
    files = [REQUIREMENTS / f'{name}.txt' for name in ('test', 'replay', 'mcp')]
    title = 'test and check tools'
    return Step(title, env.stamp('test', *files), lambda: env.pip_install(*from_files(files)))


def reference_requirements(env: Environment) -> Step:
    """Install the float reference, unless that means gigabytes of CUDA."""
    file = REQUIREMENTS / 'reference.txt'

    def work() -> None:
        if needs_cuda(env, file):
            say('      no CPU build of torch for this Python: `reference` tests are skipped')
        else:
            env.pip_install(*from_files([file]))

    return Step('float reference (torch, CPU)', env.stamp('reference', file), work)


def chip_emulator(env: Environment) -> Step:
    """Get Sophgo's runtime library and chip emulators for the `emulator` tests."""
    file = REQUIREMENTS / 'emulator.txt'
    pip = [str(env.python), '-m', 'pip', '--disable-pip-version-check']

    def work() -> None:
        emulator.install(env.folder / 'emulator', file, pip)

    title = 'Sophgo chip emulators (312 MB to download, 38 MB on disk)'
    return Step(title, env.stamp('emulator', file, emulator.LAYOUT, *emulator.CHIPS), work)


def page_browser(env: Environment) -> Step:
    """Get the browser that the page is tested in."""
    title = 'Chromium for the tests of the page (113 MB to download, 414 MB on disk)'
    return BrowserStep(title, env.stamp('browser', *browser.PACKAGES), browser.provide)


def needs_cuda(env: Environment, file: Path) -> bool:
    """Ask pip, without downloading, whether the torch it would install brings CUDA along.

    Raises:
        SetupError: pip fails to say what it would install.
    """
    torch = next(line for line in file.read_text(encoding='utf-8').splitlines() if 'torch' in line)
    command = [str(env.python), '-m', 'pip', 'install', '--dry-run', '--quiet', '--no-deps']
    command += ['--report', '-', torch.split('#')[0].strip()]
    answer = subprocess.run(
        command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if answer.returncode != 0:
        if 'No matching distribution' in answer.stderr:
            return True
        raise SetupError(f'pip cannot look up torch: {answer.stderr.strip()}')
    installs = json.loads(answer.stdout)['install']
    needed = [r for i in installs for r in i['metadata'].get('requires_dist', ())]
    return any(r.startswith(('nvidia-', 'cuda-')) and 'extra ==' not in r for r in needed)


def interfaces(env: Environment) -> Step:
    """Build the interfaces and install the package as a link to this tree."""
    inputs = [p for p in (env.root / name for name in BUILD_INPUTS) if p.exists()]
    arguments = ('--no-build-isolation', '--no-deps', '--editable', str(env.root))
    title = 'interfaces (msg, srv, action) built with CMake, about a minute'
    return Step(title, env.stamp('interfaces', *inputs), lambda: env.pip_install(*arguments))


def from_files(files: list[Path]) -> list[str]:
    """Return pip's arguments for requirement files."""
    return [argument for file in files for argument in ('--requirement', str(file))]
