"""Signals that end a command: in order, each with its exit code."""

from __future__ import annotations

import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ENDED_BY = 128
"""What a shell adds to a signal's number."""


class EndedBySignal(KeyboardInterrupt):
    """A signal wants the command to end; like Ctrl-C, it passes `except Exception`."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def code_of(number: int) -> int:
    """Return the exit code of a command that a signal ended."""
    return _ENDED_BY + number


def raise_on_signals() -> None:
    """Have each of the signals raise `EndedBySignal`; an ignored one (nohup) stays so."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise)


def _raise(number: int, _frame: FrameType | None) -> None:
    raise EndedBySignal(number)
