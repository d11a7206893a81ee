"""Loops are recognised; what repeats itself for good reasons is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vlm_ros.core import SamplingOptions
from edge_vlm_ros.text.repetition import (
    FEWEST_REPEATS,
    LONGEST_PERIOD,
    MOST_PERIODIC,
    RepetitionGuard,
)

MOST_OF_ONE = SamplingOptions().max_repeats


def pushed(tokens):
    """Return after how many tokens a loop is seen; 0 = never."""
    guard = RepetitionGuard(MOST_OF_ONE)
    for number, token in enumerate(tokens, 1):
        guard.push(token)
        if guard.loop:
            return number
    return 0


def most_of(period):
    return MOST_OF_ONE if period == 1 else max(MOST_PERIODIC, FEWEST_REPEATS * period)


@given(
    before=st.lists(st.integers(100, 200), max_size=20, unique=True),
    period=st.integers(1, LONGEST_PERIOD),
)
def test_a_loop_of_any_length_is_seen_once_it_is_long_enough(before, period):
    loop = list(range(period))
    wanted = most_of(period)
    looping = (loop * wanted)[:wanted]
    assert pushed([*before, *looping]) == len(before) + wanted
    assert pushed([*before, *looping[:-1], 99, *looping[:-1]]) == 0, 'one less on either side'


@given(st.lists(st.integers(0, 2), max_size=200))
def test_what_is_seen_is_a_loop(tokens):
    """The plain way: the shortest period of the answer's end, if that is long enough."""
    guard = RepetitionGuard(MOST_OF_ONE)
    for number, token in enumerate(tokens, 1):
        guard.push(token)
        said = tokens[:number]
        periods = [
            period
            for period in range(1, LONGEST_PERIOD + 1)
            if number >= most_of(period)
            and all(said[-i] == said[-i - period] for i in range(1, most_of(period) - period + 1))
        ]
        assert guard.loop == (tuple(said[-periods[0] :]) if periods else ())


def test_a_loop_is_suspicious_before_it_is_one_and_no_longer_when_it_ends():
    guard = RepetitionGuard(MOST_OF_ONE)
    for _ in range(20):
        guard.push(7)
    assert guard.is_suspicious
    assert not guard.loop
    guard.push(8)
    assert not guard.is_suspicious


def counted(numbers):
    return ''.join(f'Frame {number}: the box is red.\n' for number in range(numbers))


GOOD = {
    'a laugh': 'ha ' * 15,
    'a rule of dashes': f'{"-" * 31}\nParts:\n',
    'a table': '| part | ok |\n|---|---|\n' + ''.join(f'| part {i} | yes |\n' for i in range(40)),
    'empty rows': '| | |\n' * 10,
    'the same of each frame': counted(60),
    'a long number': '1' + '0' * 30,
    'a countdown': ', '.join(map(str, range(200, 0, -1))),
    'coordinates': ''.join(f'({10 * i}, {20 * i}), ' for i in range(60)),
    'blanks': 'a' + ' ' * 31 + 'b',
    'a rhyme': 'row, row, row your boat, gently down the stream; ' * 1,
}
BAD = {
    'token 0 for ever': '!' * 32,
    'a word': 'the ' * 100,
    'two words in turn': 'red and blue and ' * 20,
    'a sentence': 'I see a box and a ball. ' * 20,
    'lines': 'No.\n' * 64,
    'after a good beginning': 'The door is open. ' + 'It is open. ' * 40,
}


@pytest.mark.parametrize('text', GOOD.values(), ids=GOOD.keys())
def test_good_answers_that_repeat_themselves_are_none(text):
    """Byte by byte, the vocabulary in which a repetition has the most tokens."""
    assert not pushed(text.encode())


@pytest.mark.parametrize('text', BAD.values(), ids=BAD.keys())
def test_answers_that_are_loops_are_seen(text):
    assert pushed(text.encode())
