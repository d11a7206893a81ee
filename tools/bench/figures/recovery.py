"""Time to the next good answer after each kind of fault, against an answer without one.

Through a model process, as a node asks it, with the scripted engine and the bounds that a node
has: a question that meets the fault, and a good one right after it. From asking both to the good
answer; the median of several, a new process each. A real model adds its time to load.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from tools.bench.figure import Figure

if TYPE_CHECKING:
    from edge_vlm_ros.core import Answer
    from edge_vlm_ros.serving import ModelProcess

ROUNDS = 3
HANG = 'hang'
_SCRIPT = """
answers: [{answer: 'word word'}]
faults:
  - {at: decode, kind: error, question: error, token: 3}
  - {at: decode, kind: exit, question: exit, token: 3}
  - {at: decode, kind: segfault, question: segfault, token: 3}
  - {at: next_token, kind: hang, question: hang, token: 3}
"""
_KINDS = ('error', 'exit', 'segfault', 'kill', 'hang cancelled', HANG)
_WAIT_S = 120.0


def measure() -> Iterator[Figure]:
    """Break a process in every way."""
    for kind in _KINDS:
        rounds = 1 if kind.startswith(HANG) else ROUNDS
        pairs = [_recovery_ms(kind) for _ in range(rounds)]
        value, baseline = (median(column) for column in zip(*pairs, strict=True))
        name = f'next_good_answer_after_{kind.replace(" ", "_")}'
        yield Figure(name, value, 'ms', baseline, 'the same answer without a fault')


def _recovery_ms(kind: str) -> tuple[float, float]:
    """Return the time to the next good answer after a fault, and without one."""
    from edge_vlm_ros.serving import ModelProcess, ModelSpec

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'script.yaml'
        path.write_text(_SCRIPT, encoding='utf-8')
        spec = ModelSpec('scripted', str(path))
        process = ModelProcess(spec, on_state=lambda _: None)
        process.start()
        try:
            while not process.state.is_ready:
                time.sleep(0.002)
            _good(process)  # Warms up.
            baseline = _good(process)
            return _after(process, kind), baseline
        finally:
            process.close()


def _after(process: ModelProcess, kind: str) -> float:
    from edge_vlm_ros.core import Question

    started_s = time.monotonic()
    bad = process.ask(Question('hang' if kind == 'kill' else kind))
    if kind in {'kill', 'hang cancelled'}:
        while not bad.first_text_ns:
            time.sleep(0.002)
        started_s = time.monotonic()
    if kind == 'kill':
        os.kill(_child(), signal.SIGKILL)
    elif kind == 'hang cancelled':
        bad.cancel()
    _check(process.ask(Question('good')).answer(_WAIT_S))
    return 1e3 * (time.monotonic() - started_s)


def _good(process: ModelProcess) -> float:
    from edge_vlm_ros.core import Question

    started_s = time.monotonic()
    _check(process.ask(Question('good')).answer(_WAIT_S))
    return 1e3 * (time.monotonic() - started_s)


def _check(answer: Answer) -> None:
    if not answer.success:
        raise RuntimeError(f'no good answer: {answer.message}')


def _child() -> int:
    """Return the model process's id: the only child of this process that calls itself so."""
    files = Path('/proc/self/task').glob('*/children')
    pids = [int(word) for file in files for word in file.read_text(encoding='ascii').split()]
    for pid in pids:
        name = Path('/proc', str(pid), 'comm').read_text(encoding='utf-8')
        if name.strip() == 'edge-vlm-model':
            return pid
    raise RuntimeError('no model process runs')
