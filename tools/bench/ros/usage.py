"""What a process costs, as Linux counts it."""

from __future__ import annotations

from pathlib import Path


def cpu_s(pid: int) -> float:
    """Return the processor time of a process so far, all its living threads, seconds.

    From schedstat, which counts nanoseconds; the usual counters tick a hundred times a second.
    """
    files = Path('/proc', str(pid), 'task').glob('*/schedstat')
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


def resident_mb(pid: int) -> float:
    """Return the memory of a process that is in RAM, shared libraries too, in 10^6 bytes."""
    for line in Path('/proc', str(pid), 'status').read_text(encoding='ascii').splitlines():
        if line.startswith('VmRSS:'):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f'process {pid} has no memory: it has ended')
