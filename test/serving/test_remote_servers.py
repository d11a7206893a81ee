"""Several servers: order, health, back-off, and another one before the first word only."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from support.patience import Patience
from support.remote import WAIT_S, remote, served
from support.scripted_server import (
    SILENCE_S,
    ScriptedServer,
    chunk,
    endless,
    lines,
    status,
    stream,
    words,
)

from edge_vlm_ros.core import ErrorCode, FinishReason, Priority, Question
from edge_vlm_ros.scheduling import QueuePolicy
from edge_vlm_ros.serving import ServingSettings

HERE, THERE = words('Here.'), words('There.')


def ask(vlm, text='Well?', **more):
    return vlm.ask(Question(text, **more)).answer(WAIT_S)


def until(is_so):
    patience = Patience(30)
    while not is_so():
        assert not patience.is_over()
        patience.look()


@pytest.fixture
def two():
    with ExitStack() as stack:
        yield [stack.enter_context(ScriptedServer([reply])) for reply in (HERE, THERE)]


def test_the_first_answers_and_when_it_goes_the_second(two):
    first, _ = two
    with remote(*two) as vlm:
        assert [ask(vlm).text for _ in range(3)] == ['Here.'] * 3
        first.stop()
        answer = ask(vlm)
        assert (answer.text, answer.error_code) == ('There.', ErrorCode.NONE)
        assert not vlm.health.is_down
        assert first.url in vlm.health.reason
        first.start()
        until(lambda: not vlm.health.reason)
        assert ask(vlm).text == 'Here.'


@pytest.mark.parametrize(
    'reply',
    [
        stream(SILENCE_S),
        stream(),
        status(500, 'x'),
        status(503, 'x'),
        status(429, 'x'),
        status(401, 'x'),
        status(404, 'x'),
        status(200, '<html></html>', kind='text/html'),
        stream(lines(chunk(''), done=False)),
        stream(lines(chunk(''), {'error': {'message': 'x'}})),
    ],
)
def test_before_the_first_word_another_is_asked(two, reply):
    first, _ = two
    first.then(reply)
    with remote(*two, first_token_s=2.0) as vlm:
        seen = []
        answer = vlm.ask(Question('Well?'), seen.append).answer(WAIT_S)
        assert answer.text == 'There.', answer.message
        assert len(first.asked) == 1
        assert ask(vlm).text == 'There.'
    assert len(first.asked) == 1, 'it is left alone now'
    assert ''.join(part.delta for part in seen) == 'There.'


@pytest.mark.parametrize('code', [400, 413, 422])
def test_what_the_caller_did_wrong_is_not_tried_elsewhere(two, code):
    first, second = two
    first.then(status(code, {'error': {'message': 'no'}}), HERE)
    with remote(*two) as vlm:
        assert ask(vlm).error_code is ErrorCode.BAD_REQUEST
        assert not second.asked
        assert ask(vlm).text == 'Here.', 'it is not down'


def test_when_all_are_gone_each_is_named_and_it_is_known_since_when(two):
    told = []
    with remote(*two, model='m') as vlm:
        vlm.listen_health(told.append)
        for server in two:
            server.stop()
        answer = ask(vlm)
        assert answer.error_code is ErrorCode.SERVER_UNREACHABLE
        assert all(server.url in answer.message for server in two)
        health = vlm.health
        assert health.is_down
        assert health.down_since_ns <= vlm._clock.now_ns()
        two[1].start()
        until(lambda: not vlm.health.is_down)
        until(lambda: len(told) == 2)
        assert ask(vlm).text == 'There.'
    assert [each.is_down for each in told] == [True, False]


def test_all_busy_is_busy_and_retry_after_is_kept(two):
    for server in two:
        server.then(status(429, 'x', headers={'Retry-After': '30'}))
    with remote(*two) as vlm:
        assert ask(vlm).error_code is ErrorCode.BUSY
        looks = [server.looks for server in two]
        until_ns = vlm._clock.now_ns() + 1_500_000_000
        until(lambda: vlm._clock.now_ns() > until_ns)
        assert [server.looks for server in two] == looks


def test_a_conversation_stays_with_its_server(two):
    first, second = two
    first.then(status(500, 'x'), HERE)
    with remote(*two) as vlm:
        assert ask(vlm, session_id='s').text == 'There.'
        until(lambda: not vlm.health.reason)
        assert ask(vlm, 'And?', session_id='s').text == 'There.'
        assert ask(vlm).text == 'Here.'
    assert second.asked[-1].texts == ['Well?', 'There.', 'And?']


def test_a_conversation_goes_over_whole_when_its_server_goes(two):
    first, second = two
    with remote(*two) as vlm:
        ask(vlm, session_id='s')
        first.stop()
        assert ask(vlm, 'And?', session_id='s').text == 'There.'
    assert second.asked[-1].texts == ['Well?', 'Here.', 'And?']


def test_a_server_that_comes_later_is_found(two):
    for server in two:
        server.stop()
    with remote(*two) as vlm:
        assert vlm.info.model == ''
        two[0].start()
        until(lambda: not vlm.health.is_down)
        assert ask(vlm).text == 'Here.'
        assert vlm.info.model


def test_a_model_that_no_server_lists_is_told(two, caplog):
    with remote(*two, model='moon'):
        pass
    assert caplog.text.count("lists no model 'moon': scripted-vlm") == 2


# --- the queue -----------------------------------------------------------------------------------


def queue(policy, **more):
    return ServingSettings(queue_policy=policy, **more)


def test_as_many_run_as_are_allowed_and_the_next_is_the_most_urgent():
    settings = queue(QueuePolicy.QUEUE)
    with served(endless(), settings=settings, parallel=1) as (vlm, server):
        begun = []
        streams = {
            name: vlm.ask(Question('Well?', name, priority=priority), None, begun.append)
            for name, priority in (
                ('a', Priority.NORMAL), ('b', Priority.BACKGROUND), ('c', Priority.URGENT),
            )
        }  # fmt: skip
        next(iter(streams['a']))
        assert len(begun) == 1
        vlm.cancel('a')
        next(iter(streams['c']))
        assert [asked.headers['X-Request-Id'] for asked in server.asked] == ['a', 'c']
        assert streams['b'].begun_ns == 0
        assert vlm.cancel() == 2
        assert streams['b'].answer(WAIT_S).error_code is ErrorCode.CANCELLED
    assert len(server.asked) == 2


def test_each_policy_says_who_has_to_go():
    with served(endless(), settings=queue(QueuePolicy.REJECT), parallel=1) as (vlm, _):
        vlm.ask(Question('Well?', 'a'))
        assert ask(vlm).error_code is ErrorCode.BUSY
    full = queue(QueuePolicy.REPLACE_OLDEST, max_waiting=1)
    with served(endless(), settings=full, parallel=1) as (vlm, _):
        vlm.ask(Question('Well?', 'a'))
        waits = vlm.ask(Question('Well?', 'b'))
        vlm.ask(Question('Well?', 'c'))
        assert waits.answer(WAIT_S).error_code is ErrorCode.BUSY
    with served(endless(), settings=queue(QueuePolicy.PREEMPT), parallel=1) as (vlm, server):
        runs = vlm.ask(Question('Well?', 'a'))
        next(iter(runs))
        newer = vlm.ask(Question('Well?', 'b'))
        assert runs.answer(WAIT_S).finish_reason is FinishReason.PREEMPTED
        next(iter(newer))
        server.until(lambda: server.asked[0].is_closed)


def test_one_that_waits_runs_out_of_time_there():
    with served(endless(), parallel=1) as (vlm, server):
        vlm.ask(Question('Well?', 'a'))
        answer = ask(vlm, deadline_ns=vlm._clock.now_ns() + 200_000_000)
        assert answer.error_code is ErrorCode.DEADLINE
        server.until(lambda: len(server.asked) == 1)
    assert len(server.asked) == 1
