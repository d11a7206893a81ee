"""Answers that are made outside the model process: they say as much as is known there."""

from __future__ import annotations

import os
import signal

import pytest
from support.asker import HANG_S, QUICK, model_processes_of
from support.long_answer import long_words

from edge_vlm_ros.core import (
    NS_PER_S,
    BadRequestError,
    ErrorCode,
    FinishReason,
    Priority,
    SteadyClock,
)
from edge_vlm_ros.scheduling import QueuePolicy
from edge_vlm_ros.serving import ServingSettings

LOADS_LONG = {'latency': {'load_s': HANG_S}}


def check(answer, code, frame):
    assert answer.error_code is code, answer.message
    (ref,) = answer.frames
    assert (ref.source, ref.stamp_ns) == (frame.source, frame.stamp_ns)
    assert (ref.width, ref.height) == (8, 8)
    assert ref.age_s >= 1
    timings = answer.timings
    assert timings.total_s > 0
    assert timings.queue_s + timings.run_s == pytest.approx(timings.total_s)
    return timings


def shown(frame):
    return frame(received_ns=SteadyClock().now_ns() - NS_PER_S)


@pytest.mark.parametrize('by', ['cancel', 'deadline'])
def test_what_waits_for_the_model_ends_at_once_and_all_its_time_was_waiting(
    ask_process, frame, by
):
    asker = ask_process(**LOADS_LONG)
    seen = shown(frame)
    due_ns = SteadyClock().now_ns() + NS_PER_S // 5 if by == 'deadline' else 0
    asker.ask('What?', 'r', frames=(seen,), asked_ns=SteadyClock().now_ns(), deadline_ns=due_ns)
    if by == 'cancel':
        assert asker.process.cancel('r') == 1
        assert asker.finals(), 'before it returns'
    timings = check(
        asker.answer('r'),
        ErrorCode.CANCELLED if by == 'cancel' else ErrorCode.DEADLINE,
        seen,
    )
    assert timings.run_s == 0
    assert not asker.process.state.is_ready
    assert len(asker.chunks) == 1


@pytest.mark.parametrize('by', ['cancel', 'deadline', 'death'])
def test_an_answer_ended_for_a_process_that_stands_says_how_long_it_waited_and_ran(
    ask_process, frame, by
):
    """The whole process is stopped, so not even the thread that cancels questions runs there."""
    asker = ask_process(
        QUICK, answers=[{'answer': long_words(1000)}], latency={'decode_s': 0.01}
    ).ready()
    (pid,) = model_processes_of(os.getpid())
    seen = shown(frame)
    asked_ns = SteadyClock().now_ns()
    due_ns = asked_ns + 5 * NS_PER_S if by == 'deadline' else 0
    asker.ask('What?', 'r', frames=(seen,), asked_ns=asked_ns, deadline_ns=due_ns)
    asker.ask('And?', 'waits', frames=(seen,), asked_ns=asked_ns, deadline_ns=due_ns)
    asker.wait_for(lambda: any(chunk.delta for chunk in asker.chunks))
    os.kill(pid, signal.SIGKILL if by == 'death' else signal.SIGSTOP)
    try:
        if by == 'cancel':
            asker.process.cancel()
        codes = {
            'cancel': ErrorCode.CANCELLED,
            'deadline': ErrorCode.DEADLINE,
            'death': ErrorCode.ENGINE_DIED,
        }
        answer = asker.answer('r')
        timings = check(answer, codes[by], seen)
        assert answer.finish_reason is FinishReason.of_error(codes[by])
        assert answer.text
        assert long_words(1000).startswith(answer.text)
        assert (answer.chip, bool(answer.model)) == ('scripted', True)
        assert timings.run_s > 0
        assert timings.queue_s < timings.time_to_first_token_s < timings.total_s
        if by != 'death':  # It is asked again then.
            assert check(asker.answer('waits'), codes[by], seen).run_s == 0
    finally:
        if by != 'death':
            os.kill(pid, signal.SIGCONT)


def test_while_the_model_loads_a_newer_question_takes_the_place_of_the_oldest_of_the_lowest(
    ask_process, frame
):
    settings = ServingSettings(max_waiting=1, queue_policy=QueuePolicy.REPLACE_OLDEST)
    asker = ask_process(settings=settings, **LOADS_LONG)
    seen = shown(frame)
    asker.ask('What?', 'a', frames=(seen,), priority=Priority.URGENT)
    asker.ask('What?', 'b', frames=(seen,))
    asker.ask('What?', 'c', frames=(seen,))
    assert list(asker.finals()) == ['b']
    answer = asker.answer('b')
    check(answer, ErrorCode.BUSY, seen)
    assert 'made room' in answer.message
    asker.ask('What?', 'low', frames=(seen,), priority=Priority.BACKGROUND)
    refused = asker.answer('low')
    assert refused.error_code is ErrorCode.BUSY
    assert [ref.stamp_ns for ref in refused.frames] == [seen.stamp_ns]


def test_while_the_model_loads_a_newer_question_preempts_the_one_whose_turn_is_next(
    ask_process, frame
):
    settings = ServingSettings(max_waiting=1, queue_policy=QueuePolicy.PREEMPT)
    asker = ask_process(settings=settings, **LOADS_LONG)
    seen = shown(frame)
    asker.ask('What?', 'a', frames=(seen,))
    asker.ask('What?', 'b', frames=(seen,))
    assert list(asker.finals()) == ['a']
    answer = asker.answer('a')
    check(answer, ErrorCode.PREEMPTED, seen)
    assert answer.finish_reason is FinishReason.PREEMPTED
    asker.ask('What?', 'low', frames=(seen,), priority=Priority.BACKGROUND)
    assert list(asker.finals()) == ['a'], 'it waits'
    asker.ask('What?', 'lower', frames=(seen,), priority=Priority.BACKGROUND)
    assert asker.answer('lower').error_code is ErrorCode.BUSY
    asker.ask('What?', 'urgent', frames=(seen,), priority=Priority.URGENT)
    check(asker.answer('b'), ErrorCode.PREEMPTED, seen)
    assert list(asker.finals()) == ['a', 'lower', 'b']
    with pytest.raises(BadRequestError) as refused:
        asker.ask('What?', 'urgent', frames=(seen,), priority=Priority.URGENT)
    assert refused.value.code is ErrorCode.DUPLICATE_REQUEST
    assert list(asker.finals()) == ['a', 'lower', 'b'], 'a refused question ends no other'


def test_what_waited_for_the_model_does_not_preempt_what_waited_before_it(ask_process):
    """All come to the loaded model in one burst; each is answered, the highest priority first."""
    settings = ServingSettings(queue_policy=QueuePolicy.PREEMPT)
    for load_s in (1.0, 5.0, 25.0):  # On a busy machine the model may be there before they are.
        latency = {'load_s': load_s}
        asker = ask_process(settings=settings, latency=latency, answers=[{'answer': 'yes'}])
        asker.ask('What?', 'first', priority=Priority.URGENT)
        asker.ask('What?', 'second')
        asker.ask('What?', 'third')
        if asker.process.held == 3:
            break
    for name in ('first', 'second', 'third'):
        assert asker.answer(name).success, asker.answer(name)
    assert list(asker.finals()) == ['first', 'second', 'third']


def test_with_reject_one_question_waits_for_the_model(ask_process):
    settings = ServingSettings(queue_policy=QueuePolicy.REJECT)
    asker = ask_process(settings=settings, **LOADS_LONG)
    asker.ask('What?', 'a')
    asker.ask('What?', 'b')
    assert asker.answer('b').error_code is ErrorCode.BUSY
    assert list(asker.finals()) == ['b']
