"""What a watch can be told, and what it is told in plain types."""

from __future__ import annotations

import json
import re

import pytest

from edge_vlm_ros.core import BadRequestError
from edge_vlm_ros.watch import (
    MAX_WATCHES,
    Now,
    WatchBoard,
    WatchMode,
    WatchSpec,
    fields_of,
    spec_of,
)

FULL = WatchSpec(
    'gate', 'Is the gate open?', when=('no',), cameras=('front',), period_s=0.5, begin_looks=1,
    last_seconds=4.0, min_probability=0.7, mode=WatchMode.MUTED,
)  # fmt: skip


def test_fields_in_plain_types_and_back_are_the_same_watch():
    assert spec_of(json.loads(json.dumps(fields_of(FULL)))) == FULL


def test_what_is_left_open_has_its_default():
    assert spec_of({'name': 'a', 'question': 'Eh?', 'period_s': 0, 'choices': []}) == WatchSpec(
        'a', 'Eh?'
    )
    assert WatchSpec('a', 'Eh?').when == ('yes',)
    assert WatchSpec('a', 'Eh?', choices=('big', 'small')).when == ('big',)


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        ({'name': 'a b'}, 'name is a letter'),
        ({'name': 'a' * 65}, 'name is a letter'),
        ({'question': ' '}, 'the question is empty'),
        ({'choices': ['yes', 'Yes ']}, 'are the same'),
        ({'when': ['yes', 'no']}, 'for ever'),
        ({'period_s': float('nan')}, 'period_s is from 0.1 to 86400, not nan'),
        ({'period_s': 'often'}, 'period_s is of type float'),
        ({'begin_looks': 2.0}, 'begin_looks is of type int'),
        ({'every_look': 1}, 'every_look is of type bool'),
        ({'choices': 'yes'}, 'choices is a list of texts'),
        ({'mode': 'loud'}, 'mode is one of 0 (on)'),
        ({'colour': 'red'}, "no field 'colour'"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(fields, words):
    with pytest.raises(BadRequestError, match=re.escape(words)):
        spec_of({'name': 'a', 'question': 'Eh?', **fields})


def test_a_board_holds_so_many_watches_and_the_one_that_waits_longest_is_first():
    board, now = WatchBoard(), Now(0, 0)
    for number in range(MAX_WATCHES):
        board.put(WatchSpec(f'w{number}', 'Eh?'), now)
    with pytest.raises(BadRequestError, match='64 watches'):
        board.put(WatchSpec('more', 'Eh?'), now)
    board.put(WatchSpec('w0', 'Eh?'), Now(5, 5))
    assert [watch.spec.name for watch in board.due(Now(9, 9))][-1] == 'w0'
    assert board.remove('w3', now)[0] == 1
    assert board.remove('w3', now)[0] == 0
    assert board.remove('', now)[0] == MAX_WATCHES - 1
