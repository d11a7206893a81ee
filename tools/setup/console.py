"""Say what is going on, and run commands whose output only matters when they fail."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

LOG = Path('build') / 'setup.log'
HEARTBEAT_S = 15
TAIL_LINES = 30


class SetupError(Exception):
    """Something a person has to do something about; the message says what."""


def say(text: str) -> None:
    """Print one line at once, also into a pipe."""
    print(text, flush=True)


def run_logged(command: list[str], env: dict[str, str] | None = None) -> None:
    """Run a command with its output in build/setup.log; show a sign of life now and then.

    Raises:
        SetupError: The command failed; the message holds the last lines of its output.
    """
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open('w', encoding='utf-8') as log:
        log.write(f'$ {" ".join(command)}\n')
        log.flush()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env
        )
        try:
            status = wait_with_heartbeat(process)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if status != 0:
        tail = LOG.read_text(encoding='utf-8', errors='replace').splitlines()[-TAIL_LINES:]
        lines = '\n    '.join(tail)
        raise SetupError(f'a command failed, {LOG} has all of it:\n    {lines}')


def wait_with_heartbeat(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of a process, printing the time it has taken so far."""
    started = time.monotonic()
    next_beat = started + HEARTBEAT_S
    while process.poll() is None:
        time.sleep(0.1)
        if time.monotonic() >= next_beat:
            say(f'      ... {time.monotonic() - started:.0f} s')
            next_beat += HEARTBEAT_S
    return process.returncode
