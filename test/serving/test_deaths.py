"""The death of a model process costs the answer that had begun; the others are asked again."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from support.asker import QUICK, children, model_processes_of
from support.long_answer import long_words

from edge_vlm_ros.core import ErrorCode
from edge_vlm_ros.serving import EnginePhase
from edge_vlm_ros.serving.process import ProcessSettings, launcher

TALK = {'question': 'Talk', 'answer': long_words(400)}
HERE = {'answer': 'Here: {question}'}
SLOWLY = {'decode_s': 0.01}


def kill(number=signal.SIGKILL):
    """Send a signal to the model process of this test process."""
    (pid,) = model_processes_of(os.getpid())
    os.kill(pid, number)


def descriptors():
    return len(list(Path('/proc/self/fd').iterdir()))


def finals(asker):
    return Counter(chunk.request_id for chunk in asker.chunks if chunk.done)


def test_those_that_waited_are_answered_by_the_next_process_in_their_order(ask_process, frame):
    asker = ask_process(answers=[TALK, {'answer': '{question} {means}'}], latency=SLOWLY).ready()
    asker.ask('Talk', 'begun')
    shown = {name: (frame(20 * number, stamp_ns=number),) for number, name in enumerate('abc')}
    for name, frames in shown.items():
        asker.ask(f'This is {name}', name, frames=frames)
    asker.wait_for(lambda: asker.chunks)
    kill()
    texts = [asker.answer(name).text for name in 'abc']
    assert [text.rpartition(' ')[0] for text in texts] == [f'This is {name}' for name in 'abc']
    assert len({text.rpartition(' ')[2] for text in texts}) == 3, 'each about its own frame'
    assert asker.answer('begun').error_code is ErrorCode.ENGINE_DIED
    order = [chunk.request_id for chunk in asker.chunks if chunk.done]
    assert order == ['begun', 'a', 'b', 'c']
    for name in 'abc':
        numbers = [chunk.sequence for chunk in asker.chunks if chunk.request_id == name]
        assert numbers == list(range(len(numbers)))
    assert asker.answer('a').timings.total_s > 0


def test_a_question_that_kills_twice_ends_and_those_that_waited_do_not(ask_process):
    faults = [{'at': 'prefill', 'question': 'poison', 'kind': 'segfault'}]
    asker = ask_process(answers=[HERE], faults=faults).ready()
    asker.ask('poison', 'bad')
    names = [asker.ask(f'This is {name}', name) for name in 'abc']
    answer = asker.answer('bad')
    assert answer.error_code is ErrorCode.ENGINE_DIED
    assert 'SIGSEGV' in answer.message
    assert '2 times' in answer.message
    assert [asker.answer(n).text for n in names] == [f'Here: This is {n}' for n in names]
    assert asker.process.state.restarts == 2
    assert finals(asker) == Counter(['bad', *names])


def test_several_that_kill_cost_themselves_alone(ask_process):
    faults = [
        {'at': 'prefill', 'question': 'poison', 'kind': 'exit'},
        {'at': 'next_token', 'question': 'venom', 'kind': 'exit'},
    ]
    asker = ask_process(answers=[HERE], faults=faults).ready()
    names = [asker.ask(text, text) for text in ('poison', 'venom', 'first', 'second')]
    codes = [asker.answer(name).error_code for name in names]
    assert codes == [ErrorCode.ENGINE_DIED] * 2 + [ErrorCode.NONE] * 2
    assert finals(asker) == Counter(names)


def test_a_question_under_way_in_one_death_is_asked_again(ask_process):
    asker = ask_process(
        answers=[HERE],
        latency={'prefill_call_s': 0.0, 'head_s': 0.0, 'load_s': 0.0},
        faults=[{'at': 'next_token', 'question': 'slow', 'kind': 'hang', 'seconds': 1e4}],
    ).ready()
    asker.ask('slow', 'a')
    asker.ask('quick', 'b')
    asker.wait_for(lambda: asker.process.state.phase is EnginePhase.STALLED)
    kill()
    asker.wait_for(lambda: asker.process.state.restarts == 1)
    asker.wait_for(lambda: asker.process.state.phase is EnginePhase.STALLED)
    kill()
    assert asker.answer('a').error_code is ErrorCode.ENGINE_DIED
    assert asker.answer('b').text == 'Here: quick'


def test_a_hang_costs_those_that_wait_nothing(ask_process):
    bounds = ProcessSettings(stall_s=1.0, first_backoff_s=0.05)
    faults = [{'at': 'decode', 'question': 'hang', 'kind': 'hang'}]
    asker = ask_process(bounds, answers=[HERE], faults=faults).ready()
    asker.ask('hang', 'bad')
    names = [asker.ask(f'This is {name}', name) for name in 'ab']
    assert asker.answer('bad').error_code is ErrorCode.DEVICE
    assert 'in decode of request bad' in asker.answer('bad').message
    assert [asker.answer(n).text for n in names] == [f'Here: This is {n}' for n in names]


def test_a_cancel_and_a_deadline_hold_between_two_processes(ask_process):
    bounds = ProcessSettings(first_backoff_s=60.0)
    asker = ask_process(bounds, answers=[TALK], latency=SLOWLY).ready()
    asker.ask('Talk', 'begun')
    for name in ('cancelled', 'kept'):
        asker.ask('Talk', name)
    asker.ask('Talk', 'overdue', deadline_ns=time.monotonic_ns() + 3_000_000_000)
    asker.wait_for(lambda: asker.chunks)
    kill()
    asker.answer('begun')
    assert asker.process.held == 3
    assert asker.process.cancel('cancelled') == 1
    assert asker.finals()['cancelled'].error_code is ErrorCode.CANCELLED
    assert asker.answer('overdue').error_code is ErrorCode.DEADLINE
    assert 'kept' not in asker.finals()
    asker.process.close()
    assert asker.answer('kept').error_code is ErrorCode.CANCELLED
    assert finals(asker) == Counter(['begun', 'cancelled', 'overdue', 'kept'])


def test_what_was_cancelled_while_the_process_hung_is_not_asked_again(ask_process):
    faults = [{'at': 'next_token', 'question': 'hang', 'kind': 'hang'}]
    asker = ask_process(answers=[HERE], faults=faults).ready()
    asker.ask('hang', 'a')
    asker.ask('Well?', 'b')
    asker.wait_for(lambda: asker.process.state.phase is EnginePhase.STALLED)
    kill(signal.SIGSTOP)  # The process itself cannot say any more that it heard of the cancel.
    asker.process.cancel('a')
    assert asker.answer('a').error_code is ErrorCode.CANCELLED
    kill()
    assert asker.answer('b').text == 'Here: Well?'
    assert asker.process.state.restarts == 1
    assert finals(asker) == Counter('ab')


def test_a_conversation_that_died_with_its_process_is_said_to_be_lost_once(ask_process, frame):
    asker = ask_process(answers=[TALK, HERE], latency=SLOWLY).ready()
    for name in ('s', 't'):
        first = asker.ask('Who?', f'{name}1', session_id=name, frames=(frame(50),))
        assert asker.answer(first).success
    asker.ask('Talk', 'begun')
    asker.ask('And why?', 's2', session_id='s', frames=(frame(60, stamp_ns=2),))
    asker.ask('New here', 'new', session_id='u')
    asker.wait_for(lambda: any(chunk.request_id == 'begun' for chunk in asker.chunks))
    kill()
    lost = asker.answer('s2')
    assert lost.error_code is ErrorCode.UNKNOWN_SESSION
    assert "'s'" in lost.message
    assert asker.answer('new').success, 'it had nothing to lose'
    assert asker.answer(asker.ask('Again', 's3', session_id='s')).success, 'it begins anew'
    later = asker.answer(asker.ask('Still there?', 't2', session_id='t'))
    assert later.error_code is ErrorCode.UNKNOWN_SESSION
    assert asker.answer(asker.ask('Again', 't3', session_id='t')).success


def test_a_conversation_that_was_reset_begins_anew_after_a_death(ask_process):
    asker = ask_process(answers=[HERE]).ready()
    for name in 'stu':
        assert asker.answer(asker.ask('Who?', name, session_id=name)).success
    kill()
    asker.wait_for(lambda: asker.process.state.restarts == 1)
    asker.process.reset_session('s')
    assert asker.answer(asker.ask('Who?', 's2', session_id='s')).success
    asker.process.reset_session()
    assert asker.answer(asker.ask('Who?', 't2', session_id='t')).success


LOSES_ITS_THREAD = """
from edge_vlm_ros.serving import worker

deliver = worker.ChipWorker._deliver

def broken(self, finals):
    finals = list(finals)
    if any('Lose' in final.running.question.text for final in finals):
        raise RuntimeError('a bug of ours')
    deliver(self, finals)

worker.ChipWorker._deliver = broken
main(int"""


def test_a_thread_that_is_lost_takes_its_process_with_it(ask_process, monkeypatch):
    """A fault of our own between two work items, too, ends in a restart and not in a silence."""
    boot = launcher._BOOT.replace('main(int', LOSES_ITS_THREAD, 1)
    monkeypatch.setattr(launcher, '_BOOT', boot)
    asker = ask_process(answers=[HERE]).ready()
    answer = asker.answer(asker.ask('Lose it', 'a'))
    assert answer.error_code is ErrorCode.ENGINE_DIED
    assert 'status 4' in answer.message
    assert asker.answer(asker.ask('Well?', 'b')).text == 'Here: Well?'
    assert any('a bug of ours' in line.text for line in asker.lines)


def test_no_process_is_left_after_many_deaths(ask_process):
    asker = ask_process(QUICK, answers=[HERE]).ready()
    before = descriptors()
    for turn in range(5):
        kill()
        asker.wait_for(lambda turn=turn: asker.process.state.restarts == turn + 1)
        asker.ready()
    assert asker.answer(asker.ask('Well?', 'a')).success
    assert children() == 1
    assert descriptors() == before


@pytest.mark.parametrize('stage', ['prefill', 'next_token'])
def test_an_accident_in_any_stage_before_the_first_word_costs_nothing(ask_process, stage):
    """A single accident: the next process has another script, so to say, without the fault."""
    faults = [{'at': stage, 'question': 'slow', 'kind': 'hang', 'seconds': 2.0, 'times': 1}]
    asker = ask_process(answers=[HERE], faults=faults).ready()
    asker.ask('slow', 'a')
    asker.wait_for(lambda: asker.process.state.phase is EnginePhase.STALLED)
    kill()
    answer = asker.answer('a')  # The hang of the second process ends, as an error of its own.
    assert answer.error_code is ErrorCode.DEVICE
    assert 'scripted hang' in answer.message
    assert asker.answer(asker.ask('slow', 'b')).text == 'Here: slow'


@pytest.mark.parametrize('ended_by', ['cancel', 'deadline'])
def test_a_chip_that_does_not_let_an_ended_question_go_is_not_waited_for_as_long(
    ask_process, ended_by
):
    bounds = ProcessSettings(stall_s=3600.0, first_backoff_s=0.05)
    faults = [{'at': 'next_token', 'question': 'hang', 'kind': 'hang'}]
    asker = ask_process(bounds, answers=[HERE], faults=faults).ready()
    deadline_ns = time.monotonic_ns() + 1_000_000_000 if ended_by == 'deadline' else 0
    asker.ask('hang', 'a', deadline_ns=deadline_ns)
    asker.wait_for(lambda: asker.process.state.phase is EnginePhase.STALLED)
    asker.process.cancel('a') if ended_by == 'cancel' else None
    expected = ErrorCode.CANCELLED if ended_by == 'cancel' else ErrorCode.DEADLINE
    assert asker.answer('a').error_code is expected
    assert asker.answer(asker.ask('Well?', 'b')).text == 'Here: Well?'
    assert asker.process.state.restarts == 1
    (again,) = [state for state in asker.states if 'starting again' in state.message]
    assert 'did not let an ended question go' in again.message
    assert finals(asker) == Counter('ab')


def test_a_chip_that_hangs_with_nobody_waiting_is_started_anew_too(ask_process):
    faults = [{'at': 'next_token', 'question': 'hang', 'kind': 'hang'}]
    asker = ask_process(answers=[HERE], faults=faults).ready()
    asker.ask('hang', 'a')
    asker.wait_for(lambda: asker.process.state.phase is EnginePhase.STALLED)
    asker.process.cancel('a')
    asker.wait_for(lambda: asker.process.state.restarts == 1)
    asker.wait_for(lambda: asker.process.state.is_ready)


def test_silence_is_told_and_so_is_its_end(ask_process):
    asker = ask_process(answers=[TALK], latency=SLOWLY).ready()
    asker.ask('Talk', 'a')
    asker.wait_for(lambda: asker.chunks)
    kill(signal.SIGSTOP)
    asker.wait_for(lambda: asker.process.state.phase is EnginePhase.STALLED)
    assert 'no sign of life for ' in asker.process.state.message
    assert asker.process.state.message.endswith(' s in decode of request a')
    assert asker.process.state.info is not None
    asker.ask('Talk', 'b')
    assert 'b' not in asker.finals(), 'questions are taken: the silence may end'
    kill(signal.SIGCONT)
    asker.wait_for(lambda: asker.process.state.is_ready)
    assert asker.process.state.restarts == 0
    asker.process.cancel()
    assert asker.answer('a').error_code is ErrorCode.CANCELLED


def test_descriptors_above_1023_work(ask_process):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard not in {-1, resource.RLIM_INFINITY} and hard < 2048:
        pytest.skip(f'no more than {hard} descriptors are allowed here')
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
    taken = []
    try:
        while not taken or taken[-1] < 1200:
            taken.append(os.open(os.devnull, os.O_RDONLY))
        asker = ask_process(answers=[HERE]).ready()
        assert asker.answer(asker.ask('Well?', 'a')).text == 'Here: Well?'
        kill()
        assert asker.answer(asker.ask('Well?', 'b')).text == 'Here: Well?'
        asker.process.close()
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
