"""Signals that end a command: in order, each with its exit code."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_HEAR_SIGNALS_S = 0.3
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


_Result = TypeVar('_Result')


def undisturbed(function: Callable[[], _Result]) -> _Result:
    """Do what must not be cut off, such as to look into a file on a chip, on a thread of its own.

    What a signal raises comes after its end; what a second one raises, at once.
    """
    results: list[_Result] = []
    errors: list[BaseException] = []
    is_over = threading.Event()  # `join` takes a thread for ended once it was interrupted.

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 (raised below)
            errors.append(error)
        finally:
            is_over.set()

    threading.Thread(target=run, daemon=True).start()
    try:
        _wait_for(is_over)
    except KeyboardInterrupt:
        _wait_for(is_over)
        raise
    if errors:
        raise errors[0]
    return results[0]


def _wait_for(event: threading.Event) -> None:
    # As `serving.hear_signals`, which is not imported here: it comes with numpy.
    while not event.wait(_HEAR_SIGNALS_S):
        pass
