"""How quickly the package and its command line start, without ROS.

A fresh interpreter each time. The import is timed inside it, so the interpreter's own start does
not count; the command line is timed from outside, with it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from tools.bench.figure import Figure
from tools.bench.timing import in_turn, pairs_of

ROUNDS = 9
_TIMED = 'import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)'


def measure() -> Iterator[Figure]:
    """Time `import edge_vlm_ros` against numpy's, and `edge-vlm --help` against a bare Python."""
    imports = in_turn(lambda: _import_s('edge_vlm_ros'), lambda: _import_s('numpy'), rounds=ROUNDS)
    yield Figure(
        'import_package',
        imports.value_s * 1e3,
        'ms',
        imports.baseline_s * 1e3,
        'import numpy',
        imports.cost,
        'value < 50',
    )
    starts = pairs_of(
        lambda: _python('-m', 'edge_vlm_ros.cli.main', '--help'),
        lambda: _python('-c', 'pass'),
        rounds=ROUNDS,
    )
    yield Figure(
        'command_line_help',
        starts.value_s * 1e3,
        'ms',
        starts.baseline_s * 1e3,
        'python -c pass',
        starts.cost,
        'value < 200',
    )


def _import_s(module: str) -> float:
    return float(_python('-c', _TIMED.format(module)))


def _python(*words: str) -> str:
    return subprocess.run(
        [sys.executable, *words], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
