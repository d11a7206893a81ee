"""Where a command's output goes: nothing but the command's own words.

Chip libraries print on standard output, from Python and from C. So the command takes standard
output for itself, and whatever else is printed goes to standard error: JSON stays JSON.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_STDOUT, _STDERR = 1, 2
_taken: list[TextIO] = []


def stream() -> TextIO:
    """Return where the command writes."""
    return _taken[-1] if _taken else sys.stdout


@contextmanager
def taken_for_the_command(*, for_good: bool = False) -> Iterator[None]:
    """Keep standard output for the command; everybody else's goes to standard error.

    What C libraries have printed lies in a buffer of theirs until the process ends, where standard
    output is a pipe or a file: it is flushed before the descriptor is the caller's again. Where
    standard output is no file of its own, as in a test that captures it, nothing changes.

    Args:
        for_good: The process ends with the command, and what is printed at its end, too, does not
            belong to it.
    """
    theirs: TextIO = sys.stdout
    if theirs is not sys.__stdout__ or _fileno(theirs) != _STDOUT:
        yield
        return
    theirs.flush()
    encoding = theirs.encoding
    ours = open(  # noqa: PTH123, SIM115 (a descriptor; closed below)
        os.dup(_STDOUT), 'w', encoding=encoding, errors='replace', newline='\n'
    )
    _taken.append(ours)
    os.dup2(_STDERR, _STDOUT)
    try:
        yield
    finally:
        theirs.flush()
        _taken.remove(ours)
        if not for_good:
            ctypes.CDLL(None).fflush(None)
            os.dup2(ours.fileno(), _STDOUT)
        ours.close()


def _fileno(stream: TextIO) -> int:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return -1
