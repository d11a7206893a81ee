"""The end of a model process, in order: what it holds is given back before it is gone.

It is asked to end by a message, by a signal, or by the end of its parent. Whatever the other
threads wait for then, one does nothing but this: a load is stopped between two files, what answers
is closed, the vendors' packages are shut down, each within its time. What a driver holds up longer
is given back beside it, as far as that goes.

The last resort is the kernel's. Some time after the parent's end it ends this process, unless that
must not be killed, also while a driver keeps Python from running.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NoReturn

from edge_vlm_ros.core import CancelledError, EndNeeds, end_needs, listen_needs
from edge_vlm_ros.serving.letting_go import LetsGo

if TYPE_CHECKING:
    from types import FrameType

    from edge_vlm_ros.serving.backend import Backend

_log = logging.getLogger(__name__)

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)
BY_SIGNAL: Final = 128
"""What is added to a signal's number for the exit status, as a shell does."""

_CLOSE_S: Final = 2.5
_LET_GO_S: Final = 1.0
_SHUT_DOWN_S: Final = 0.8
"""Together less than `ProcessSettings.close_s`, after which the parent ends it."""

_PATIENT_CLOSE_S: Final = 9.0
"""Where nobody waits; less than `VlmPipeline.close` takes at most."""

_LAST_RESORT_S: Final = 45
"""From the parent's end to that by the kernel: longer than a file takes to load.

Also the number of the real-time signal that the kernel sends at the parent's end. Its handler is
the C library's `alarm`, whose argument is then these seconds: it needs nothing of Python, which a
driver may keep from running. Nobody handles SIGALRM, so that ends the process.
"""

_ASKED: Final = b'\0'  # No signal has this number.

# From the kernel's linux/prctl.h.
_PR_SET_PDEATHSIG: Final = 1


class Status(IntEnum):
    """Exit statuses of a model process, beside those of signals (`BY_SIGNAL`)."""

    DONE = 0
    FAILED = 3
    LOST_THREAD = 4
    UNFINISHED = 5


_IN_ORDER: Final = {
    Status.DONE,
    Status.FAILED,
    Status.LOST_THREAD,
    *(BY_SIGNAL + number for number in STOP_SIGNALS),
}


def is_in_order(status: int) -> bool:
    """Return whether a model process that ended with this status gave back what it held."""
    return status in _IN_ORDER


@dataclass(frozen=True, slots=True)
class _Reason:
    """Why this process ends.

    Attributes:
        status: How.
        close_s: How long the step that is under way may take.
    """

    status: int
    close_s: float = _CLOSE_S


def _heard(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the interpreter has written the signal's number into the pipe."""


class Ending:
    """Ends this process once that is asked, from a thread of its own. Any thread calls it."""

    def __init__(self) -> None:
        self._reasons: queue.SimpleQueue[_Reason] = queue.SimpleQueue()
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._is_opened = threading.Event()
        self._backend: Backend | None = None
        self.is_asked = False
        """Whether the process is ending."""
        self.is_silent = False
        """Whether answers are of no use to the parent any more: it asks another process."""
        threading.Thread(target=self._run, name='ending', daemon=True).start()

    @property
    def is_open(self) -> bool:
        """Whether the load is over."""
        return self._is_opened.is_set()

    def heed_signals(self) -> None:
        """End in order at SIGTERM and SIGHUP from now on; on the main thread, once.

        A handler in Python would wait for the main thread, which may be about to wait itself (the
        signal is then heard when that ends) or sit in C. The interpreter's own, in C, writes the
        number of the signal into a pipe.
        """
        for number in STOP_SIGNALS:
            signal.signal(number, _heard)
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)

    def close(self) -> None:
        """End because the parent said so: it wants to hear what becomes of its questions."""
        self._ask(_Reason(Status.DONE))

    def parent_gone(self) -> None:
        """End because nobody is there any more, so that nobody hurries either."""
        self.is_silent = True
        grace_s = min(end_needs().grace_s, _PATIENT_CLOSE_S)
        self._ask(_Reason(Status.DONE, max(_CLOSE_S, grace_s)))

    def fail(self) -> None:
        """End because nothing can be answered any more."""
        self.is_silent = True
        self._ask(_Reason(Status.LOST_THREAD))

    def check(self) -> None:
        """Have a load given up where the process is to end.

        Raises:
            CancelledError: It is.
        """
        if self.is_asked:
            raise CancelledError('the load was stopped: the process ends')

    def opened(self, backend: Backend | None) -> None:
        """Take note that the load is over, whatever came of it."""
        self._backend = backend
        self._is_opened.set()

    def _ask(self, reason: _Reason) -> None:
        self.is_asked = True
        self._reasons.put(reason)
        os.write(self._writing, _ASKED)

    def _wait(self) -> _Reason:
        """Wait until an end is asked for."""
        while True:
            number = os.read(self._reading, 1)[0]
            if number in STOP_SIGNALS:
                self.is_silent = True
                self.is_asked = True
                return _Reason(BY_SIGNAL + number)
            if number == _ASKED[0]:
                return self._reasons.get()

    def _run(self) -> None:
        reason = self._wait()
        # Asked after `is_asked` was set: what begins to need time now gives up by itself.
        needs = end_needs()
        is_over = self._is_opened.wait(None if not needs.may_be_killed else needs.grace_s)
        is_closed = not is_over or self._close(reason.close_s)
        end(reason.status if (is_over and is_closed) or not needs.loss else Status.UNFINISHED)

    def _close(self, limit_s: float) -> bool:
        """Close the backend; where a step does not end, free what it holds beside that."""
        backend = self._backend
        if backend is None or within(limit_s, backend.close):
            return True
        if not isinstance(backend, LetsGo) or not end_needs().loss:
            return False
        _log.warning('a step does not end: what the process holds is given back beside it')
        return within(_LET_GO_S, backend.let_go)


def within(limit_s: float, function: Callable[[], object]) -> bool:
    """Run a function on a thread of its own; return whether it came to its end in time."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(limit_s)
    return not thread.is_alive()


_is_ending = threading.Lock()


def end(status: int) -> NoReturn:
    """Shut the vendors' packages down, within a time limit, and end this process.

    Not by `sys.exit`: a driver's threads or exit handlers may hang, and nothing is left to be
    done.
    """
    _is_ending.acquire()  # Whoever comes second waits for the end that is under way.
    within(_SHUT_DOWN_S, atexit._run_exitfuncs)  # noqa: SLF001 (what `sys.exit` would run)
    logging.shutdown()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def end_with_parent(parent: int) -> None:
    """Have the kernel end this process some time after its parent, also while a driver hangs.

    Not at once: what is held is given back first, by whoever sees the channel close.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    alarm = ctypes.cast(libc.alarm, ctypes.c_void_p)
    libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    libc.signal.restype = ctypes.c_void_p

    def follow(needs: EndNeeds) -> None:
        libc.signal(_LAST_RESORT_S, alarm if needs.may_be_killed else int(signal.SIG_IGN))

    follow(end_needs())
    listen_needs(follow)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM, _LAST_RESORT_S, *STOP_SIGNALS})
    libc.prctl(_PR_SET_PDEATHSIG, _LAST_RESORT_S, 0, 0, 0)
    if os.getppid() != parent:  # It ended before it could be watched.
        os._exit(1)
