"""How far long work is: one line on a terminal, written over and gone when it is done."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

_CLEAR = '\r\033[K'


class ProgressLine:
    """A line on standard error, where that is a terminal; nothing elsewhere. Any thread.

    Args:
        what: What goes on, such as 'loading demo'.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._is_shown = sys.stderr.isatty()
        self._said = ''
        self._lock = threading.Lock()

    def __enter__(self) -> ProgressLine:  # noqa: PYI034 (Self comes with Python 3.11)
        """Begin: something goes on, and nothing is known of how far."""
        self._write(f'{_CLEAR}{self._what} ...')
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the line away; nothing is written any more."""
        self._write(_CLEAR)
        self._is_shown = False

    def on_part(self, done: int, parts: int) -> None:
        """Say how far it is, of something that has parts."""
        self.say(f'{done} of {parts} parts')

    def say(self, how_far: str) -> None:
        """Say how far it is; the same again is not written."""
        if how_far != self._said:
            self._said = how_far
            self._write(f'{_CLEAR}{self._what}: {how_far}')

    def _write(self, text: str) -> None:
        with self._lock:
            if self._is_shown:
                sys.stderr.write(text)
                sys.stderr.flush()
