"""The lines of the README that make a robot's environment, and a look-alike of a distribution."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEADING = '## On a robot\n'
OTHER_LINES = ('cd ', 'rosdep ', 'colcon ', 'ros2 ')


def robot_lines() -> list[str]:
    """Return the command lines of the README's section, comments cut off."""
    section = (ROOT / 'README.md').read_text().partition(HEADING)[2].partition('\n## ')[0]
    lines = [line for line in section.splitlines() if line.startswith('    ')]
    return [line.partition('  #')[0].strip() for line in lines]


def environment_lines() -> list[str]:
    """Return those that make the environment: what needs neither git nor ROS."""
    return [line for line in robot_lines() if not line.startswith(OTHER_LINES)]


@dataclass(frozen=True)
class Distribution:
    """What apt has: the Python and the two packages that onnxruntime must get along with."""

    name: str
    python: str
    numpy: str
    opencv: str

    def interpreter(self) -> Path | None:
        """Return the Python's path; None = not on this machine."""
        # Before the one on the path: pyenv's there fails unless its user chose that version.
        versions = Path(os.environ.get('PYENV_ROOT') or Path.home() / '.pyenv') / 'versions'
        candidates = sorted(versions.glob(f'*/bin/{self.python}'))
        named = shutil.which(self.python)
        candidates += [Path(named)] if named else []
        code = 'import sys; print(sys.base_prefix + "/bin/python3", end="")'
        for path in candidates:
            found = subprocess.run([path, '-c', code], check=False, capture_output=True, text=True)
            if found.returncode == 0:
                return Path(found.stdout)
        return None


_DISTRIBUTIONS = (
    Distribution('Ubuntu 22.04', 'python3.10', '1.21.5', '4.5.4.60'),
    Distribution('Ubuntu 24.04', 'python3.12', '1.26.4', '4.6.0.66'),
    Distribution('Debian 13', 'python3.13', '2.2.4', '4.10.0.84'),
)
_DEBIAN_12 = Distribution('Debian 12', 'python3.11', '1.24.2', '4.6.0.66')


def distributions_here() -> list[tuple[Distribution, Path]]:
    """Return the distributions whose Python this machine has; at least one wherever tests run."""
    for known in (_DISTRIBUTIONS, (_DEBIAN_12,)):
        found = [(distribution, distribution.interpreter()) for distribution in known]
        here = [(distribution, python) for distribution, python in found if python is not None]
        if here:
            return here
    return []


class Robot:
    """A machine that looks like a distribution, as far as Python can tell.

    The distribution's packages lie in a user's site-packages folder: an environment with
    --system-site-packages sees it after its own packages, as it sees those of apt, and pip does
    not touch it.

    Args:
        distribution: What apt has there.
        python: The Python that stands for its python3.
        folder: Empty; the workspace, the home and the distribution's packages go there.
    """

    def __init__(self, distribution: Distribution, python: Path, folder: Path) -> None:
        self.folder = folder / 'ros2_ws'
        self.folder.mkdir()
        bin_folder = folder / 'bin'
        bin_folder.mkdir()
        (bin_folder / 'python3').symlink_to(python)
        self.env = {
            'HOME': str(folder),
            'PATH': f'{bin_folder}:{os.defpath}',
            'PYTHONUSERBASE': str(folder / 'apt'),
            'PYTHONPATH': str(ROOT),  # what `. install/setup.bash` does for colcon's build
            'PIP_NO_COMPILE': '1',
            'PYTHONPYCACHEPREFIX': str(folder / 'pycache'),  # what is imported, and only that
            **{name: value for name, value in os.environ.items() if is_for_pip(name)},
        }
        pip = 'python3 -m pip install -q --user --no-deps --no-warn-script-location'
        wanted = f'numpy=={distribution.numpy} opencv-python-headless=={distribution.opencv}'
        self.run(f'{pip} --break-system-packages {wanted} PyYAML')

    def run(self, *lines: str) -> str:
        """Run shell lines in the workspace; they must succeed. Return what they printed."""
        done = self.try_to_run(*lines)
        assert done.returncode == 0, f'{lines}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}'
        return done.stdout

    def try_to_run(self, *lines: str) -> subprocess.CompletedProcess[str]:
        """Run shell lines in the workspace, up to the first that fails."""
        script = '\n'.join(['set -e', *lines])
        return subprocess.run(
            ['bash', '-c', script],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )


def is_for_pip(name: str) -> bool:
    """Return whether pip looks at this environment variable on its way to the network."""
    return name.startswith(('PIP_', 'SSL_', 'REQUESTS_')) or name.lower().endswith('_proxy')
