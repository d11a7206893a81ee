"""Every fault in every stage, on three engines in a real model process: one table.

Whatever happens, a question ends in exactly one final chunk with the code of the table, one model
process runs afterwards, and the next question about the same frame is answered as if nothing had
been. A stage stands still until the test goes on, and a hang is over when the test's clock says
so: nothing here depends on the machine's speed. What comes before and after the model process
(waiting for a frame, the reply) is in `test/nodes/test_vlm_fault_matrix.py`.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from support import broken
from support.asker import HANG_S, Asker, children, model_processes_of
from support.broken.order import Order, give, go
from support.broken.table import CELLS, TABLE
from support.patience import Patience

from edge_vlm_ros.core import (
    CompressedImage,
    FrameSource,
    RawImage,
    SamplingOptions,
    StoredFrame,
)
from edge_vlm_ros.models import find_model
from edge_vlm_ros.serving import EnginePhase, ModelSpec
from edge_vlm_ros.serving.process import ProcessSettings

ROOT = Path(__file__).resolve().parents[2]
SKIP_S = 31.0
BOUNDS = ProcessSettings(
    first_backoff_s=0.02, max_backoff_s=0.02, silence_s=30, stall_s=30, close_s=2.0
)
GREEDY = SamplingOptions(max_tokens=16)
ENGINES = ['scripted', 'cpu', 'ax650']
RESTARTS = {'crash', 'hang'}
IN_EVERY_RUN = {
    'scripted': set(CELLS),
    'cpu': set(itertools.product(['encode', 'prefill', 'between chunks'], ['error', 'wrong'])),
    'ax650': set(itertools.product(['encode', 'prefill', 'between chunks'], ['error'])),
}
for engine in ('cpu', 'ax650'):
    IN_EVERY_RUN[engine] |= {('prefill', 'crash'), ('between chunks', 'hang'), ('load', 'error')}


def cells():
    for engine, (stage, kind) in itertools.product(ENGINES, CELLS):
        marks = [pytest.mark.axera] if engine == 'ax650' else []
        name = f'{engine}-{stage}-{kind}'
        if (stage, kind) not in IN_EVERY_RUN[engine]:
            marks.append(pytest.mark.exhaustive)
            name = f'more-{name}'
        yield pytest.param(engine, stage, kind, marks=marks, id=name)


class SkippingClock:
    """Steady time, from which the test skips some."""

    def __init__(self):
        self.skipped_ns = 0

    def now_ns(self):
        return time.monotonic_ns() + self.skipped_ns


class Machine:
    """A model process on a chip that breaks, and what it says when nothing is broken."""

    def __init__(self, spec, order):
        self.order = order
        self.clock = SkippingClock()
        self.asker = Asker(spec, BOUNDS, clock=self.clock).ready()
        self.names = (f'q{number}' for number in itertools.count())
        self.right = self.ask_and_wait()
        assert len(self.right) > 1
        self.fds = descriptors()

    def ask(self, frame=None):
        name = next(self.names)
        return self.asker.ask('What is it?', name, frames=(frame or still(),), sampling=GREEDY)

    def ask_and_wait(self, frame=None):
        answer = self.asker.answer(self.ask(frame))
        assert answer.success, answer.message
        return answer.text

    def let_it_break(self, order, name):
        """Wait until the order was carried out; let the time pass in which it hangs."""
        if order.waits:
            self.asker.wait_for(lambda: self.chunks_of(name))
            go(self.order)
        self.until_met()
        if order.kind != 'hang' or order.stage == 'close':
            return
        patience = Patience(HANG_S)
        restarts = self.asker.process.state.restarts
        while self.asker.process.state.restarts == restarts:
            assert not patience.is_over(), 'it hangs'
            self.clock.skipped_ns += round(SKIP_S * 1e9)
            patience.look()

    def until_met(self):
        """Wait until the engine has come to where the order says."""
        patience = Patience(HANG_S)
        while self.order.exists():
            assert not patience.is_over(), 'the stage was not reached'
            patience.look()

    def chunks_of(self, name):
        return [chunk for chunk in list(self.asker.chunks) if chunk.request_id == name]


def descriptors():
    return len(list(Path('/proc/self/fd').iterdir()))


def still(image=None):
    pixels = np.arange(28 * 28 * 3, dtype=np.uint32).astype(np.uint8)
    image = image or RawImage('rgb8', 28, 28, 3 * 28, pixels.tobytes())
    return StoredFrame(FrameSource('front', '/image', 'optical'), 7, image, 1)


def scripted(folder):
    path = folder / 'script.yaml'
    path.write_text(yaml.safe_dump({'answers': [{'answer': '{question} {means}'}]}))
    return path


def demo_model(folder):
    del folder
    return find_model('cpu').folder


def axmodels(folder):
    pytest.importorskip('onnx', reason='the sets are written with onnx (test extra)')
    from support.axera.sets import KINDS

    return KINDS['tiny-reciting'](folder)


MODELS = {'scripted': scripted, 'cpu': demo_model, 'ax650': axmodels}


@pytest.fixture(scope='module')
def open_machine(tmp_path_factory):
    """Open a machine on an engine; it is closed when another is wanted, and at the end."""
    machines = {}
    with pytest.MonkeyPatch.context() as patch:

        def make(engine):
            for other in set(machines) - {engine}:
                machines.pop(other).asker.process.close()
            if engine in machines:
                return machines[engine]
            folder = tmp_path_factory.mktemp(engine)
            order = folder / 'order.json'
            patch.syspath_prepend(str(broken.install(folder / 'site')))
            if engine == 'ax650':
                from support.axera.stub.build import build_stub

                patch.syspath_prepend(str(ROOT / 'test' / 'support' / 'axera' / 'standin'))
                patch.setenv('EDGE_VLM_AX_LIBRARY', str(build_stub('ax650')))
            for name, value in broken.environment(order).items():
                patch.setenv(name, value)
            spec = ModelSpec(f'broken-{engine}', str(MODELS[engine](folder)))
            machines[engine] = Machine(spec, order)
            return machines[engine]

        yield make
        for machine in machines.values():
            machine.asker.process.close()


@pytest.mark.parametrize(('engine', 'stage', 'kind'), cells())
def test_every_fault_in_every_stage_ends_its_question_once_and_the_next_is_right(
    open_machine, engine, stage, kind
):
    machine = open_machine(engine)
    asker = machine.asker.ready()
    (pid,) = model_processes_of(os.getpid())
    before = asker.process.state.restarts
    is_cut = (stage, kind) == ('decode image', 'error')
    frame = fresh(machine, CompressedImage('jpeg', b'\xff\xd8\xff\xe0 cut') if is_cut else None)
    name = ask_into(machine, stage, kind, frame)
    answer = asker.answer(name)
    assert answer.error_code is TABLE[stage][kind], answer.message
    if answer.success:
        assert answer.text == machine.right
    else:
        assert answer.message
        assert bool(answer.text) == (stage in {'between chunks', 'close'}), 'what had been said'
    # The same frame again: nothing wrong was kept of it.
    again = None if is_cut else frame
    assert [machine.ask_and_wait(again) for _ in 'ab'] == [machine.right] * 2
    check_chunks(machine, name, answer)
    is_new = kind in RESTARTS or stage in {'load', 'close'}
    assert (model_processes_of(os.getpid()) == [pid]) != is_new, 'one, and which'
    if stage not in {'load', 'close'}:
        assert asker.process.state.restarts - before == is_new
    patience = Patience(HANG_S)
    while descriptors() > machine.fds:
        assert not patience.is_over(), 'descriptors are left'
        patience.look()


def ask_into(machine, stage, kind, frame):
    """Ask a question that meets the fault; return its request_id once the fault is over."""
    asker = machine.asker
    if (stage, kind) == ('decode image', 'error'):
        return machine.ask(frame)
    if stage == 'close':
        return close_into(machine, kind, frame)
    waits = stage == 'between chunks'
    order = Order('decode' if waits else stage, kind, calls=2 * waits, waits=waits)
    give(order, machine.order)
    if stage == 'load':
        asker.process.close()
        asker.process.start()
    name = machine.ask(frame)
    machine.let_it_break(order, name)
    return name


def close_into(machine, kind, frame):
    """Close the process in the midst of an answer, and have its engine break while it closes."""
    process = machine.asker.process
    give(Order('decode', 'slow', calls=2, waits=True), machine.order)
    name = machine.ask(frame)
    machine.asker.wait_for(lambda: machine.chunks_of(name))
    machine.until_met()
    give(Order('close', kind), machine.order)
    closing = threading.Thread(target=process.close)
    closing.start()
    machine.asker.answer(name)  # It does not wait for the engine, which stands still.
    go(machine.order)
    closing.join(HANG_S)
    assert not closing.is_alive()
    assert children() == 0
    assert process.state.phase is EnginePhase.CLOSED
    machine.order.unlink(missing_ok=True)
    process.start()
    return name


def fresh(machine, image=None):
    """Return a frame whose features nobody has kept."""
    frame = still(image)
    return replace(frame, stamp_ns=100 + len(machine.asker.chunks))


def check_chunks(machine, name, answer):
    chunks = machine.chunks_of(name)
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
    assert ''.join(chunk.delta for chunk in chunks) == answer.text
