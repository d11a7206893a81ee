"""Make the Python 3.10 environment that Sophgo's compiler (`tpu_mlir`) needs.

python -m tools.sophgo.compile.environment FOLDER [--python python3.10]

Nothing of it is needed to run the tests: the compiled fixtures are in the repository.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

_TOOLS: Final = Path(__file__).resolve().parents[2]
_REQUIREMENTS: Final = Path(__file__).resolve().parent / 'requirements'
# The same release as the runtime library and the emulators of the tests: they come in its wheel.
_TPU_MLIR: Final = _TOOLS / 'setup' / 'requirements' / 'emulator.txt'
# Ubuntu 22.04's C library, which another system's loader does not fit: "stack smashing detected".
_FOREIGN_LIBC: Final = ('libc.so.6', 'libm.so.6', 'libpthread.so.0')
# Enough of GNU parallel for the converter: `parallel -j N ... < task.txt`.
_PARALLEL: Final = """#!/bin/sh
# Run the commands on standard input, as many at once as -j says; stop at the first that fails.
jobs=2
while [ $# -gt 0 ]; do
  case $1 in -j) jobs=$2; shift;; esac
  shift
done
exec xargs -d '\\n' -n 1 -P "$jobs" bash -c 'eval "$1" || exit 255' bash
"""


class Environment:
    """The compiler's environment.

    Args:
        folder: Of the virtual environment.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.python = self.folder / 'bin' / 'python'

    @property
    def package(self) -> Path:
        """The folder of the compiler."""
        return self.folder / 'lib' / 'python3.10' / 'site-packages' / 'tpu_mlir'

    def create(self, python: str) -> None:
        """Make it from scratch."""
        shutil.rmtree(self.folder, ignore_errors=True)
        subprocess.run([python, '-m', 'venv', str(self.folder)], check=True)
        self._pip('-r', _REQUIREMENTS / 'compiler.txt')
        self._pip('--no-deps', '-r', _TPU_MLIR)
        self._pip('--no-deps', '-r', _REQUIREMENTS / 'compiler_onnx.txt')
        self._mend()

    def _pip(self, *arguments: str | Path) -> None:
        command = [self.python, '-m', 'pip', 'install', '--quiet', *arguments]
        subprocess.run(command, check=True)

    def _mend(self) -> None:
        """Do what the wheel leaves to be done."""
        for name in _FOREIGN_LIBC:
            (self.package / 'lib' / 'third_party' / name).unlink(missing_ok=True)
        for folder in ('bin', 'python/tools'):
            for file in (self.package / folder).iterdir():
                if file.is_file():
                    file.chmod(0o755)
        if shutil.which('parallel') is None:
            shim = self.folder / 'bin' / 'parallel'
            shim.write_text(_PARALLEL)
            shim.chmod(0o755)

    def variables(self) -> dict[str, str]:
        """Return the environment variables for the compiler's tools."""
        here = Path(__file__).resolve().parent
        package = str(self.package)
        libraries = [f'{package}/lib', f'{package}/lib/capi', f'{package}/lib/third_party']
        path = [f'{self.folder}/bin', f'{package}/bin', f'{package}/python/tools']
        modules = [str(here / 'stubs'), package, f'{package}/python']
        return {
            'HOME': os.environ.get('HOME', '/'),
            'LANG': 'C.UTF-8',
            'LD_LIBRARY_PATH': os.pathsep.join(libraries),
            'OMP_NUM_THREADS': '2',
            'PATH': os.pathsep.join([*path, os.environ.get('PATH', os.defpath)]),
            'PYTHONPATH': os.pathsep.join(modules),
            'TPUC_ROOT': package,
        }


def main() -> int:
    """Make the environment."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition('\n')[0])
    parser.add_argument('folder', type=Path)
    parser.add_argument('--python', default='python3.10', help='a Python 3.10')
    options = parser.parse_args()
    Environment(options.folder).create(options.python)
    return 0


if __name__ == '__main__':
    sys.exit(main())
