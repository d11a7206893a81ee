"""Compile C sources of test/support into a shared library, once for each content."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FLAGS: Final = (
    '-std=gnu11',
    '-O2',
    '-Wall',
    '-Wextra',
    '-Werror',
    '-fPIC',
    '-shared',
    '-pthread',
)
_TIMEOUT_S: Final = 120


class CompilerError(RuntimeError):
    """There is no compiler, or it refused the sources; says what to install."""


@dataclass(frozen=True)
class CLibrary:
    """What is compiled.

    Attributes:
        sources: Folder of the *.c and *.h files.
        name: File name of the library.
        flags: More options for the compiler, which stand after those for every library.
        links: Names of more files to link to it: link name -> target, both in its folder.
        files: Names of the *.c files that it is made of; empty = all in the folder.
    """

    sources: Path
    name: str
    flags: Sequence[str] = ()
    links: Mapping[str, str] | None = None
    files: Sequence[str] = ()

    def build(self, builds: Path, compiler: str = 'cc') -> Path:
        """Compile it, unless the same sources were compiled in the same way before.

        Args:
            builds: Keeps one folder for each content of the sources and each set of flags.
            compiler: Any that takes gcc's options.

        Returns:
            The folder that holds the library.

        Raises:
            CompilerError: There is no such compiler, or it refused the sources.
        """
        files = [self.sources / name for name in self.files] or sorted(self.sources.glob('*.c'))
        command = [*_FLAGS, *self.flags, *map(str, files)]
        folder = builds / self._digest(command)
        if not folder.is_dir():
            builds.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=builds) as work:
                made = Path(work) / 'made'
                made.mkdir()
                _compile([compiler, *command, '-ldl', '-o', str(made / self.name)])
                for link, target in (self.links or {}).items():
                    (made / link).symlink_to(target)
                _publish(made, folder)
        return folder

    def _digest(self, command: Sequence[str]) -> str:
        content = hashlib.sha256(' '.join(command).encode())
        for path in sorted(self.sources.glob('*.[ch]')):
            content.update(path.read_bytes())
        return content.hexdigest()[:16]


def _compile(command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        raise CompilerError(
            f'no C compiler "{command[0]}", which the tests of the chips need; install one, on '
            'Ubuntu: sudo apt-get install gcc libc6-dev'
        )
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    if done.returncode != 0:
        raise CompilerError(
            f'{command[0]} refused the sources (are headers missing? sudo apt-get install '
            f'libc6-dev):\n{done.stderr}'
        )


def _publish(made: Path, folder: Path) -> None:
    """Put the build in its place in one step: another process may be building the same."""
    try:
        os.replace(made, folder)  # noqa: PTH105 (Path.replace says nothing of folders)
    except OSError:
        if not folder.is_dir():
            raise
