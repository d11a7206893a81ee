"""The pipeline in a process of its own: it dies, hangs, comes back; every question ends once."""

from __future__ import annotations

import array
import os
import signal
import sys
import textwrap
import time
from collections import Counter

import numpy as np
import pytest
from support.asker import children, is_alive, model_processes_of, wait_until_gone
from support.long_answer import long_words

from edge_vlm_ros.core import (
    Answer,
    BadRequestError,
    CancelledError,
    CompressedImage,
    ErrorCode,
    FinishReason,
    FrameSource,
    Question,
    RawImage,
    StoredFrame,
)
from edge_vlm_ros.serving import EnginePhase, ModelSpec, ServingSettings
from edge_vlm_ros.serving.process import ProcessSettings

LONG = {'answers': [{'answer': long_words(400)}], 'latency': {'decode_s': 0.01}}


def test_a_question_is_answered_as_the_pipeline_would(ask_process, frame):
    asker = ask_process(answers=[{'answer': 'A door 门. {means}'}]).ready()
    shown = (frame(10, stamp_ns=5), frame(200, stamp_ns=6))
    answer = asker.answer(asker.ask('What?', 'a', frames=shown, session_id='s'))
    assert answer.text.startswith('A door 门. ')
    assert [(ref.stamp_ns, ref.width) for ref in answer.frames] == [(5, 8), (6, 8)]
    assert answer.timings.encode_s > 0
    deltas = [chunk.delta for chunk in asker.chunks]
    assert ''.join(deltas) == answer.text
    assert [chunk.sequence for chunk in asker.chunks] == list(range(len(deltas)))
    asker.process.reset_session('s')
    follow_up = asker.answer(asker.ask('And now?', 'b', session_id='s'))
    assert follow_up.frames == ()


def test_pixels_cross_whatever_holds_them(ask_process):
    asker = ask_process(answers=[{'answer': '{means}'}]).ready()
    pixels = bytes(range(192))
    holders = {
        'bytes': pixels,
        'bytearray': bytearray(pixels),
        'memoryview': memoryview(pixels),
        'every second': memoryview(bytes(n for n in range(192) for _ in 'ab'))[::2],
        'array': array.array('B', pixels),
        'numpy': np.frombuffer(pixels, np.uint8),
        'list': list(pixels),
    }
    texts = set()
    for name, held in holders.items():
        stored = StoredFrame(FrameSource('front'), 1, RawImage('rgb8', 8, 8, 24, held))
        texts.add(asker.answer(asker.ask('How bright?', name, frames=(stored,))).text)
    assert len(texts) == 1
    assert texts != {''}


def test_a_cancel_reaches_the_process(ask_process):
    asker = ask_process(**LONG).ready()
    asker.ask('Talk', 'a')
    asker.wait_for(lambda: len(asker.chunks) > 3)
    assert asker.process.cancel('a') == 1
    assert asker.answer('a').finish_reason is FinishReason.CANCELLED
    assert asker.process.cancel('a') == 0


def test_a_process_that_ends_itself_costs_one_answer_and_comes_back(ask_process):
    asker = ask_process(
        answers=[{'answer': 'abcdef'}],
        latency={'decode_s': 0.01},
        faults=[{'at': 'decode', 'question': 'crash', 'token': 3, 'kind': 'exit'}],
    ).ready()
    names = [asker.ask('crash now', 'a'), asker.ask('Hello', 'b'), asker.ask('Hello', 'c')]
    died, *others = [asker.answer(name) for name in names]
    assert died.text == 'abcd', 'what was said so far'
    assert [answer.text for answer in others] == ['abcdef', 'abcdef'], 'they only waited'
    check_death_and_return(asker, died, 'status 42')
    assert asker.answer(asker.ask('Hello', 'd')).text == 'abcdef'
    assert Counter(chunk.request_id for chunk in asker.chunks if chunk.done) == Counter('abcd')


@pytest.mark.parametrize('number', [signal.SIGSEGV, signal.SIGKILL])
def test_a_process_that_is_killed_costs_one_answer_and_comes_back(ask_process, number):
    asker = ask_process(
        answers=[{'question': 'Talk', 'answer': long_words(400)}, {'answer': 'Here.'}],
        latency=LONG['latency'],
    ).ready()
    asker.ask('Talk', 'a')
    names = [asker.ask('Hello', name) for name in 'bc']
    asker.wait_for(lambda: len(asker.chunks) > 3)
    (pid,) = model_processes_of(os.getpid())
    os.kill(pid, number)
    assert [asker.answer(name).text for name in names] == ['Here.', 'Here.']
    died = asker.answer('a')
    assert died.text.startswith('w00')
    check_death_and_return(asker, died, number.name)


def check_death_and_return(asker, answer, sign):
    """Check what is said of a death, and that the process is there again."""
    assert answer.error_code is ErrorCode.ENGINE_DIED
    assert answer.finish_reason is FinishReason.ERROR
    assert sign in answer.message
    asker.wait_for(lambda: asker.process.state.is_ready)
    assert asker.process.state.restarts == 1
    again = next(state for state in asker.states if state.restarts)
    assert (again.phase, again.error_code) == (EnginePhase.STARTING, ErrorCode.ENGINE_DIED)
    assert sign in again.message


def test_questions_that_come_while_it_loads_wait_for_it_in_order(ask_process):
    asker = ask_process(answers=[{'answer': '{question}'}], latency={'load_s': 0.5})
    for name in 'abc':
        asker.ask(f'This is {name}', name)
    assert asker.process.held == 3
    assert asker.finals() == {}
    assert [asker.answer(name).text for name in 'abc'] == [f'This is {name}' for name in 'abc']
    assert [chunk.request_id for chunk in asker.chunks if chunk.done] == list('abc')
    assert asker.process.held == 0
    assert not any(state.is_ready for state in asker.states[:-1])


def test_a_question_that_waits_is_cancelled_at_once_and_never_asked(ask_process):
    asker = ask_process(latency={'load_s': 30})
    stream = asker.process.ask(Question('Hello', 'a'))
    asker.ask('Hello', 'b')
    assert stream.cancel()
    assert stream.answer(0).error_code is ErrorCode.CANCELLED
    assert (stream.answer(0).model, stream.answer(0).chip) == ('', ''), 'none is loaded yet'
    assert asker.process.held == 1
    assert asker.process.cancel() == 1
    assert asker.finals()['b'].error_code is ErrorCode.CANCELLED
    assert asker.process.held == 0
    again = asker.process.ask(Question('Hello', 'a'))
    asker.process.close()
    assert again.answer(0).error_code is ErrorCode.CANCELLED


def test_a_question_that_waits_ends_when_its_time_is_over(ask_process):
    asker = ask_process(latency={'load_s': 30})
    asker.ask('Hello', 'a', deadline_ns=time.monotonic_ns() + 200_000_000)
    assert asker.answer('a').error_code is ErrorCode.DEADLINE
    assert asker.process.state.phase is EnginePhase.STARTING


def test_a_question_that_waits_ends_when_its_time_is_over_between_two_starts(ask_process):
    bounds = ProcessSettings(first_backoff_s=30.0)
    asker = ask_process(bounds, faults=[{'at': 'load', 'kind': 'exit'}])
    asker.wait_for(lambda: 'starting again' in asker.process.state.message)
    asker.ask('Hello', 'a', deadline_ns=time.monotonic_ns() + 200_000_000)
    asker.ask('Hello', 'b')
    assert asker.answer('a').error_code is ErrorCode.DEADLINE
    asker.process.close()
    assert asker.finals()['b'].error_code is ErrorCode.CANCELLED


def test_more_questions_than_the_queue_holds_are_refused_while_it_loads(ask_process):
    asker = ask_process(settings=ServingSettings(max_waiting=1), latency={'load_s': 30})
    for name in 'abc':
        asker.ask('Hello', name)
    assert list(asker.finals()) == ['c']
    assert asker.finals()['c'].error_code is ErrorCode.BUSY
    assert 'the queue holds 2' in asker.finals()['c'].message
    asker.process.cancel('a')
    asker.ask('Hello', 'c')
    assert asker.process.held == 2


def test_questions_that_came_between_two_lives_are_answered_by_the_second(ask_process):
    bounds = ProcessSettings(first_backoff_s=0.5)
    asker = ask_process(bounds, **LONG).ready()
    asker.ask('Talk', 'a')
    asker.wait_for(lambda: len(asker.chunks) > 3)
    (pid,) = model_processes_of(os.getpid())
    os.kill(pid, signal.SIGKILL)
    assert asker.answer('a').error_code is ErrorCode.ENGINE_DIED
    asker.ask('Talk', 'b')
    assert asker.process.held == 1
    asker.wait_for(lambda: any(chunk.request_id == 'b' for chunk in asker.chunks))
    assert asker.process.cancel('b') == 1
    assert asker.answer('b').error_code is ErrorCode.CANCELLED
    assert Counter(chunk.request_id for chunk in asker.chunks if chunk.done) == Counter('ab')


def test_questions_that_wait_end_with_the_reason_when_there_will_be_no_model(
    ask_process, tmp_path
):
    path = tmp_path / 'broken.yaml'
    path.write_text('answers: [: broken')
    asker = ask_process(spec=ModelSpec('scripted', str(path)))
    asker.ask('Hello', 'a')
    answer = asker.answer('a')
    assert answer.error_code is ErrorCode.MODEL_FILE
    assert 'broken.yaml' in answer.message


def test_the_loaded_models_name_stands_in_every_answer(ask_process):
    asker = ask_process(
        answers=[{'answer': 'abcdef'}],
        latency={'decode_s': 0.01},
        faults=[{'at': 'decode', 'question': 'crash', 'token': 3, 'kind': 'exit'}],
    ).ready()
    named = (asker.process.info.model, 'scripted')
    good = asker.answer(asker.ask('Hello', 'good'))
    died = asker.answer(asker.ask('crash', 'died'))
    held = asker.process.ask(Question('Hello', 'held'))
    held.cancel()
    assert died.error_code is ErrorCode.ENGINE_DIED
    for answer in (good, died, held.answer(30)):
        assert (answer.model, answer.chip) == named
    assert named[0].endswith('.yaml')


def test_a_stream_of_the_process_can_be_read_and_ended_like_the_pipelines(ask_process):
    asker = ask_process(**LONG)
    stream = asker.process.ask(Question('Talk'))
    first = next(iter(stream))
    assert (first.sequence, first.request_id) == (0, stream.request_id)
    assert stream.cancel()
    answer = stream.answer(30)
    assert answer.finish_reason is FinishReason.CANCELLED
    assert answer.text == ''.join(chunk.delta for chunk in stream)
    assert not stream.cancel()


def test_an_answer_ended_from_outside_frees_the_chip_with_a_cancel(ask_process):
    asker = ask_process(answers=LONG['answers'], latency={'decode_s': 0.1}).ready()
    stream = asker.process.ask(Question('Talk', 'a'), lambda c: asker._note(asker.chunks, c))
    next(iter(stream))
    error = CancelledError('the node was deactivated')
    assert stream.finish(lambda text: Answer.failed('a', error, text=text))
    assert asker.process.cancel('a') == 0, 'its final chunk is out already'
    asker.ask('Talk', 'b')  # The first answer would take minutes more.
    asker.wait_for(lambda: any(chunk.request_id == 'b' for chunk in asker.chunks))
    assert [chunk.done for chunk in asker.chunks if chunk.request_id == 'a'].count(True) == 1
    assert stream.answer(0).message == 'the node was deactivated'
    assert stream.answer(0).text.startswith('w')


def test_a_hanging_chip_is_noticed_and_the_process_started_anew(ask_process):
    bounds = ProcessSettings(stall_s=0.5, first_backoff_s=0.05)
    asker = ask_process(
        bounds,
        answers=[{'answer': 'abc'}],
        faults=[{'at': 'decode', 'question': 'hang', 'kind': 'hang'}],
    ).ready()
    answer = asker.answer(asker.ask('hang', 'a'))
    assert answer.error_code is ErrorCode.DEVICE
    assert '0.5 s' in answer.message
    asker.wait_for(lambda: asker.process.state.is_ready)
    assert asker.answer(asker.ask('Hello', 'b')).text == 'abc'


def test_a_long_rest_is_no_stall(ask_process):
    asker = ask_process(ProcessSettings(stall_s=0.4), answers=[{'answer': 'abc'}]).ready()
    time.sleep(0.8)
    assert asker.answer(asker.ask('Hello', 'a')).text == 'abc'
    assert asker.process.state.restarts == 0


def test_cancel_and_deadline_are_kept_while_the_chip_hangs(ask_process):
    faults = [{'at': 'decode', 'question': 'Hello', 'kind': 'hang'}]
    asker = ask_process(answers=[{'answer': 'abc'}], faults=faults).ready()
    deadline_ns = time.monotonic_ns() + 300_000_000
    asker.ask('Hello', 'a')
    asker.ask('Hello', 'b', deadline_ns=deadline_ns)
    assert asker.answer('b', 60).error_code is ErrorCode.DEADLINE
    asker.process.cancel('a')
    assert asker.answer('a', 60).error_code is ErrorCode.CANCELLED


def test_a_bad_model_file_is_told_and_not_tried_again(ask_process, tmp_path):
    path = tmp_path / 'broken.yaml'
    path.write_text('answers: [: broken')
    asker = ask_process(spec=ModelSpec('scripted', str(path)))
    state = asker.settled()
    assert (state.phase, state.error_code) == (EnginePhase.FAILED, ErrorCode.MODEL_FILE)
    assert 'broken.yaml' in state.message
    time.sleep(0.3)
    assert [s.phase for s in asker.states].count(EnginePhase.FAILED) == 1
    asker.ask('Hello', 'a')
    assert asker.finals()['a'].error_code is ErrorCode.NOT_READY
    assert 'broken.yaml' in asker.finals()['a'].message
    assert children() == 0
    path.write_text('answers: [{answer: Fine.}]')
    asker.process.start()
    asker.ready()
    assert asker.answer(asker.ask('Hello', 'b')).text == 'Fine.'


def test_a_process_that_never_gets_ready_is_given_up(ask_process):
    bounds = ProcessSettings(first_backoff_s=0.01, max_failed_starts=2)
    asker = ask_process(bounds, faults=[{'at': 'load', 'kind': 'exit'}])
    state = asker.settled()
    assert (state.phase, state.error_code) == (EnginePhase.FAILED, ErrorCode.ENGINE_DIED)
    assert '2 starts failed' in state.message


def silenced(ask_process, **script):
    """Start a process that says nothing more at some place while it loads; return how it ends.

    On a busy machine even its start takes longer than the shortest bound.
    """
    for silence_s in (2.0, 10.0, 50.0):
        bounds = ProcessSettings(silence_s=silence_s, first_backoff_s=0.01, max_failed_starts=1)
        state = ask_process(bounds, faults=[{'at': 'load', 'kind': 'hang'}], **script).settled()
        assert (state.phase, state.error_code) == (EnginePhase.FAILED, ErrorCode.DEVICE)
        assert f'nothing was heard of the model for {silence_s:g} s' in state.message
        if 'the last was: starting' not in state.message:
            break
    return state


def test_a_start_of_which_nothing_is_heard_is_ended(ask_process):
    assert 'the last was: loading' in silenced(ask_process).message


def test_a_slow_load_that_tells_how_far_it_is_is_waited_for(ask_process):
    bounds = ProcessSettings(silence_s=8.0, max_failed_starts=1)
    asker = ask_process(bounds, latency={'load_s': 10, 'load_parts': 10})
    asker.ready()
    told = [(str(state.loading), state.message) for state in asker.states if state.loading]
    assert told == [(f'{n} of 10 parts', f'loading: {n} of 10 parts') for n in range(1, 11)]
    assert asker.states[-1].loading is None
    assert asker.answer(asker.ask('Hello', 'a')).text == 'Hello'


def test_a_load_that_halts_half_way_is_given_up_and_says_where(ask_process):
    state = silenced(ask_process, latency={'load_parts': 3})
    assert 'the last was: loading: 3 of 3 parts' in state.message


def test_the_same_request_id_is_refused_while_it_runs(ask_process):
    asker = ask_process(**LONG).ready()
    asker.ask('Talk', 'a')
    with pytest.raises(BadRequestError) as raised:
        asker.ask('Talk', 'a')
    assert raised.value.code is ErrorCode.DUPLICATE_REQUEST
    asker.process.cancel()
    asker.answer('a')
    assert sum(chunk.done for chunk in asker.chunks) == 1


def test_closing_ends_questions_and_process_in_bounded_time(ask_process):
    asker = ask_process(**LONG).ready()
    names = [asker.ask('Talk', name) for name in 'abc']
    asker.process.close()
    asker.process.close()
    assert {asker.finals()[name].error_code for name in names} == {ErrorCode.CANCELLED}
    assert asker.process.state.phase is EnginePhase.CLOSED
    assert children() == 0


def test_closing_a_hanging_process_is_bounded_too(ask_process):
    bounds = ProcessSettings(close_s=0.5)
    asker = ask_process(bounds, faults=[{'at': 'next_token', 'question': 'hang', 'kind': 'hang'}])
    asker.ready()
    asker.ask('hang', 'a')
    time.sleep(0.2)
    asker.process.close()  # returns at all, though the chip hangs
    assert asker.finals()['a'].error_code is ErrorCode.CANCELLED
    assert children() == 0


def test_closing_while_it_loads_does_not_wait_for_it(ask_process):
    load_s = 200.0
    asker = ask_process(latency={'load_s': load_s})
    time.sleep(0.2)
    started = time.monotonic()
    asker.process.close()
    assert time.monotonic() - started < load_s / 2
    assert children() == 0


def test_random_faults_and_cancels_end_every_question_exactly_once(ask_process):
    rng = np.random.default_rng(5)
    asker = ask_process(
        settings=ServingSettings(max_waiting=4),
        answers=[{'answer': 'abcdefgh'}],
        latency={'decode_s': 0.002},
        faults=[
            {'at': 'prefill', 'question': 'prefill'},
            {'at': 'decode', 'question': 'decode', 'token': 2},
            {'at': 'decode', 'question': 'crash', 'kind': 'exit'},
            {'at': 'next_token', 'question': 'leave', 'kind': 'exit'},
        ],
    ).ready()
    sure = {60: 'crash', 140: 'leave'}
    bad = StoredFrame(FrameSource('front'), 1, CompressedImage('jpeg', b'no picture'))
    names = []
    for number in range(200):
        frames = (bad,) if rng.random() < 0.1 else ()
        text = str(rng.choice(['Hello', 'Hello', 'prefill', 'decode']))
        if number in sure:
            # With nobody before it, so that it is surely begun.
            asker.wait_for(lambda: len(asker.finals()) == len(names))
            asker.wait_for(lambda: asker.process.state.is_ready)
            text, frames = sure[number], ()
        names.append(asker.ask(text, f'{number}', frames=frames))
        if number in sure:
            asker.answer(names[-1])
        if rng.random() < 0.3 and number not in sure:
            asker.process.cancel(names[int(rng.integers(len(names)))])
        time.sleep(float(rng.random()) * 0.03)
        if number % 20 == 0:
            asker.wait_for(lambda: asker.process.state.is_ready)
    asker.wait_for(lambda: len(asker.finals()) == len(names))
    time.sleep(0.2)
    ends = Counter(chunk.request_id for chunk in asker.chunks if chunk.done)
    assert ends == Counter(names)
    last = {}
    for chunk in asker.chunks:
        assert not last.get(chunk.request_id, False), 'nothing follows the final chunk'
        last[chunk.request_id] = chunk.done
    codes = {answer.error_code for answer in asker.finals().values()}
    assert {ErrorCode.NONE, ErrorCode.DEVICE, ErrorCode.BAD_IMAGE} <= codes
    assert ErrorCode.ENGINE_DIED in codes
    asker.wait_for(lambda: asker.process.state.is_ready)
    assert asker.process.state.restarts == 1 + 2, 'what had no chunk yet was asked twice'
    assert asker.answer(asker.ask('Hello', 'last')).text == 'abcdefgh'


PARENT = """
    import sys, threading
    from edge_vlm_ros.core import Question
    from edge_vlm_ros.serving import ModelProcess, ModelSpec

    print('the main module runs', flush=True)
    done = threading.Event()

    def on_chunk(chunk):
        if chunk.done:
            print('answer:', chunk.answer.text, flush=True)
            done.set()

    process = ModelProcess(ModelSpec('scripted'))
    process.start()
    process.ask(Question('Hello', 'a'), on_chunk)
    done.wait(30)
    {end}
"""


@pytest.fixture
def parent(tmp_path, spawn):
    """Start a program without a `__main__` guard that has a model process."""

    def start(end):
        path = tmp_path / 'parent_program'
        path.write_text(textwrap.dedent(PARENT).replace('{end}', end))
        here = {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
        return spawn([sys.executable, path], env=here)

    return start


def test_the_parents_main_module_is_not_run_again(parent):
    program = parent('process.close()')
    assert program.wait() == 0
    assert program.output().count('the main module runs') == 1
    assert 'answer: You asked: Hello' in program.output()


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_the_process_ends_with_its_parent(parent, number):
    program = parent('threading.Event().wait()')
    program.wait_for_output('answer:')
    (child,) = model_processes_of(program.pid)
    os.kill(program.pid, number)
    program.wait()
    wait_until_gone(child)


def test_ctrl_c_is_the_parents_to_act_on(parent):
    program = parent(
        'try: threading.Event().wait()\n'
        'except KeyboardInterrupt: print("state:", process.state.phase.value, flush=True)\n'
        'process.close()'
    )
    program.wait_for_output('answer:')
    (child,) = model_processes_of(program.pid)
    os.kill(child, signal.SIGINT)
    program.signal(signal.SIGINT)
    assert program.wait() == 0
    assert 'state: ready' in program.output()
    assert not is_alive(child)
