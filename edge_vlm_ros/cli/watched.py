"""A command whose chip library may kill its process: it runs in a child, and its death is told.

A driver that must not be opened, or that another program uses, ends the process with SIGBUS or
SIGSEGV in the first call: no exception, no word, no exit code that a script knows. So `ask` and
`inspect` run in a child process. This process loads nothing; it waits, passes signals on and says
what became of the child.

A terminal and systemd send a signal to both processes, `kill` to this one alone. The child reports
each signal that it gets (by Python's wakeup descriptor), and only what it has not got is passed
on: twice would mean "at once".
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Final, NoReturn

from edge_vlm_ros.cli.ending import SIGNALS
from edge_vlm_ros.cli.exits import ExitCode

_PR_SET_PDEATHSIG: Final = 1
"""From the kernel's linux/prctl.h."""
_OWN_COPY_S: Final = 1.0
"""So long a signal to both may take to reach the child."""
_SI_KERNEL: Final = 0x80
"""Sent by a terminal, to all processes in front of it; from the kernel's asm-generic/siginfo.h."""
_DONE: Final = 0x80
"""Above every signal's number: the command has ended well or ill, its exit code follows."""

_AXERA: Final = (
    'its driver crashed, as it does where this user may not open /dev/ax_* (run as root, or add '
    'a udev rule) and where two programs use one NPU (sudo fuser -v /dev/ax_sys names them); what '
    'the chip held for it may stay taken until a reboot'
)
_REASONS: Final = {
    'ax650': _AXERA,
    'ax630c': _AXERA,
    'bm1684x': "the chip's driver or its library crashed: is /dev/bm-* open to this user?",
    'bm1688': "the chip's driver or its library crashed: is /dev/bm-* open to this user?",
}
_OTHER_REASON: Final = 'a library below it crashed'
_KILLED: Final = 'often the kernel, when memory is short: sudo dmesg | grep -i killed'


class Death(Exception):  # noqa: N818 (no error of ours)
    """A signal killed the child before it was done."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    def sentence(self, chip: str) -> str:
        """Say what it means, for people."""
        reason = _KILLED if self.number == signal.SIGKILL else _REASONS.get(chip, _OTHER_REASON)
        said = signal.strsignal(self.number) or 'unknown'
        return (
            f'the process with the model was ended by {self} ({said.lower()}): {reason}; '
            "'edge-vlm doctor' looks at what is there"
        )


def run_watched(command: Callable[[], int]) -> int:
    """Run a command in a child process.

    To be called before there are threads. In the child this does not return: the interpreter ends
    there as it would here.

    Args:
        command: Gives its exit code; handles its own exceptions.

    Returns:
        The child's exit code.

    Raises:
        Death: A signal ended the child before the command was done.
    """
    passed_on = {number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN}
    heard, said = os.pipe()
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*passed_on, signal.SIGCHLD})
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os.close(heard)
        _be_child(command, said, before, parent)
    os.close(said)
    try:
        return _wait(child, heard, passed_on)
    finally:
        os.close(heard)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _be_child(
    command: Callable[[], int], said: int, mask: set[int | signal.Signals], parent: int
) -> NoReturn:
    os.set_blocking(said, False)
    signal.set_wakeup_fd(said, warn_on_full_buffer=False)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if os.getppid() != parent:
        sys.exit(ExitCode.INTERRUPTED)
    code = command()
    signal.set_wakeup_fd(-1)
    os.write(said, bytes((_DONE, code)))
    sys.exit(code)


def _wait(child: int, heard: int, passed_on: set[signal.Signals]) -> int:
    """Wait for the child's end; pass on what it did not get itself."""
    seen = b''
    while True:
        info = signal.sigwaitinfo({*passed_on, signal.SIGCHLD})
        number = info.si_signo
        if number == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return _result(status, seen + _read(heard, 0.0))
            continue
        seen += _read(heard, _OWN_COPY_S, number)
        is_to_both = info.si_code == _SI_KERNEL
        if number not in seen and _DONE not in seen and not is_to_both:
            os.kill(child, number)
            seen += _read(heard, _OWN_COPY_S, number)
        if _DONE not in seen:
            seen = seen.replace(bytes((number,)), b'', 1)


def _result(status: int, seen: bytes) -> int:
    if os.WIFEXITED(status):
        return os.WEXITSTATUS(status)
    if _DONE in seen:  # It died in its own shut-down: what was asked for is done.
        return seen[seen.index(_DONE) + 1]
    raise Death(os.WTERMSIG(status))


def _read(heard: int, patience_s: float, until: int | None = None) -> bytes:
    """Read what the child has reported; wait for a number, but not for long."""
    seen = b''
    while until is None or until not in seen:
        ready, _, _ = select.select([heard], [], [], patience_s)
        block = os.read(heard, 256) if ready else b''
        if not block:
            break
        seen += block
    return seen
