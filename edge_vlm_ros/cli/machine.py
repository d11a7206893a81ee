"""The machine that the doctor looks at: its files and its vendors' tools.

The environment variable EDGE_VLM_DOCTOR_ROOT puts another folder in the place of `/`, with the
`proc`, `sys`, `dev` and `opt` of another machine copied into it: for tests, and for looking at
what a board's owner sent. What runs here, modules and tools, is asked here all the same.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT_VARIABLE = 'EDGE_VLM_DOCTOR_ROOT'
_TOOL_TIMEOUT_S = 20.0
_MEMORY = re.compile(r'^MemTotal:\s+(\d+) kB', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Machine:
    """A file system.

    Attributes:
        root: What stands for `/`.
    """

    root: Path = Path('/')

    def read(self, path: str) -> str:
        """Return a small text file; '' where it is not there or must not be read."""
        try:
            return self.at(path).read_text(encoding='utf-8', errors='replace')
        except OSError:
            return ''

    def at(self, path: str) -> Path:
        """Return the place of an absolute path."""
        return self.root / path.lstrip('/')

    def found(self, *patterns: str) -> list[Path]:
        """List what matches any of these absolute patterns and may be seen."""
        try:
            hits = [hit for pattern in patterns for hit in self.root.glob(pattern.lstrip('/'))]
        except OSError:
            return []
        return sorted(hits)

    def name_of(self, path: Path) -> str:
        """Return the path as it is called on that machine."""
        return f'/{path.relative_to(self.root)}'

    def memory_mb(self) -> int:
        """Return the host's memory, MiB; 0 = not known."""
        match = _MEMORY.search(self.read('/proc/meminfo'))
        return int(match[1]) // 1024 if match else 0


def this_machine() -> Machine:
    """Return the machine to look at."""
    return Machine(Path(os.environ.get(ROOT_VARIABLE) or '/'))


def output_of(*command: str) -> str:
    """Run a vendor's tool; return what it printed, '' where it is not there or fails."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors='replace',
            timeout=_TOOL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ''
    return done.stdout if done.returncode == 0 else ''


def version_in(text: str) -> tuple[int, ...]:
    """Read the first version number of a text: 'V3.6.2_2025' is (3, 6, 2); () = there is none."""
    match = re.search(r'\d+(?:\.\d+)+', text)
    return tuple(map(int, match[0].split('.'))) if match else ()


def is_older(version: tuple[int, ...], oldest: tuple[int, ...]) -> bool:
    """Return whether a version is known and older than the oldest that will do."""
    return bool(version) and version < oldest
