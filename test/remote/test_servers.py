"""Which server is next: order, health, back-off. No socket, and the clock stands still."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vlm_ros.core import NS_PER_S
from edge_vlm_ros.remote.addresses import read_servers
from edge_vlm_ros.remote.errors import fault_of, unreachable
from edge_vlm_ros.remote.servers import CHANCE, LONGEST_PAUSE_S, ServerFacts, Servers

A, B, C = read_servers('http://a:1/v1, http://b:1/v1, http://c:1/v1')
GONE = unreachable('gone')
FACTS = ServerFacts(('m',))


@pytest.fixture
def servers():
    return Servers((A, B, C), random.Random(1))


def test_the_order_is_that_of_the_list_but_a_conversation_s_own_is_first(servers):
    assert servers.order() == (A, B, C)
    assert servers.order(C) == (C, A, B)


def test_one_that_is_down_is_tried_only_when_all_are(servers):
    servers.failed(A, GONE, 0)
    assert servers.order() == (B, C)
    assert servers.order(A) == (B, C)
    servers.failed(C, GONE, 1)
    servers.failed(B, GONE, 2)
    assert set(servers.order()) == {A, B, C}
    assert servers.order()[0] == A, 'the one that is due first'
    assert not servers.is_any_up
    assert servers.down_since_ns == 2


def test_pauses_double_up_to_their_longest_and_only_an_answer_makes_them_short_again(servers):
    pauses = []
    now = 0
    for _ in range(8):
        servers.failed(A, GONE, now)
        start = now
        while not servers.due(now):
            now += NS_PER_S // 100
        pauses.append((now - start) / NS_PER_S)
        servers.found(A, FACTS, now)  # It lives, but has not answered.
    expected = [1, 2, 4, 8, 16, 30, 30, 30]
    for pause, least in zip(pauses, expected, strict=True):
        assert least <= pause <= least * (1 + CHANCE) + 0.01
    servers.answered(A, now)
    servers.failed(A, GONE, now)
    assert not servers.due(now + NS_PER_S - 1)
    assert servers.due(now + 2 * NS_PER_S) == (A,)


def test_a_server_that_asks_to_be_left_alone_is(servers):
    servers.failed(A, fault_of(429, b'', '20'), 0)
    assert not servers.due(19 * NS_PER_S)
    assert servers.due(20 * NS_PER_S + 1) == (A,)


def test_one_that_refuses_is_not_asked_every_second(servers):
    servers.failed(A, fault_of(401, b''), 0)
    assert not servers.due(round((LONGEST_PAUSE_S - 1) * NS_PER_S))


def test_one_is_asked_once_at_a_time(servers):
    servers.failed(A, GONE, 0)
    later = 5 * NS_PER_S
    assert servers.due(later) == (A,)
    assert servers.due(later) == ()
    servers.failed(A, GONE, later)
    assert servers.due(later + 5 * NS_PER_S) == (A,)
    assert servers.found(A, FACTS, later)
    assert servers.order() == (A, B, C)
    assert servers.facts_of(A) == FACTS


EVENTS = st.lists(
    st.tuples(st.sampled_from(['failed', 'answered', 'found', 'due']), st.sampled_from([A, B, C]))
)


@given(EVENTS)
def test_there_is_always_a_server_to_try_and_none_twice(events):
    servers = Servers((A, B, C), random.Random(0))
    for number, (what, address) in enumerate(events):
        now = number * NS_PER_S
        if what == 'failed':
            servers.failed(address, GONE, now)
        elif what == 'answered':
            servers.answered(address, now)
        elif what == 'found':
            servers.found(address, FACTS, now)
        else:
            servers.due(now)
        order = servers.order(B)
        assert order
        assert len(set(order)) == len(order)
        up = {state.address for state in servers.states if state.is_up}
        assert set(order) == (up or {A, B, C})
        assert (servers.down_since_ns > 0) <= (not up)
        assert all((state.fault is None) == state.is_up for state in servers.states)
