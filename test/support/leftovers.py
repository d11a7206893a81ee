"""What a test run has started and not ended: processes, and shared memory of the middleware.

A run names itself in the environment, which every process that it starts inherits, and theirs,
whatever sessions and groups they make for themselves. So the processes of a run can be found even
when the run itself is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import time
from pathlib import Path
from typing import Final

VARIABLE: Final = 'EDGE_VLM_TEST_RUN'
"""Names a run, and after slashes the runs within it: workers, a pytest that a test starts."""

_SHARED_MEMORY: Final = Path('/dev/shm')
# A segment `NAME` of a process, or of a port: who uses it holds a lock on `NAME_el` or `NAME_sl`.
_SEGMENT: Final = re.compile(r'(?:fastdds|fastrtps)_(?:[0-9a-f]{16}|port\d+)')
_LOCKS: Final = ('_el', '_sl')
_TO_LOCK_S: Final = 1.0
_TO_COME_S: Final = 60.0


def enter_run(name: str) -> str:
    """Name this process's run, within the one that started it if there is one.

    Processes that are started from now on belong to it; this process itself does not.
    """
    outer = os.environ.get(VARIABLE, '')
    os.environ[VARIABLE] = f'{outer}/{name}' if outer else name
    return os.environ[VARIABLE]


def processes_of(run: str) -> dict[int, str]:
    """Return the living processes of a run and of those within it: process id -> command line.

    This process is left out.
    """
    found = {}
    for folder in Path('/proc').iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it ended, or is another user's
            if _is_of(run, (folder / 'environ').read_bytes()):
                words = (folder / 'cmdline').read_bytes().split(b'\0')
                found[int(folder.name)] = b' '.join(words).decode(errors='replace').strip()
    return found


def _is_of(run: str, environ: bytes) -> bool:
    start = f'{VARIABLE}='.encode()
    names = [entry[len(start) :] for entry in environ.split(b'\0') if entry.startswith(start)]
    return any(name == run.encode() or name.startswith(f'{run}/'.encode()) for name in names)


def kill_processes_of(run: str) -> None:
    """End the processes of a run, also those that start others meanwhile."""
    while found := processes_of(run):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def remove_dead_shared_memory() -> list[str]:
    """Remove shared memory whose processes are dead; return the names.

    A process takes its lock right after it has made the lock file: what nobody has locked a second
    after it was seen has no owner any more. A segment without a lock file was made by who sends to
    a port; whose port it is may take a little longer to come.
    """
    seen = _segments()
    if not seen:
        return []
    time.sleep(_TO_LOCK_S)
    dead = {name for name in seen if _is_dead(name)}
    for name in dead:
        for file in (name, *(name + lock for lock in _LOCKS), f'sem.{name}_mutex'):
            (_SHARED_MEMORY / file).unlink(missing_ok=True)
    return sorted(dead)


def _segments() -> set[str]:
    files = (path.name.removeprefix('sem.') for path in _SHARED_MEMORY.iterdir())
    return {match[0] for file in files if (match := _SEGMENT.match(file))}


def _is_dead(name: str) -> bool:
    locks = [name + lock for lock in _LOCKS if (_SHARED_MEMORY / (name + lock)).exists()]
    if locks:
        return not any(map(_is_locked, locks))
    try:
        return time.time() - (_SHARED_MEMORY / name).stat().st_mtime > _TO_COME_S
    except FileNotFoundError:
        return True  # only its semaphore is left


def _is_locked(file: str) -> bool:
    """Return whether a process holds a lock; also where that cannot be found out."""
    try:
        descriptor = os.open(_SHARED_MEMORY / file, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # another user's
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
