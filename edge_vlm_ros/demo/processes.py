"""Processes that end with the demo: by their own id, with all they started."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import final

_PR_SET_PDEATHSIG = 1
_END_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StartedProcess:
    """One process in a process group of its own; its output goes to a file.

    Args:
        name: For people.
        module: Python module to run.
        words: Its arguments.
        env: Its environment.
        log: Where its output goes; overwritten.
    """

    def __init__(
        self, name: str, module: str, words: Sequence[str], env: Mapping[str, str], log: Path
    ) -> None:
        self.name = name
        self.log = log
        with log.open('wb') as output:
            self._process = subprocess.Popen(
                [sys.executable, '-m', module, *words],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_prepare,  # noqa: PLW1509 (no thread runs yet)
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.poll()

    def last_lines(self, count: int = 12) -> list[str]:
        """Return the end of its output."""
        text = self.log.read_text(encoding='utf-8', errors='replace')
        return text.splitlines()[-count:]

    def stop(self, patience_s: float = 8.0) -> int:
        """End it as Ctrl-C does, harder where that does not help; return its exit status."""
        for number in _END_SIGNALS:
            if self._process.poll() is None:
                self._signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(patience_s)
        self._signal(signal.SIGKILL)  # whatever it started that is still running, too
        return self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


@final
class StartedProcesses:
    """Starts processes; on leaving, ends them, the last one first."""

    def __init__(self) -> None:
        self.running: list[StartedProcess] = []

    def start(
        self, name: str, module: str, words: Sequence[str], env: Mapping[str, str], log: Path
    ) -> StartedProcess:
        """Start one; see `StartedProcess`."""
        child = StartedProcess(name, module, words, env, log)
        self.running.append(child)
        return child

    def ended(self) -> StartedProcess | None:
        """Return one that has ended by itself."""
        return next((child for child in self.running if child.returncode is not None), None)

    def __enter__(self) -> StartedProcesses:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self.running:
            self.running.pop().stop()


def _prepare() -> None:
    """Make the new process hear Ctrl-C, and end when its parent is killed and cannot end it.

    A shell starts what runs in its background with SIGINT ignored, and that is inherited.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
