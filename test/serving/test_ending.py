"""How a model process ends: in order when it is asked to, by the kernel as the last resort."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.asker import QUICK, model_processes_of, wait_until_gone
from support.environment import environment
from support.long_answer import long_words
from support.processes import spawn

from edge_vlm_ros.core import NO_NEEDS, EndNeeds, ErrorCode, end_needs, listen_needs, needing
from edge_vlm_ros.serving.load_stop import LoadStop
from edge_vlm_ros.serving.process.ending import Status, is_in_order

ROOT = Path(__file__).resolve().parents[2]
TALK = {'question': 'Talk', 'answer': long_words(400)}
HERE = {'answer': 'Here: {question}'}


def run(program, *words, timeout_s=60):
    """Run a Python program in a process of its own."""
    return subprocess.run(
        [sys.executable, '-c', program, *words],
        cwd=ROOT,
        env=environment({'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )


# --- signals -------------------------------------------------------------------------------------


def test_a_signal_to_the_model_process_costs_the_answer_that_had_begun_and_no_other(ask_process):
    asker = ask_process(answers=[TALK, HERE], latency={'decode_s': 0.01}).ready()
    asker.ask('Talk', 'begun')
    asker.ask('This', 'waits')
    asker.wait_for(lambda: asker.chunks)
    (pid,) = model_processes_of(os.getpid())
    os.kill(pid, signal.SIGTERM)
    assert asker.answer('waits').text == 'Here: This'
    begun = asker.answer('begun')
    assert begun.error_code is ErrorCode.ENGINE_DIED
    assert begun.message == 'the model process was ended by SIGTERM'
    wait_until_gone(pid)


def test_a_signal_while_it_loads_is_no_failure_of_the_model(ask_process):
    asker = ask_process(QUICK, latency={'load_s': 3, 'load_parts': 30})
    asker.wait_for(lambda: asker.process.state.loading)
    (pid,) = model_processes_of(os.getpid())
    os.kill(pid, signal.SIGHUP)
    asker.ready()
    assert any('was ended by SIGHUP' in state.message for state in asker.states)
    assert asker.process.state.restarts == 1


def test_which_exit_statuses_say_that_all_was_given_back():
    in_order = {status for status in range(256) if is_in_order(status)}
    assert in_order == {0, Status.FAILED, Status.LOST_THREAD, 128 + 1, 128 + 15}
    assert not is_in_order(-signal.SIGKILL)


# --- time limits ---------------------------------------------------------------------------------

HANGS_AT_EXIT = """
import atexit, sys, threading
from edge_vlm_ros.serving.process.ending import end
atexit.register(print, 'shut down', flush=True)
atexit.register(threading.Event().wait)
atexit.register(print, 'shutting down', flush=True)
end(int(sys.argv[1]))
"""


def test_a_shut_down_that_hangs_does_not_hold_up_the_end():
    done = run(HANGS_AT_EXIT, '7')
    assert (done.returncode, done.stdout, done.stderr) == (7, 'shutting down\n', '')


ORPHAN = """
import ctypes, os, subprocess, sys, time
if len(sys.argv) > 1:
    from edge_vlm_ros.serving.process import ending
    ending._LAST_RESORT_S = 1  # also the signal's number
    ending.end_with_parent(int(sys.argv[1]))
    print('child', os.getpid(), flush=True)
    ctypes.PyDLL(None).sleep(600)  # keeps the interpreter lock
else:
    subprocess.Popen([sys.executable, '-c', os.environ['ORPHAN'], str(os.getpid())])
    time.sleep(600)
"""


def test_the_kernel_ends_it_after_its_parent_also_while_a_driver_keeps_python_from_running(
    tmp_path,
):
    path = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, '-c', ORPHAN]
    parent = spawn(command, tmp_path / 'log', {'ORPHAN': ORPHAN, 'PYTHONPATH': path}, cwd=ROOT)
    try:
        parent.wait_for_output('child')
        child = int(parent.output().split()[1])
        parent.process.kill()
        wait_until_gone(child)
    finally:
        parent.stop()


# --- what a process needs to end -----------------------------------------------------------------


def test_a_process_needs_what_the_neediest_in_it_needs():
    told = []
    listen_needs(told.append)
    little, never = EndNeeds(1.0, 'something'), EndNeeds(math.inf, 'a card')
    assert end_needs() == NO_NEEDS
    with needing(little):
        with needing(never):
            assert not end_needs().may_be_killed
        assert end_needs() == little
    assert end_needs() == NO_NEEDS
    assert told == [little, never, little, NO_NEEDS]


def test_a_load_that_is_stopped_is_stopped_at_its_next_part():
    from edge_vlm_ros.core import CancelledError

    told = []
    stop = LoadStop(lambda *part: told.append(part))
    stop.check()
    stop(1, 3)
    stop.check()
    stop.stop()
    with pytest.raises(CancelledError):
        stop(2, 3)
    with pytest.raises(CancelledError):
        stop.check()
    assert told == [(1, 3), (1, 3)]
