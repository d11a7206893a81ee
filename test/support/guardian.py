"""Ends what a test run started when the run has ended, however that came about.

python -m support.guardian RUN; its standard input is a pipe whose other end the run alone holds,
which closes with the run, also when that is killed.
"""

from __future__ import annotations

import subprocess
import sys

from support.environment import environment
from support.leftovers import kill_processes_of, remove_dead_shared_memory


class Guardian:
    """The guardian of a run that this process is.

    Args:
        run: Its name; see `support.leftovers`.
    """

    def __init__(self, run: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'support.guardian', run],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the run's
            env=environment({'PYTHONPATH': ':'.join(filter(None, sys.path))}),
        )

    def close(self) -> None:
        """Let it end what is left, and wait for it."""
        self._process.communicate()


def main(run: str) -> None:
    """Wait for the end of a run, then end what it left."""
    sys.stdin.read()
    kill_processes_of(run)
    remove_dead_shared_memory()


if __name__ == '__main__':
    main(sys.argv[1])
