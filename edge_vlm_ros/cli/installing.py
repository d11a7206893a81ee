"""How Python packages get onto this machine: the line that fits the Python that runs here.

Two things make one line wrong somewhere. A distribution's own Python is not for pip: Ubuntu 24.04
and later refuse it (PEP 668), and before that what pip installed stood in front of what the
distribution's programs were built for. And OpenCV as Ubuntu 22.04 and 24.04 have it is built for
numpy 1, while onnxruntime brings numpy 2 along: `import cv2` fails then.
"""

from __future__ import annotations

import importlib.util
import mmap
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

NUMPY_1 = "'numpy<2'"
"""What pip is given beside the packages where OpenCV is built for numpy 1."""
_SYSTEM_PREFIX = '/usr'
_PEP_668_MARKER = 'EXTERNALLY-MANAGED'
_NUMPY_2_MODULE = b'numpy._core'
"""What a library built with numpy 2 imports, and one built with numpy 1 does not know.

`import_array` of numpy's C headers looks up `numpy._core._multiarray_umath` since 2.0 (and the
older `numpy.core` after it: such a library runs with both).
"""
_NUMPY_MODULE = b'numpy.core'


class PythonKind(Enum):
    """Whose a Python is.

    SYSTEM is the distribution's: not for pip. OWN is any other outside an environment: built by
    its user, a container's, conda's.
    """

    VIRTUAL = 'a virtual environment'
    SYSTEM = 'the Python of the distribution, not for pip'
    OWN = 'a Python of its own'


@dataclass(frozen=True, slots=True)
class PythonHome:
    """A Python, and what matters for installing into it.

    Attributes:
        executable: Its path.
        kind: Whose it is.
        can_make_venv: Whether its `venv` works; Debian and Ubuntu have a part of it in a package
            of its own.
        needs_numpy_1: Whether the OpenCV that it imports is built for numpy 1.
        numpy_version: Of the numpy that it imports; '' = none.
    """

    executable: str
    kind: PythonKind
    can_make_venv: bool = True
    needs_numpy_1: bool = False
    numpy_version: str = ''

    @property
    def is_numpy_too_new(self) -> bool:
        """Whether numpy is the reason for which OpenCV cannot be imported."""
        return self.needs_numpy_1 and self.numpy_version.partition('.')[0] not in {'', '0', '1'}

    def install_line(self, packages: Sequence[str]) -> str:
        """Return the shell line that installs packages for this Python, as in the README.

        Args:
            packages: Names as PyPI knows them; none = only numpy is set right.
        """
        wanted = [*packages, *([NUMPY_1] if self.needs_numpy_1 else [])]
        if self.kind is not PythonKind.SYSTEM:
            return ' '.join([self.executable, '-m pip install', *wanted])
        steps = [
            f'{self.executable} -m venv --system-site-packages venv',
            'touch venv/COLCON_IGNORE',
            '. venv/bin/activate',
            ' '.join(['pip install', *wanted]),
        ]
        if not self.can_make_venv:
            steps.insert(0, 'sudo apt install python3-venv')
        return ' && '.join(steps)


def this_python() -> PythonHome:
    """Look at the Python that runs this."""
    library = opencv_library()
    return PythonHome(
        sys.executable,
        kind_of(sys.prefix, sys.base_prefix, Path(sysconfig.get_path('stdlib'))),
        can_make_venv=importlib.util.find_spec('ensurepip') is not None,
        needs_numpy_1=library is not None and is_built_for_numpy_1(library),
        numpy_version=_numpy_version(),
    )


def kind_of(prefix: str, base_prefix: str, stdlib: Path) -> PythonKind:
    """Tell whose a Python is.

    Args:
        prefix: Its `sys.prefix`.
        base_prefix: Its `sys.base_prefix`.
        stdlib: The folder of its standard library, where PEP 668 has its marker.
    """
    if prefix != base_prefix:
        return PythonKind.VIRTUAL
    if prefix == _SYSTEM_PREFIX or (stdlib / _PEP_668_MARKER).is_file():
        return PythonKind.SYSTEM
    return PythonKind.OWN


def opencv_library() -> Path | None:
    """Return the native library of the OpenCV that `import cv2` takes here; None = there is none.

    It is not imported: that may be what fails.
    """
    try:
        spec = importlib.util.find_spec('cv2')
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin:
        return None
    origin = Path(spec.origin)
    if origin.suffix == '.so':  # as Debian and Ubuntu install it
        return origin
    return next(iter(sorted(origin.parent.rglob('cv2*.so'))), None)  # wheels and own builds


def is_built_for_numpy_1(library: Path) -> bool:
    """Return whether a native library was compiled with numpy 1 and does not run with numpy 2.

    False where it cannot be read or uses no numpy.
    """
    try:
        with (
            library.open('rb') as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return content.find(_NUMPY_MODULE) >= 0 and content.find(_NUMPY_2_MODULE) < 0
    except (OSError, ValueError):  # ValueError: an empty file
        return False


def _numpy_version() -> str:
    try:
        return version('numpy')
    except PackageNotFoundError:
        return ''
