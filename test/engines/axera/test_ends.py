"""However a process ends that uses the chip, nothing of the chip's memory stays taken.

The driver on the chip's own board takes nothing back: what is on record in the stub's ledger when
a process is gone stays taken until a reboot. Before processes ended in order these ends left, of
InternVL3-2B's shapes: `close()` while loading 2 handles and 10 blocks; SIGTERM, the parent's death
and a stall 30 and 100; `edge-vlm ask` ended while loading 2 and 10.
"""

from __future__ import annotations

import math
import os
import re
import signal
import time

import pytest
from support import ends
from support.asker import HANG_S, is_alive, model_processes_of, wait_until_gone
from support.ledger import NOTHING
from support.patience import Patience

from edge_vlm_ros.core import (
    CancelledError,
    ErrorCode,
    MemoryFigure,
    ModelFileError,
    end_needs,
    listen_needs,
)
from edge_vlm_ros.engines import inspect_model, open_engine
from edge_vlm_ros.engines.axera import runtime
from edge_vlm_ros.engines.axera.memory_guard import KEPT_FREE, needed_bytes
from edge_vlm_ros.serving import EnginePhase, ModelSpec
from edge_vlm_ros.serving.process import ProcessSettings, aftermath
from edge_vlm_ros.serving.process.child_run import End

pytestmark = pytest.mark.axera

ONE_MORE_VARIANT = {
    ends.close_in_mid_answer,
    ends.ctrl_c_to_a_program_while_loading,
    ends.parent_killed_while_loading,
    ends.sighup_when_ready,
    ends.sigterm_to_ask_while_the_chip_hangs,
    ends.sigterm_while_loading,
}
ROWS = [
    pytest.param(
        end,
        id=end.__name__,
        marks=[pytest.mark.exhaustive] if end in ONE_MORE_VARIANT else [],
    )
    for end in ends.ENDS
    if end is not ends.sigkill
]


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    pytest.importorskip('onnx', reason='the sets are written with onnx (test extra)')
    from support.axera.sets import write_tiny

    return write_tiny(tmp_path_factory.mktemp('tiny'))


@pytest.fixture
def make_chip(tmp_path, model):
    from support.axera.ends import axera_chip

    return lambda **more: axera_chip(tmp_path, model, **more)


@pytest.mark.parametrize('end', ROWS)
def test_nothing_of_the_chip_is_left_taken(make_chip, end):
    chip = make_chip()
    assert chip.left_by(end) == NOTHING


def test_a_process_that_is_killed_leaves_all_that_it_held(make_chip):
    """Else the ledger would show nothing."""
    left = make_chip().left_by(ends.sigkill)
    assert (left.handles, left.starts) == (5, 2)
    assert left.blocks > 30


def killed(asker):
    """Kill the model process of a bench that is ready."""
    (pid,) = model_processes_of(os.getpid())
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)


def test_after_a_kill_the_message_says_what_it_cost_and_a_start_that_can_succeed_is_tried(
    make_chip,
):
    chip = make_chip()
    with chip.asker() as asker:
        asker.ready()
        killed(asker)
        asker.wait_for(lambda: asker.process.state.restarts and asker.process.state.is_ready)
        (said,) = {state.message for state in asker.states if 'died of SIGKILL' in state.message}
    assert 'may be held by nobody until the board is started again' in said
    assert re.search(r'\(\d+ MiB are free, \d+ MiB were before it was started: .*cmm_info\)', said)


def test_no_start_is_tried_that_the_free_memory_lets_not_succeed(make_chip):
    from support.axera.sets import model_files

    with make_chip().asker() as asker:
        asker.ready()
        held = make_chip().held().bytes
    needed = needed_bytes(model_files(make_chip().model)) + KEPT_FREE
    chip = make_chip(cmm_bytes=needed + held * 9 // 10)
    with chip.asker() as asker:
        asker.ready()
        killed(asker)
        asker.wait_for(lambda: asker.process.state.phase is EnginePhase.FAILED)
        state = asker.process.state
    assert state.error_code is ErrorCode.DEVICE
    assert 'died of SIGKILL' in state.message
    assert re.search(r'not started again: the model needs at least \d+ MiB', state.message)
    assert state.message.endswith('start the board again')
    assert len([s for s in asker.states if s.phase is EnginePhase.READY]) == 1


@pytest.mark.parametrize(
    ('before', 'now', 'is_hopeless'),
    [(900, 100, True), (900, 600, False), (400, 100, False)],
    ids=['lost', 'enough is free', 'another program held it before'],
)
def test_only_memory_that_was_lost_ends_the_starts(monkeypatch, before, now, is_hopeless):
    from edge_vlm_ros.engines.axera.load_progress import ON_BOARD

    watched = aftermath.Aftermath(ModelSpec('ax650', 'any'))
    figures = iter([before, now, now])
    monkeypatch.setattr(
        watched, '_read', lambda: MemoryFigure(next(figures) << 20, 500 << 20, 'the driver')
    )
    watched.note_start()
    end = watched.explained(End(ModelFileError('it died'), cost=ON_BOARD))
    assert f'({now} MiB are free, {before} MiB were before' in end.error.message
    assert bool(watched.hopeless()) is is_hopeless


# --- stopped between two files -------------------------------------------------------------------


def stop_after(count):
    """Give an `OnLoaded` that stops the load when it is called for the so-manieth time."""
    calls = []

    def on_loaded(loaded, total):
        calls.append((loaded, total))
        if len(calls) > count:
            raise CancelledError('stopped')

    return on_loaded


def test_a_load_is_stopped_before_any_file_and_all_of_it_is_freed(backend, set_files, stand_in):
    stand_in()
    files = set_files('tiny')
    total = 0
    while True:
        try:
            open_engine(
                'ax650', files, options={'backend': backend}, on_loaded=stop_after(total)
            ).close()
        except CancelledError:
            total += 1
        else:
            break
        assert held_now() == (0, 0), total
        assert end_needs().grace_s == 0
    assert total > 2 * 5, 'before and after each file, also of the trial'


def held_now():
    from axengine import _axe
    from axengine._python_library import LEDGER

    if _axe.stub is not None:
        return _axe.stub.count('handles'), _axe.stub.count('blocks')
    return len(LEDGER.handles), len(LEDGER.buffers)


# --- cards ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('providers', ['engine', 'axcl'])
def test_the_vision_tower_is_loaded_before_any_layer(stand_in, set_files, monkeypatch, providers):
    stand_in(providers=providers)
    loaded = []
    open_vendor = runtime._open_vendor

    def note(device, path):
        loaded.append(path.name)
        return open_vendor(device, path)

    monkeypatch.setattr(runtime, '_open_vendor', note)
    files = set_files('tiny')
    tower, layer = (files.weights[part].name for part in ('vision_encoder', 'layers.0'))
    open_engine('ax650', files, options={'backend': 'portable'}).close()
    assert loaded[:2] == [tower, layer]
    loaded.clear()
    inspect_model('ax650', files)
    assert loaded[:2] == [tower, layer]


def test_a_card_must_not_be_killed_while_it_loads_and_may_be_asked_after(stand_in, set_files):
    stand_in(providers='axcl')
    told = []
    listen_needs(lambda needs: told.append(needs.grace_s))
    engine = open_engine('ax650', set_files('tiny'), options={'backend': 'portable'})
    assert 0 < end_needs().grace_s < math.inf
    assert math.inf in told
    engine.close()
    assert end_needs().grace_s == 0


def test_a_card_that_loads_is_left_to_itself_and_ends_between_two_files(make_chip):
    chip = make_chip()
    chip.variables |= {
        'EDGE_VLM_AX_PROVIDERS': 'axcl',
        'EDGE_VLM_AX_LIBRARY': None,
        'EDGE_VLM_AX_HANG': str(chip.hang),
    }
    waits = chip.hang.with_name('hang.waits')
    chip.hang.touch()
    with chip.asker(ProcessSettings(close_s=0.3)) as asker:
        patience = Patience(HANG_S)
        while not waits.exists():
            assert not patience.is_over()
            patience.look()
        (pid,) = model_processes_of(os.getpid())
        started_s = time.monotonic()
        asker.process.close()
        assert time.monotonic() - started_s < HANG_S / 4
        assert is_alive(pid)
        assert asker.process.state.phase is EnginePhase.CLOSED
        (said,) = [line.text for line in asker.lines if 'left to itself' in line.text]
        assert 'until its power is cut' in said
    wait_until_gone(pid)
