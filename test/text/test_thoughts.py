"""What a model thinks aloud first is no part of its answer, however the text comes."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vlm_ros.text.thoughts import Thoughts

ANSWERS = {
    '<think>\nIs it red? No.\n</think>\n\nIt is blue.': '\n\nIt is blue.',
    '  <think></think>Yes': 'Yes',
    '<think>a</think>b<think>c</think>': 'b<think>c</think>',
    '<think>never ends </thin': '',
    '<think>': '',
    '<thin': '<thin',
    '< 3 m': '< 3 m',
    'It says <think>.</think>': 'It says <think>.</think>',
    'It is blue.': 'It is blue.',
    '   ': '   ',
    '': '',
}


def shown(pieces):
    thoughts = Thoughts()
    text = ''.join(thoughts.show(piece) for piece in pieces)
    return text + thoughts.finish(), thoughts


@pytest.mark.parametrize('said', ANSWERS)
@given(data=st.data())
def test_what_is_shown_is_the_answer_wherever_the_text_is_cut(said, data):
    cuts = sorted(data.draw(st.sets(st.integers(0, len(said)))))
    edges = [0, *cuts, len(said)]
    pieces = [said[start:stop] for start, stop in itertools.pairwise(edges)]
    found, thoughts = shown(pieces)
    assert found == ANSWERS[said]
    assert thoughts.has_thought is said.lstrip().startswith('<think>')
    assert thoughts.is_thinking is (thoughts.has_thought and '</think>' not in said)


def test_an_answer_without_thoughts_waits_no_longer_than_it_could_begin_with_one():
    thoughts = Thoughts()
    assert [thoughts.show(piece) for piece in ('<', 't', 'able', '>')] == ['', '', '<table', '>']
