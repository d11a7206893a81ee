"""Get the runtime library and the chip emulators that Sophgo ships inside the `tpu_mlir` wheel.

The wheel (312 MB) is a compiler for CPython 3.10; the tests need three of its files a chip, which
any Python can load. Each chip gets a folder of its own, because its emulator must be called
`libcmodel.so` there: `libbmlib` looks for that name in its own folder.
"""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from console import SetupError, run_logged, say

if TYPE_CHECKING:
    from collections.abc import Callable

CHIPS = ('bm1684x', 'bm1688')
LAYOUT = '1'  # of the folders below; another layout is extracted again
_IN_WHEEL = 'tpu_mlir/lib'


def runs_here() -> bool:
    """Return whether the libraries can run on this machine: they are x86-64 Linux code."""
    return sys.platform == 'linux' and platform.machine() == 'x86_64'


def install(
    folder: Path, requirements: Path, pip: list[str], run: Callable[[list[str]], None] = run_logged
) -> None:
    """Download the wheel, put the libraries of each chip into `folder/<chip>`, forget the wheel.

    Args:
        folder: Removed and made again.
        requirements: The file that names the wheel's version.
        pip: How to call pip: any Python's pip will do.
        run: Runs a command.

    Raises:
        SetupError: The wheel cannot be downloaded or lacks a library.
    """
    if not runs_here():
        say('      the chip emulator is x86-64 Linux code: `emulator` tests are skipped')
        return
    with tempfile.TemporaryDirectory(prefix='edge_vlm_emulator_') as scratch:
        # The wheel calls itself pure Python of any version; its tag must be asked for by name
        # where pip would otherwise look at the Python it runs in.
        wanted = ['--no-deps', '--only-binary=:all:', '--implementation', 'py', '--abi', 'none']
        wanted += ['--python-version', '3.10', '--platform', 'any', '--dest', scratch]
        run([*pip, 'download', *wanted, '--requirement', str(requirements)])
        wheels = list(Path(scratch).glob('*.whl'))
        if len(wheels) != 1:
            raise SetupError(f'one wheel was expected, pip downloaded {len(wheels)}')
        extract(wheels[0], folder)


def extract(wheel: Path, folder: Path) -> None:
    """Unpack the libraries of every chip, beside the old folder first and then into its place.

    Raises:
        SetupError: The wheel is damaged or lacks a library.
    """
    part = folder.with_name(f'{folder.name}.part')
    shutil.rmtree(part, ignore_errors=True)
    try:
        with zipfile.ZipFile(wheel) as archive:
            for chip in CHIPS:
                for target, source in library_files(chip).items():
                    copy_out(archive, f'{_IN_WHEEL}/{source}', part / chip / target)
    except (zipfile.BadZipFile, KeyError) as error:
        raise SetupError(f'{wheel.name} is not the wheel that was expected: {error}') from error
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def library_files(chip: str) -> dict[str, str]:
    """Return the libraries a chip needs, as they are to be called and as the wheel calls them."""
    return {
        'libbmrt.so.1.0': 'libbmrt.so.1.0',
        'libbmlib.so.0': 'libbmlib.so.0',
        'libcmodel.so': f'libcmodel_{chip}.so',
    }


def copy_out(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    """Unpack one file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(name) as source, target.open('wb') as to:
        shutil.copyfileobj(source, to)
