"""Where a command's output goes: nothing but the command's own words, nothing that commands.

Chip libraries print on standard output, from Python and from C. So the command takes standard
output for itself, and whatever else is printed goes to standard error: JSON stays JSON.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_STDOUT, _STDERR = 1, 2
_KEPT = {0x09, 0x0A}
# C0 and C1 (escape sequences begin with them), line separators, and what turns the direction of
# the text around it; they would let an answer write over the lines above or hide what it says.
_CONTROLS = {*range(0x20), *range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F, 0x2028, 0x2029}
_TURNS = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_STRIPPED = dict.fromkeys((_CONTROLS | _TURNS) - _KEPT)

_taken: list[TextIO] = []


def stream() -> TextIO:
    """Return where the command writes."""
    return _taken[-1] if _taken else sys.stdout


def harmless(text: str) -> str:
    """Return text without control codes; line breaks and tabs stay."""
    return text.translate(_STRIPPED)


@contextmanager
def taken_for_the_command() -> Iterator[None]:
    """Keep standard output for the command; everybody else's goes to standard error.

    Where standard output is no file of its own, as in a test that captures it, nothing changes.
    """
    if sys.stdout is not sys.__stdout__ or _fileno(sys.stdout) != _STDOUT:
        yield
        return
    sys.stdout.flush()
    encoding = sys.stdout.encoding
    ours = open(  # noqa: PTH123, SIM115 (a descriptor; closed below)
        os.dup(_STDOUT), 'w', encoding=encoding, errors='replace', newline='\n'
    )
    _taken.append(ours)
    os.dup2(_STDERR, _STDOUT)
    try:
        yield
    finally:
        sys.stdout.flush()
        _taken.remove(ours)
        os.dup2(ours.fileno(), _STDOUT)
        ours.close()


def _fileno(stream: TextIO) -> int:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return -1
