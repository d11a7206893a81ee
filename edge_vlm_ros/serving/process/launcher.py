"""Start a model process.

A fresh interpreter through `subprocess`, not `multiprocessing`: its spawn method imports the
parent's `__main__` again (rclpy and all, for a node) and starts a resource tracker beside. Here
the child imports what it serves and nothing else, whatever started the parent: `python -m`, a
console script or a test.

The environment is inherited as it is: with ROS wheels from PyPI it carries the library path that
the parent found, and the mark that says so.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_vlm_ros.serving.process.channel import Channel

_BOOT = (
    'import sys; sys.path[:] = sys.argv[3:]; '
    'from edge_vlm_ros.serving.process.child import main; '
    'main(int(sys.argv[1]), int(sys.argv[2]))'
)
# `-P` keeps the current directory off sys.path from the first import on. Older ones have no word
# for it alone; `_BOOT` imports `sys` only, which is built in, before it sets the path.
_NOTHING_FROM_HERE = ('-P',) if sys.version_info >= (3, 11) else ()
_STDERR = 2


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
    """A running model process and the parent's end of its channel.

    The thread that starts it must live as long as it: the kernel ends the child with that thread.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        # No folder of a script, and none that is current, before the path is set.
                        *_NOTHING_FROM_HERE,
                        '-c',
                        _BOOT,
                        str(theirs.fileno()),
                        str(os.getpid()),
                        *import_path(sys.path),
                    ],
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=_STDERR,  # Chip libraries print; our standard output is not theirs.
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # Ctrl-C is the parent's.
                )
        except BaseException:
            ours.close()
            raise
        self.channel = Channel(ours)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def kill(self) -> None:
        """End it now."""
        self._process.kill()

    def end(self, timeout_s: float) -> str:
        """Wait for its end, kill it when it takes longer; return how it ended, for people."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self.channel.shut()
        if status < 0:
            return f'died of {_signal_name(-status)}'
        return f'ended with status {status}'


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f'signal {number}'
