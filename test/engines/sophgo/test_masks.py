"""Masks and patch positions: what each row sees, and the bits that say so."""

import numpy as np
import pytest

from edge_vlm_ros.engines.sophgo.masks import (
    block_mask,
    blocked,
    causal_mask,
    cross_decode_mask,
    cross_mask,
    cross_row_mask,
    decode_mask,
    from_host,
    history_mask,
    one,
    patch_mask,
    patch_positions,
    to_half,
)
from edge_vlm_ros.engines.sophgo.nets import DType

BF16, F16, F32 = DType.BFLOAT16, DType.FLOAT16, DType.FLOAT32


def seen(mask, dtype=BF16):
    """Return which columns are open, and check that the others hide."""
    values = from_host(mask, dtype)
    assert set(np.unique(values)) <= {
        0.0,
        float(from_host(np.array([blocked(dtype)], dtype.host), dtype)[0]),
    }
    return values == 0


@pytest.mark.parametrize(
    ('dtype', 'hides', 'is_one'),
    [(BF16, 0xC61C, 0x3F80), (F16, 0xF0E2, 0x3C00), (F32, -10000, 1), (DType.INT32, -10000, 1)],
)
def test_each_type_hides_with_its_own_bits(dtype, hides, is_one):
    assert (blocked(dtype), one(dtype)) == (hides, is_one)
    assert from_host(np.array([hides], dtype.host), dtype)[0] <= -9984
    assert from_host(np.array([is_one], dtype.host), dtype)[0] == 1


def test_a_row_of_a_prompt_sees_itself_and_what_precedes():
    assert (seen(causal_mask(5, BF16)) == np.tril(np.ones((5, 5), bool))).all()


def test_a_new_row_sees_the_held_rows_of_the_history_and_the_new_rows_before_it():
    opened = seen(history_mask(2, range(3), rows=3, history=4, dtype=F16), F16)
    expected = np.array(
        [[1, 1, 0, 0, 1, 0, 0], [1, 1, 0, 0, 1, 1, 0], [1, 1, 0, 0, 1, 1, 1]], bool
    )
    assert (opened == expected).all()
    last = seen(history_mask(2, range(2, 3), rows=3, history=4, dtype=F16), F16)
    assert (last == expected[2:]).all()


def test_a_decoded_token_sees_the_held_rows_and_its_own_column_at_the_end():
    assert seen(decode_mask(2, 4, BF16)).tolist() == [True, True, False, False, True]
    assert seen(decode_mask(0, 2, BF16)).tolist() == [False, False, True]
    assert seen(decode_mask(4, 4, BF16)).all()


def test_frames_see_only_themselves_and_no_padding():
    opened = seen(patch_mask(2, 2, 6, F32), F32)
    expected = np.zeros((6, 6), bool)
    expected[:2, :2] = expected[2:4, 2:4] = True
    assert (opened == expected).all()


def test_runs_of_any_length_see_themselves_in_memory_that_was_used_before():
    used = block_mask([6], 6, F32)
    assert seen(used, F32).all()
    opened = seen(block_mask([1, 3], 6, F32, used), F32)
    assert opened.tolist() == [
        [True, False, False, False, False, False],
        *([[False, True, True, True, False, False]] * 3),
        *([[False] * 6] * 2),
    ]


def test_patches_are_listed_block_by_block():
    places = patch_positions(1, 2, 4).tolist()
    assert places == [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3], [1, 2], [1, 3]]
    assert (patch_positions(2, 4, 6)[:24] == patch_positions(2, 4, 6)[24:]).all()
    assert patch_positions(1, 4, 6).dtype == np.int32


def test_rows_before_the_image_lose_the_mlp_and_see_everything():
    row = cross_decode_mask(4, 6, BF16)
    assert seen(row).tolist() == [True] * 4 + [False] * 2
    mlp = from_host(cross_row_mask(1, 3, 4, BF16), BF16)
    assert mlp.tolist() == [0, 1, 1, 0]
    opened = seen(cross_mask(1, 3, 4, row, BF16))
    assert opened[0].all()
    assert (opened[1:3] == seen(row)).all()
    assert not opened[3].any()


@pytest.mark.parametrize('dtype', [BF16, F16])
def test_half_types_go_there_and_back(dtype):
    values = np.array([0.0, 1.0, -2.5, 0.15625], np.float32)
    assert (from_host(to_half(values, dtype), dtype) == values).all()
