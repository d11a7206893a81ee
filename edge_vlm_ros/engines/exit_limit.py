"""A time limit on what vendors' packages do when the interpreter ends.

They shut their device down in a function that they register with `atexit`. A driver that hangs
there would keep the process, and its terminal, for ever.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import sys
from collections.abc import Iterator
from typing import Final

_LIMIT_S: Final = 10.0
_limited: list[str] = []


@contextlib.contextmanager
def exit_limited(package: str) -> Iterator[None]:
    """Limit what a package registers with `atexit` meanwhile; once a process for each package.

    Where it takes longer, the stacks of all threads are printed and the process ends with status
    1: by a thread of C, which a driver cannot keep from running.
    """
    is_first = package not in _limited
    if is_first:
        _limited.append(package)
        atexit.register(faulthandler.cancel_dump_traceback_later)  # after the package's own
    try:
        yield
    finally:
        if is_first:
            atexit.register(_watch)  # before the package's own


def _watch() -> None:
    stderr = sys.__stderr__
    if stderr is not None:
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            faulthandler.dump_traceback_later(_LIMIT_S, exit=True, file=stderr)
