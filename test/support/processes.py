"""Processes that a test starts, and their end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from support.environment import Changes, environment
from support.patience import Patience

_PAUSE_S: Final = 0.02


class Spawned:
    """A process started by a test, with all its children in a process group of its own.

    Args:
        process: The started process, the first of its group.
        log: The file its output goes to.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process: Final = process
        self.log: Final = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def output(self) -> str:
        """Return what it has printed so far, standard error included."""
        return self.log.read_text(errors='replace')

    def wait_for_output(self, text: str, timeout_s: float = 60.0) -> None:
        """Wait until it has printed `text`."""
        patience = Patience(timeout_s)
        while text not in self.output():
            if self.process.poll() is not None and text not in self.output():
                pytest.fail(
                    f'ended ({self.process.returncode}) without {text!r}:\n{self.output()}'
                )
            if patience.is_over():
                pytest.fail(f'no {text!r} within {timeout_s} s:\n{self.output()}')
            patience.look()

    def wait(self, timeout_s: float = 60.0) -> int:
        """Wait for its end and return the exit status."""
        if not self._ends(timeout_s):
            pytest.fail(f'still running after {timeout_s} s:\n{self.output()}')
        return int(self.process.returncode)

    def signal(self, number: int) -> None:
        """Send a signal to the process and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def stop(self, timeout_s: float = 10.0) -> int:
        """End it as Ctrl-C does, harder if it does not obey; return the exit status."""
        for number in (signal.SIGINT, signal.SIGTERM):
            if self.process.poll() is not None:
                break
            self.signal(number)
            if self._ends(timeout_s):
                break
        self.signal(signal.SIGKILL)  # children that outlived it, too
        return self.process.wait()

    def _ends(self, timeout_s: float) -> bool:
        patience = Patience(timeout_s)
        while not patience.is_over():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_PAUSE_S)
                return True
        return False


def spawn(
    command: Sequence[object], log: Path, *changes: Changes, cwd: Path | None = None
) -> Spawned:
    """Start a process in a group of its own.

    Args:
        command: Program and arguments.
        log: Where its output goes.
        changes: To the environment of this process.
        cwd: Where it runs; None = where this process does.
    """
    with log.open('w') as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=cwd,
            env=environment(*changes),
        )
    return Spawned(process, log)
