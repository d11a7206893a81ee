"""Whatever servers, callers and the clock do, each question ends once and nothing is left."""

from __future__ import annotations

import asyncio
import random
from contextlib import ExitStack

import pytest
from support.patience import Patience
from support.remote import WAIT_S, remote, served
from support.scripted_server import (
    CUT,
    SILENCE_S,
    ScriptedServer,
    chunk,
    endless,
    lines,
    status,
    stream,
    words,
)

from edge_vlm_ros.core import ErrorCode, Priority, Question
from edge_vlm_ros.scheduling import QueuePolicy
from edge_vlm_ros.serving import ServingSettings

REPLIES = (
    words('A whole answer of some words.'),
    stream(SILENCE_S),
    stream(lines(chunk('Half '), done=False), CUT),
    stream(lines(chunk('Half '), done=False), SILENCE_S),
    status(429, 'busy'),
    status(500, 'broken'),
    status(400, {'error': {'message': 'no'}}),
    endless(),
)


def until(is_so):
    patience = Patience(60)
    while not is_so():
        assert not patience.is_over()
        patience.look()


async def connections(vlm):
    return len(vlm._client._session.connector._acquired)


def busy_connections(vlm):
    """Return how many connections are in use."""
    return asyncio.run_coroutine_threadsafe(connections(vlm), vlm._thread.loop).result(10)


@pytest.mark.parametrize('policy', list(QueuePolicy))
def test_each_question_ends_once_and_nothing_is_left(policy):
    dice = random.Random(policy.value)
    settings = ServingSettings(queue_policy=policy, max_waiting=3)
    options = {'first_token_s': 0.3, 'between_s': 0.3, 'parallel': 3, 'settings': settings}
    with ExitStack() as stack:
        servers = [
            stack.enter_context(ScriptedServer([dice.choice(REPLIES) for _ in range(40)]))
            for _ in range(3)
        ]
        vlm = stack.enter_context(remote(*servers, **options))
        asked = []
        for number in range(60):
            seen = []
            deadline_ns = vlm._clock.now_ns() + dice.choice([0, 10, 300, 1500]) * 1_000_000
            question = Question(
                'Well?',
                f'q{number}',
                session_id=dice.choice(['', 's', 't']),
                priority=dice.choice(list(Priority)),
                deadline_ns=deadline_ns,
            )
            asked.append((vlm.ask(question, seen.append), seen))
            if dice.random() < 0.3:
                vlm.cancel(dice.choice(['', f'q{dice.randrange(number + 1)}']))
            if dice.random() < 0.2:
                vlm.reset_session(dice.choice(['', 's']))
            if dice.random() < 0.5:
                asked[dice.randrange(len(asked))][0].answer(WAIT_S)
        for answered, seen in asked:
            answer = answered.answer(WAIT_S)
            assert [part.done for part in seen] == [False] * (len(seen) - 1) + [True]
            assert ''.join(part.delta for part in seen) == answer.text
            assert (answer.error_code is ErrorCode.NONE) == answer.success
        until(lambda: not vlm._tasks)
        assert not vlm._runs
        assert not vlm._desk.request_ids
        until(lambda: not busy_connections(vlm))


@pytest.mark.parametrize('parts', [(), (b': ping\n\n',), (lines(chunk('One '), done=False),)])
def test_a_cancel_closes_the_connection_whatever_has_come(parts):
    with served(stream(*parts, SILENCE_S)) as (vlm, server):
        asked = vlm.ask(Question('Well?'))
        server.until(lambda: len(server.asked) == 1)
        assert asked.cancel()
        assert asked.answer(WAIT_S).error_code is ErrorCode.CANCELLED
        server.until(lambda: server.asked[0].is_closed)
        until(lambda: not busy_connections(vlm))


def test_closing_closes_every_connection():
    with ScriptedServer([stream(SILENCE_S)]) as server:
        with remote(server) as vlm:
            asked = [vlm.ask(Question('Well?')) for _ in range(3)]
            server.until(lambda: len(server.asked) == 3)
        assert [each.answer(1).error_code for each in asked] == [ErrorCode.CANCELLED] * 3
        assert not vlm._thread.is_alive
        server.until(lambda: all(each.is_closed for each in server.asked))
