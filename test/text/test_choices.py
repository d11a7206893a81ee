"""Which choice a free answer names; doubt names none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vlm_ros.text import match_choice

YES_NO = ('yes', 'no')


@pytest.mark.parametrize(
    ('answer', 'choices', 'expected'),
    [
        ('Yes.', YES_NO, 'yes'),
        ('No, a red box is in the way.', YES_NO, 'no'),
        ('Yes, there is no box.', YES_NO, 'yes'),
        (' YES!\n', YES_NO, 'yes'),
        ('The box is red.', ('red', 'green', 'blue'), 'red'),
        ('The box is on the left.', ('left', 'right', 'front left'), 'left'),
        ('It is front left of me.', ('left', 'right', 'front left'), 'front left'),
        ('front-left', ('left', 'front left'), 'front left'),
        ('two', ('One', 'Two'), 'Two'),
        ('不是', ('是', '不是'), '不是'),
        ('是的。', ('是', '不是'), '是'),
        ('是\uff0c左边没有盒子。', ('是', '不是'), '是'),
        ('没有盒子。', ('有', '没有'), '没有'),
        ('It costs 1,000.', ('1', '1,000'), '1,000'),
        ('答案是左边。', ('左边', '右边'), '左边'),
        ('It\u2019s open', ("it's open", 'closed'), "it's open"),
        ('+', ('+', '-'), '+'),
        ('\uff39\uff25\uff33', YES_NO, 'yes'),
        ('3.5', ('3.5', '3'), '3.5'),
        ('yes yes yes', YES_NO, 'yes'),
    ],
)
def test_the_named_choice_is_found(answer, choices, expected):
    assert match_choice(answer, choices) == expected


@pytest.mark.parametrize(
    ('answer', 'choices'),
    [
        ('', YES_NO),
        ('Perhaps.', YES_NO),
        ('yes or no', YES_NO),
        ('Yes. No.', YES_NO),
        ('I know nothing about yesterday', YES_NO),
        ('The red one is behind the blue one', ('red', 'blue')),
        ('The door is not open.', ('open', 'closed')),
        ("The door isn't open.", ('open', 'closed')),
        ('There is no red box.', ('red', 'blue')),
        ('plus', ('+', '-')),
        ('anything', ()),
        ('anything', ('', ' ')),
        ('不红', ('红', '蓝')),
    ],
)
def test_doubt_names_none(answer, choices):
    assert match_choice(answer, choices) == ''


@given(choices=st.lists(st.text(min_size=1, max_size=8), max_size=5), index=st.integers(0, 4))
def test_a_choice_repeated_word_for_word_is_itself(choices, index):
    if index < len(choices) and choices[index].strip():
        answer = choices[index]
        assert match_choice(answer, choices).strip() == answer.strip()


@given(answer=st.text(max_size=40), choices=st.lists(st.text(max_size=8), max_size=5))
def test_the_result_is_one_of_the_choices_or_nothing(answer, choices):
    assert match_choice(answer, choices) in {'', *choices}


@given(answer=st.text('yesno .,!', max_size=20))
def test_the_order_of_the_choices_does_not_matter(answer):
    assert match_choice(answer, YES_NO) == match_choice(answer, YES_NO[::-1])
