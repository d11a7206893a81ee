"""Options by name: read by their types, refused with what there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from edge_vlm_ros.core import BadRequestError, ErrorCode, Options, parse_option, read_options
from edge_vlm_ros.core.options import count


@dataclass(frozen=True, slots=True)
class Toaster(Options):
    slices: int = count(2, low=1)
    heat: float = 0.5
    is_loud: bool = False
    bread: Literal['rye', 'wheat', 'none'] = 'rye'
    name: str = ''


@pytest.mark.parametrize(
    ('text', 'option'),
    [
        ('slices=4', ('slices', 4)),
        ('a=-1', ('a', -1)),
        ('bread=wheat', ('bread', 'wheat')),
        ('heat=0.7', ('heat', '0.7')),
        ('a=b=c', ('a', 'b=c')),
        ('a=', ('a', '')),
    ],
)
def test_an_option_is_a_name_and_a_value(text, option):
    assert parse_option(text) == option


@pytest.mark.parametrize('text', ['slices', '=4', ''])
def test_what_is_no_option_is_refused(text):
    with pytest.raises(BadRequestError, match='not of the form name=value'):
        parse_option(text)


def test_values_are_read_by_the_types_of_their_fields():
    words = ['slices=4', 'heat=1', 'is_loud=true', 'bread=none', 'name=7']
    chosen = read_options(Toaster, dict(map(parse_option, words)), 'the toaster')
    assert chosen == Toaster(4, 1.0, is_loud=True, bread='none', name='7')
    assert read_options(Toaster, {'heat': '0.25', 'is_loud': False}, '') == Toaster(heat=0.25)
    assert read_options(Toaster, {}, '') == Toaster()


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'slices': 0}, 'slices is a whole number, 1 or more, not 0'),
        ({'slices': 'many'}, "slices is a whole number, 1 or more, not 'many'"),
        ({'slices': True}, 'slices is a whole number, 1 or more, not True'),
        ({'heat': 'hot'}, "heat is a number, not 'hot'"),
        ({'is_loud': 'maybe'}, "is_loud is true or false, not 'maybe'"),
        ({'is_loud': 1}, 'is_loud is true or false, not 1'),
        ({'bread': 'oat'}, "bread is rye, wheat or none, not 'oat'"),
        ({'name': 1.5}, 'name is a text, not 1.5'),
        (
            {'jam': 1, 'slices': 2},
            'the toaster has no option jam; the toaster takes slices, heat, is_loud, bread, name',
        ),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(values, message):
    with pytest.raises(BadRequestError) as caught:
        read_options(Toaster, values, 'the toaster')
    assert caught.value.message == message
    assert caught.value.code is ErrorCode.UNSUPPORTED_OPTION


def test_who_has_no_options_says_so():
    with pytest.raises(BadRequestError, match='it has no option jam; it takes none'):
        read_options(Options, {'jam': 1}, 'it')
