"""Compile the stub: libax_engine.so, and libax_sys.so as a link to it, for one chip.

`python -m support.axera.stub.build [--chip ax630c]` prints the folder that holds both.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).parent
BUILDS: Final = SOURCES.parents[3] / 'build' / 'axera_stub'
CHIPS: Final = {'ax650': (), 'ax630c': ('-DSTUB_AX630C',)}
"""Chips it can be, with what tells the compiler."""

_FLAGS: Final = (
    '-std=gnu11', '-O2', '-Wall', '-Wextra', '-Werror', '-fPIC', '-shared', '-pthread',
    '-Wl,-soname,libax_engine.so',
)  # fmt: skip
_TIMEOUT_S: Final = 120


class CompilerError(RuntimeError):
    """There is no compiler, or it refused the stub; says what to install."""


def build_stub(chip: str = 'ax650', builds: Path = BUILDS, compiler: str = 'cc') -> Path:
    """Compile the stub, unless the same source was compiled before.

    Args:
        chip: A key of `CHIPS`.
        builds: Keeps one folder for each source and chip.
        compiler: Any that takes gcc's options.

    Returns:
        The folder with libax_engine.so and libax_sys.so.

    Raises:
        CompilerError: See there.
    """
    command = [*_FLAGS, *CHIPS[chip], *map(str, sorted(SOURCES.glob('*.c')))]
    folder = builds / f'{chip}-{_digest(command)}'
    if not folder.is_dir():
        builds.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=builds) as work:
            made = Path(work) / 'made'
            made.mkdir()
            _compile([compiler, *command, '-o', str(made / 'libax_engine.so')])
            (made / 'libax_sys.so').symlink_to('libax_engine.so')
            _publish(made, folder)
    return folder


def _digest(command: list[str]) -> str:
    content = hashlib.sha256(' '.join(command).encode())
    for path in sorted(SOURCES.glob('*.[ch]')):
        content.update(path.read_bytes())
    return content.hexdigest()[:16]


def _compile(command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        raise CompilerError(
            f'no C compiler "{command[0]}": tests of the Axera engine compile a stub of the '
            "vendor's library; install one, on Ubuntu: sudo apt-get install gcc libc6-dev"
        )
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    if done.returncode != 0:
        raise CompilerError(
            f'{command[0]} refused the stub (are headers missing? sudo apt-get install '
            f'libc6-dev):\n{done.stderr}'
        )


def _publish(made: Path, folder: Path) -> None:
    """Put the build in its place in one step: another process may be building the same."""
    try:
        os.replace(made, folder)  # noqa: PTH105 (Path.replace says nothing of folders)
    except OSError:
        if not folder.is_dir():
            raise


def main() -> None:
    """Build for the chip named on the command line; print the folder."""
    parser = argparse.ArgumentParser(description='Compile the stub of the NPU libraries.')
    parser.add_argument('--chip', choices=tuple(CHIPS), default='ax650')
    print(build_stub(parser.parse_args().chip))


if __name__ == '__main__':
    main()
