"""Start a model process, and see it end.

A fresh interpreter through `subprocess`, not `multiprocessing`: its spawn method imports the
parent's `__main__` again (rclpy and all, for a node) and starts a resource tracker beside. Here
the child imports what it serves and nothing else, whatever started the parent: `python -m`, a
console script or a test.

The environment is inherited as it is: with ROS wheels from PyPI it carries the library path that
the parent found, and the mark that says so.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_vlm_ros.serving.process.channel import Channel
from edge_vlm_ros.serving.process.ending import BY_SIGNAL, is_in_order
from edge_vlm_ros.serving.process.printed import PrintedLines

_BOOT = (
    'import sys; sys.path[:] = sys.argv[3:]; '
    'from edge_vlm_ros.serving.process.child import main; '
    'main(int(sys.argv[1]), int(sys.argv[2]))'
)
# Chip libraries print what they like to standard output; errors, and last words, go to the other.
_OUTPUTS = (('stdout', logging.DEBUG), ('stderr', logging.INFO))
OUTPUT_NAMES = tuple(name for name, _ in _OUTPUTS)

_left_behind: list[subprocess.Popen[bytes]] = []
"""Processes that could not be killed; each is reaped once its driver lets it go."""

# `-P` keeps the current directory off sys.path from the first import on. Older ones have no word
# for it alone; `_BOOT` imports `sys` only, which is built in, before it sets the path.
_NOTHING_FROM_HERE = ('-P',) if sys.version_info >= (3, 11) else ()


def import_path(folders: Sequence[str]) -> list[str]:
    """Return the folders that the model process imports from: absolute ones only.

    '' and '.' stand for the current directory, whatever that is when a module is imported, and
    anybody may have put a numpy.py or a json.py there. Where this package itself was found
    through such an entry, as in a checkout, its folder is named in full.
    """
    kept = [folder for folder in folders if Path(folder).is_absolute()]
    own = str(Path(__file__).resolve().parents[3])
    return kept if len(kept) == len(folders) or own in kept else [*kept, own]


def _environment() -> dict[str, str]:
    """Return this process's environment, without the current directory in PYTHONPATH.

    `PYTHONPATH=$PYTHONPATH:/x` with nothing in it before names the current directory, and an
    interpreter looks there for sitecustomize before any code of ours runs.
    """
    found = os.environ.get('PYTHONPATH')
    if found is None:
        return dict(os.environ)
    kept = [folder for folder in found.split(os.pathsep) if Path(folder).is_absolute()]
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(kept)}


class Child:
    """A running model process, the parent's end of its channel, and what it prints.

    The thread that starts it must live as long as it: some time after that thread's end the
    kernel ends the child (`ending`).
    """

    def __init__(self) -> None:
        _reap_left_behind()
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            connection, other = socket.socketpair()
            ours.callback(connection.close)
            theirs.callback(other.close)
            outputs, writing = [], []
            for name, level in _OUTPUTS:
                read_end, write_end = os.pipe()
                theirs.callback(os.close, write_end)
                outputs.append(PrintedLines(read_end, name, level))
                ours.callback(outputs[-1].close)
                writing.append(write_end)
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    # No folder of a script, and none that is current, before the path is set.
                    *_NOTHING_FROM_HERE,
                    '-c',
                    _BOOT,
                    str(other.fileno()),
                    str(os.getpid()),
                    *import_path(sys.path),
                ],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=writing[0],
                stderr=writing[1],
                pass_fds=(other.fileno(),),
                start_new_session=True,  # Ctrl-C is the parent's.
            )
            ours.pop_all()
        self.channel = Channel(connection)
        self.outputs = tuple(outputs)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask_to_end(self) -> None:
        """Have it end in order; it needs time for that, and not all that hangs can."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self._process.pid, signal.SIGTERM)

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    @property
    def was_in_order(self) -> bool:
        """Whether it has ended and gave back before what it held."""
        status = self._process.poll()
        return status is not None and is_in_order(status)

    def kill(self) -> None:
        """End it now, and what it has started."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def end(self, timeout_s: float, kill_s: float) -> str:
        """Wait for its end, kill it when it takes longer; return how it ended, for people.

        Args:
            timeout_s: How long it may take to end by itself.
            kill_s: How long it may take to die once it is killed.

        Returns:
            '' where not even SIGKILL ended it: see `leave_behind`.
        """
        if not self.is_over_within(timeout_s):
            self.kill()
            if not self.is_over_within(kill_s):
                return ''
        self.channel.shut()
        status = self._process.returncode
        if status < 0:
            return f'died of {_signal_name(-status)}'
        if status > BY_SIGNAL and is_in_order(status):
            return f'was ended by {_signal_name(status - BY_SIGNAL)}'
        return f'ended with status {status}'

    def leave_behind(self, loss: str = '') -> str:
        """Have nothing more to do with a process that cannot be killed; return a sentence.

        Args:
            loss: What a kill would cost, where it was not even tried; '' = it was.
        """
        self.channel.shut()
        _left_behind.append(self._process)
        state = _state_of(self.pid)
        if loss:
            return (
                f'the model process {self.pid} does not end yet ({state}); it is left to itself '
                f'and not killed, for {loss}'
            )
        return (
            f'the model process {self.pid} does not end, not even by SIGKILL '
            f'({state}): it is left behind'
        )

    def close(self) -> None:
        """Free the descriptors; no thread may use the channel any more."""
        self.channel.close()
        for output in self.outputs:
            output.close()

    def is_over_within(self, timeout_s: float) -> bool:
        """Wait for its end; return whether it came."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True


def _reap_left_behind() -> None:
    _left_behind[:] = [process for process in _left_behind if process.poll() is None]


def _state_of(pid: int) -> str:
    """Say what the kernel says of a process: in 'D' it waits for a driver."""
    try:
        state = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
    except (OSError, IndexError):
        return 'its state is not known'
    return 'state D: it waits in a driver' if state == 'D' else f'state {state}'


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f'signal {number}'
