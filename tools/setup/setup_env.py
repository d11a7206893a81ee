"""Set up `.venv` with ROS 2, the built interfaces and what a make target needs.

    python3 tools/setup/setup_env.py run      # what the demo needs
    python3 tools/setup/setup_env.py nodes    # and what the tests of the nodes need
    python3 tools/setup/setup_env.py test     # and what all tests, checks and benchmarks need

With ROS=jazzy in the environment it is Jazzy from PyPI, in `.venv-jazzy`. Runs on a bare Python
3.10 or later: only the standard library is used here. A step is skipped when its inputs are those
of the last time; a step that was interrupted is done again.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import steps
import system
from console import SetupError, say

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Do every step that is not done yet; return 0, or 1 after saying what to do about it."""
    level = parse_arguments().level
    wanted = os.environ.get('ROS', '')
    try:
        system.check_python()
        with one_at_a_time(ROOT / 'build'):
            set_up(level, wanted)
    except SetupError as error:
        say(f'\nset-up failed: {error}')
        return 1
    except KeyboardInterrupt:
        say('\nset-up interrupted; run it again to go on')
        return 130
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Set up .venv for the make targets.')
    parser.add_argument('level', choices=steps.LEVELS, help='what the set-up is for')
    return parser.parse_args()


def set_up(level: str, wanted: str) -> None:
    """Run the steps in order, saying which of how many each is."""
    started = time.monotonic()
    env = steps.Environment(ROOT, system.find_ros(wanted), steps.folder_name(wanted))
    todo = steps.steps_for(level, env)
    worked = False
    for number, step in enumerate(todo, start=1):
        if step.is_done():
            continue
        worked = True
        say(f'[{number}/{len(todo)}] {step.title}')
        step.run()
    if worked:
        say(f'set up in {time.monotonic() - started:.0f} s')


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Let a second set-up of the same tree wait for the first."""
    folder.mkdir(exist_ok=True)
    with (folder / 'setup.lock').open('w', encoding='utf-8') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say('another set-up is running; waiting for it')
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == '__main__':
    os.chdir(ROOT)
    sys.exit(main())
