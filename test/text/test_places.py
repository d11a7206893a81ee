"""Places in an answer: the forms that models write, and what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vlm_ros.text import NamedPlace, PlaceForm, find_places

REF, QWEN, JSON = PlaceForm.REF_BOX, PlaceForm.OBJECT_REF, PlaceForm.JSON


@pytest.mark.parametrize(
    ('form', 'answer', 'places'),
    [
        (
            REF,
            'There is <ref>a dog</ref><box>[[1, 2, 30, 40]]</box>.',
            [('a dog', (1, 2, 30, 40))],
        ),
        (
            REF,
            '<ref>cups</ref><box>[[1, 2, 3, 4], [5,6,7,8]]</box> and <ref>a jug</ref>',
            [('cups', (1, 2, 3, 4)), ('cups', (5, 6, 7, 8))],
        ),
        (REF, '<box>[[10, 20, 30, 40]]</box>', [('', (10, 20, 30, 40))]),
        (REF, '<ref>dog</ref><box>[[1, 2, 30, 4', []),
        (
            QWEN,
            (
                '<|object_ref_start|>the red cup<|object_ref_end|>'
                '<|box_start|>(1,2),(30,40)<|box_end|><|box_start|>(5,6),(7,8)<|box_end|>'
            ),
            [('the red cup', (1, 2, 30, 40)), ('the red cup', (5, 6, 7, 8))],
        ),
        (QWEN, 'click at <|box_start|>(500,250)<|box_end|>', [('', (500, 250))]),
        (QWEN, '<|box_start|>(1,2),(3', []),
        (
            JSON,
            (
                '```json\n[\n\t{"bbox_2d": [341.5, 258, 397, 360], "label": "cup"},\n'
                '\t{"point_2d": [10, 20], "label": "handle"}\n]\n```'
            ),
            [('cup', (341.5, 258, 397, 360)), ('handle', (10, 20))],
        ),
        (JSON, '[{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [5, 6, 7', [('', (1, 2, 3, 4))]),
        (JSON, '{"bbox_2d": [1, true, NaN, "4"], "label": 7}', [('', ())]),
        (JSON, 'the door {is} open', []),
    ],
)
def test_each_form_is_read_as_the_models_write_it(form, answer, places):
    assert find_places(answer, form) == [NamedPlace(*place) for place in places]


@pytest.mark.parametrize('form', list(PlaceForm))
@given(answer=st.text(st.sampled_from('<>[]{}()|,"1 -.eEx') | st.characters(), max_size=200))
def test_whatever_a_model_writes_is_read_without_an_error(form, answer):
    pieces = ('<box>', '</box>', '<|box_start|>', '<|box_end|>', '{"bbox_2d":')
    for wrapped in (answer, answer.join(pieces)):
        for place in find_places(wrapped, form):
            assert all(isinstance(number, float) for number in place.numbers)
