"""A model process and all that it says, for tests that wait for it."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edge_vlm_ros.core import Answer, AnswerChunk, Question
from edge_vlm_ros.serving import (
    EnginePhase,
    EngineState,
    ModelProcess,
    ModelSpec,
    ServingSettings,
)
from edge_vlm_ros.serving.process import ProcessSettings
from edge_vlm_ros.serving.process.printed import LogLine
from support.patience import Patience

HANG_S: Final = 120.0
"""Longer than anything takes that does not hang."""

QUICK: Final = ProcessSettings(first_backoff_s=0.05, max_backoff_s=0.2, silence_s=30, stall_s=30)
DEFAULTS: Final = ServingSettings()


class Asker:
    """A model process and all it said."""

    def __init__(
        self,
        spec: ModelSpec,
        process_settings: ProcessSettings = QUICK,
        settings: ServingSettings = DEFAULTS,
        **options: Any,
    ) -> None:
        self.chunks: list[AnswerChunk] = []
        self.states: list[EngineState] = []
        self.lines: list[LogLine] = []
        self._changed = threading.Condition()
        self.process = ModelProcess(
            spec,
            on_state=lambda state: self._note(self.states, state),
            on_log=lambda line: self._note(self.lines, line),
            settings=settings,
            process_settings=process_settings,
            **options,
        )
        self.process.start()

    def _note(self, notes: list[Any], note: object) -> None:
        with self._changed:
            notes.append(note)
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], object], timeout_s: float = HANG_S) -> None:
        """Wait until something is true of what was said."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout_s), (self.chunks[-3:], self.states)

    def settled(self) -> EngineState:
        """Wait until the process is ready, has failed or is closed; return its state."""
        self.wait_for(lambda: self.process.state.phase is not EnginePhase.STARTING)
        return self.process.state

    def ready(self) -> Asker:
        """Wait until the process is ready."""
        assert self.settled().is_ready, self.states
        return self

    def finals(self) -> dict[str, Answer]:
        """Return the answers that are over."""
        return {c.request_id: c.answer for c in list(self.chunks) if c.answer is not None}

    def answer(self, request_id: str, timeout_s: float = HANG_S) -> Answer:
        """Wait for an answer."""
        self.wait_for(lambda: request_id in self.finals(), timeout_s)
        return self.finals()[request_id]

    def ask(self, text: str, request_id: str, **more: Any) -> str:
        """Ask, and return the request_id."""
        self.process.ask(
            Question(text, request_id, **more), lambda chunk: self._note(self.chunks, chunk)
        )
        return request_id


def model_processes_of(pid: int) -> list[int]:
    """Return the model processes of a process."""
    found = subprocess.run(
        ['ps', '--ppid', str(pid), '-o', 'pid=,comm='], capture_output=True, text=True, check=False
    )
    return [int(line.split()[0]) for line in found.stdout.splitlines() if 'edge-vlm-model' in line]


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that waits to be reaped does not."""
    try:
        stat = Path(f'/proc/{pid}/stat').read_text()
    except (FileNotFoundError, ProcessLookupError):  # the second while it is read
        return False
    return stat.rpartition(')')[2].split()[0] != 'Z'


def wait_until_gone(pid: int) -> None:
    """Wait for the end of a process."""
    patience = Patience(HANG_S)
    while is_alive(pid):
        assert not patience.is_over(), 'the model process outlived its parent'
        patience.look()


def children() -> int:
    """Count the model processes of this test process."""
    return len(model_processes_of(os.getpid()))
