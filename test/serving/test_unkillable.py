"""A process that a driver holds (state D): SIGKILL has no effect, it neither reads nor speaks."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import replace

import pytest
from support.asker import HANG_S, Asker, model_processes_of
from support.patience import Patience

from edge_vlm_ros.core import ErrorCode
from edge_vlm_ros.serving import EnginePhase
from edge_vlm_ros.serving.process import ProcessSettings, launcher

BOUNDS = ProcessSettings(stall_s=1.0, kill_s=0.5, close_s=0.5, first_backoff_s=0.05)
HERE = {'answer': 'Here: {question}'}


@pytest.fixture
def held(monkeypatch):
    """Have no model process die of SIGKILL from now on; return what ends them after all."""
    monkeypatch.setattr(launcher.Child, 'kill', lambda self: None)
    (pid,) = model_processes_of(os.getpid())
    os.kill(pid, signal.SIGSTOP)
    yield pid
    # The kernel may have ended it with the thread that started it, and a new start reaped it.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    patience = Patience(HANG_S)
    while launcher._left_behind:
        assert not patience.is_over()
        launcher._reap_left_behind()
        patience.look()


@pytest.fixture
def asker(ask_process):
    """A process that is ready."""
    return ask_process(BOUNDS, answers=[HERE]).ready()


@pytest.fixture
def patient_asker(ask_process):
    """Likewise, and never taken for hanging."""
    return ask_process(replace(BOUNDS, stall_s=3600.0), answers=[HERE]).ready()


def test_it_is_left_behind_with_a_sentence_and_every_question_ends(asker, request):
    pid = request.getfixturevalue('held')
    for name in 'ab':
        asker.ask('Well?', name)
    state = failed(asker)
    assert state.error_code is ErrorCode.DEVICE
    assert 'did not finish a step within 1 s' in state.message
    assert f'the model process {pid} does not end, not even by SIGKILL (state ' in state.message
    assert state.message.endswith('it is left behind')
    for name in 'ab':
        answer = asker.answer(name)
        assert answer.error_code is ErrorCode.DEVICE
        assert 'left behind' in answer.message
    assert sorted(chunk.request_id for chunk in asker.chunks) == ['a', 'b']
    asker.ask('And now?', 'c')
    assert asker.finals()['c'].error_code is ErrorCode.NOT_READY
    assert 'left behind' in asker.finals()['c'].message


def failed(asker: Asker):
    asker.wait_for(lambda: asker.process.state.phase is EnginePhase.FAILED)
    return asker.process.state


def test_closing_is_bounded_and_says_so(patient_asker, request):
    asker = patient_asker
    asker.ask('Well?', 'before')
    asker.answer('before')
    pid = request.getfixturevalue('held')
    asker.ask('Well?', 'a')
    started = time.monotonic()
    asker.process.close()
    assert time.monotonic() - started < HANG_S / 4, 'it waited for the dead'
    assert asker.process.state.phase is EnginePhase.CLOSED
    assert asker.finals()['a'].error_code is ErrorCode.CANCELLED
    said = [line.text for line in asker.lines if 'left behind' in line.text]
    assert len(said) == 1
    assert str(pid) in said[0]


def test_it_can_be_started_again_by_hand(asker, request):
    asker.ask('Well?', 'a')
    asker.answer('a')
    request.getfixturevalue('held')
    asker.ask('Well?', 'b')
    failed(asker)
    asker.process.start()
    asker.ready()
    assert asker.answer(asker.ask('Once more', 'c')).text == 'Here: Once more'
