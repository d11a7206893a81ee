"""What a process holds, over time: memory and its slope, descriptors, threads, shared memory."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

_SEGMENT: Final = re.compile(r'/dev/shm/((?:fastdds|fastrtps)_[0-9a-f]{16})')  # noqa: S108 (read)
_PAIRS: Final = 400


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at a moment.

    Attributes:
        pid: Its id.
        requests: Requests that were over by then.
        megabytes: Resident memory, 10^6 bytes.
    """

    pid: int
    requests: int
    megabytes: float


def sample(pid: int, requests: int) -> Sample | None:
    """Measure a process; None = it has ended."""
    try:
        fields = Path('/proc', str(pid), 'statm').read_text(encoding='ascii').split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Sample(pid, requests, int(fields[1]) * 4096 / 1e6) if len(fields) > 1 else None


def slope(samples: Sequence[Sample]) -> float:
    """Return by how many MB the memory grows in 1000 requests; 0 = too little was measured.

    The median of the slopes between samples of one process (Theil and Sen): neither one outlier
    nor a process that is new changes it.
    """
    thinned = samples[:: max(1, len(samples) // _PAIRS)]
    slopes = [
        1e3 * (two.megabytes - one.megabytes) / (two.requests - one.requests)
        for one, two in itertools.combinations(thinned, 2)
        if one.pid == two.pid and two.requests > one.requests
    ]
    return median(slopes) if slopes else 0.0


def descriptors(pid: int) -> int:
    """Count what a process has open."""
    return sum(1 for _ in Path('/proc', str(pid), 'fd').iterdir())


def threads(pid: int) -> int:
    """Count its threads."""
    return sum(1 for _ in Path('/proc', str(pid), 'task').iterdir())


def children(pid: int) -> list[int]:
    """Return the ids of its children."""
    files = Path('/proc', str(pid), 'task').glob('*/children')
    return [int(word) for file in files for word in file.read_text(encoding='ascii').split()]


def shared_memory(pid: int) -> set[str]:
    """Name the segments in /dev/shm that are the process's own."""
    maps = Path('/proc', str(pid), 'maps').read_text(encoding='utf-8', errors='replace')
    return set(_SEGMENT.findall(maps))


def still_there(names: Iterable[str]) -> list[str]:
    """Return the segments that are in /dev/shm now."""
    return sorted(name for name in names if Path('/dev/shm', name).exists())  # noqa: S108 (read)


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that waits to be reaped does not."""
    try:
        stat = Path('/proc', str(pid), 'stat').read_text(encoding='utf-8', errors='replace')
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(')')[2].split()[0] != 'Z'
