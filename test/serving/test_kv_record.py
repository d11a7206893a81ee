"""The record of the KV cache finds exactly what two prompts share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_vlm_ros.core import (
    ArrivalTime,
    FeatureKey,
    FrameKey,
    PromptPart,
    ShownAs,
    VisionSpan,
    join_parts,
    text_part,
)
from edge_vlm_ros.serving.kv_record import KvRecord


def key(stamp, shown_as=ShownAs.ALONE):
    frame = FrameKey('front', '/image', stamp, ArrivalTime(stamp))
    return FeatureKey((frame,), shown_as)


FRAMES = tuple(map(key, range(3)))


def prompt(words, images=(), *, mrope=False):
    """Two words, then four placeholders an image, then the words."""
    tokens = [1, 2, *[0] * 4 * len(images), *words]
    part = text_part(tokens, 0)
    spans = tuple(VisionSpan(image, 2 + 4 * n, 6 + 4 * n) for n, image in enumerate(images))
    positions = np.stack([part.positions] * 3) if mrope else part.positions
    return PromptPart(part.tokens, positions, len(tokens), spans)


def record_of(part, frames=FRAMES):
    record = KvRecord()
    record.append(part, frames)
    return record


def test_equal_prompts_share_everything():
    part = prompt([5, 6], [0, 1])
    assert record_of(part).shared(part, FRAMES) == len(part)


def test_prompts_share_up_to_the_first_other_word():
    assert record_of(prompt([5, 6, 7], [0])).shared(prompt([5, 9, 7], [0]), FRAMES) == 7


def test_another_frame_at_the_same_place_ends_what_is_shared():
    part = prompt([5], [0, 1])
    others = (FRAMES[0], FRAMES[2])
    assert record_of(part).shared(part, others) == 6


def test_the_same_frame_shown_another_way_has_other_features():
    part = prompt([5], [0])
    others = (key(0, ShownAs.AMONG_OTHERS),)
    assert record_of(part, FRAMES[:1]).shared(part, others) == 2


def test_the_same_frame_under_another_index_is_the_same():
    held, wanted = prompt([5], [0]), prompt([5], [1])
    assert record_of(held, FRAMES[:1]).shared(wanted, (FRAMES[1], FRAMES[0])) == len(held)


def test_other_positions_end_what_is_shared():
    part = prompt([5, 6])
    moved = replace(part, positions=part.positions + np.array([0, 0, 1, 1]))
    assert record_of(part).shared(moved, ()) == 2


def test_one_of_three_position_axes_is_enough():
    part = prompt([5, 6], mrope=True)
    positions = part.positions.copy()
    positions[2, 3] += 1
    assert record_of(part).shared(replace(part, positions=positions), ()) == 3
    assert record_of(part).shared(prompt([5, 6]), ()) == 0


def test_another_row_of_the_same_features_is_another_token():
    part = prompt([], [0])
    shifted = replace(part, spans=(replace(part.spans[0], first_row=1),))
    assert record_of(part).shared(shifted, FRAMES) == 2


def test_what_was_cut_off_is_forgotten():
    part = prompt([5, 6], [0])
    record = record_of(part)
    record.truncate(3)
    assert record.length == 3
    assert record.shared(part, FRAMES) == 3
    record.truncate(0)
    assert record.shared(part, FRAMES) == 0


def test_frames_that_are_gone_are_not_remembered():
    record = KvRecord()
    for stamp in range(100):
        record.append(prompt([], [0]), [key(stamp)])
        record.truncate(0)
    assert len(record._images) == 0


words = st.lists(st.integers(3, 5), max_size=8)
images = st.lists(st.integers(0, 2), max_size=3)


@given(words, images, words, images, st.data())
def test_the_record_finds_what_a_token_by_token_comparison_finds(
    ours, shown, theirs, wanted, data
):
    held, new = prompt(ours, shown), prompt(theirs, wanted)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(held)), max_size=3)))
    record = KvRecord()
    for start, stop in zip([0, *cuts], [*cuts, len(held)], strict=True):
        record.append(held.slice(start, stop), FRAMES)
    expected = 0
    for one, other in zip(meanings(held), meanings(new), strict=False):
        if one != other:
            break
        expected += 1
    assert record.length == len(held)
    assert record.shared(new, FRAMES) == expected


def meanings(part):
    rows = [(int(token),) for token in part.tokens]
    for span in part.spans:
        for row, place in enumerate(range(span.start, span.stop)):
            rows[place] += (FRAMES[span.image], span.first_row + row)
    return rows


def test_parts_joined_and_parts_one_by_one_are_the_same_record():
    parts = [prompt([5], [0]), text_part([7, 8], 7)]
    one = record_of(join_parts(parts))
    other = KvRecord()
    for part in parts:
        other.append(part, FRAMES)
    assert (one._joined() == other._joined()).all()
