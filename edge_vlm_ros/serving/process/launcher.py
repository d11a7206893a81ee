"""Start a model process.

A fresh interpreter through `subprocess`, not `multiprocessing`: its spawn method imports the
parent's `__main__` again (rclpy and all, for a node) and starts a resource tracker beside. Here
the child imports what it serves and nothing else, whatever started the parent: `python -m`, a
console script or a test.

The environment is inherited as it is: with ROS wheels from PyPI it carries the library path that
the parent found, and the mark that says so.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys

from edge_vlm_ros.serving.process.channel import Channel

_BOOT = (
    'import json, sys; sys.path[:] = json.loads(sys.argv[3]); '
    'from edge_vlm_ros.serving.process.child import main; '
    'main(int(sys.argv[1]), int(sys.argv[2]))'
)
_STDERR = 2


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
                        '-c',
                        _BOOT,
                        str(theirs.fileno()),
                        str(os.getpid()),
                        json.dumps(sys.path),
                    ],
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
