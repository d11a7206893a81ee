"""Laws of prompt parts: cutting and joining change nothing."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_vlm_ros.core import PromptPart, VisionSpan, join_parts, text_part

IMAGE_TOKEN = 7


@st.composite
def parts(draw: st.DrawFn) -> PromptPart:
    """Make a part of text and images with one position a token."""
    tokens: list[int] = []
    spans: list[VisionSpan] = []
    for image in range(draw(st.integers(0, 3))):
        tokens += draw(st.lists(st.integers(10, 99), max_size=4))
        length = draw(st.integers(1, 6))
        spans.append(VisionSpan(image, len(tokens), len(tokens) + length))
        tokens += [IMAGE_TOKEN] * length
    tokens += draw(st.lists(st.integers(10, 99), min_size=1, max_size=5))
    first = draw(st.integers(0, 50))
    plain = text_part(tokens, first)
    return PromptPart(plain.tokens, plain.positions, plain.next_position, tuple(spans))


def rows_by_place(part: PromptPart) -> dict[int, tuple[int, int]]:
    """Say for every placeholder which row of which image stands there."""
    return {
        span.start + i: (span.image, span.first_row + i)
        for span in part.spans
        for i in range(len(span))
    }


@given(part=parts(), data=st.data())
def test_cut_anywhere_and_joined_again_it_is_the_same_part(
    part: PromptPart, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(part)))
    joined = join_parts([part.slice(0, cut), part.slice(cut, len(part))])
    assert joined.tokens.tolist() == part.tokens.tolist()
    assert joined.positions.tolist() == part.positions.tolist()
    assert joined.next_position == part.next_position
    assert rows_by_place(joined) == rows_by_place(part)


@given(part=parts(), data=st.data())
def test_a_slice_goes_on_where_the_one_before_ended(part: PromptPart, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(part) - 1))
    assert part.slice(0, cut).next_position == part.positions[cut]


def test_the_position_after_a_cut_is_the_largest_of_the_three_of_m_rope() -> None:
    positions = np.array([[0, 1, 1, 3], [0, 1, 2, 3], [0, 1, 1, 3]])
    part = PromptPart(np.arange(4), positions, next_position=4)
    assert part.slice(0, 2).next_position == 2
    assert part.slice(0, 2).positions.shape == (3, 2)


def test_joining_nothing_is_an_empty_part() -> None:
    assert len(join_parts([])) == 0


@given(part=parts())
def test_placeholders_are_counted(part: PromptPart) -> None:
    assert part.vision_tokens == int((part.tokens == IMAGE_TOKEN).sum())
