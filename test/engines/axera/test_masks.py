"""Masks: what is seen, and that an update gives what a fresh build would."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_vlm_ros.engines.axera.masks import DecodeMask, PrefillMask
from edge_vlm_ros.engines.bf16 import from_bf16

CHUNK, HISTORY, CAPACITY = 4, 6, 9


def plain_prefill_mask(held, tokens):
    """The mask as the reference words it, cell by cell."""
    mask = np.full((CHUNK, HISTORY + CHUNK), -65536.0, np.float32)
    for row in range(tokens):
        for column in range(HISTORY + CHUNK):
            in_cache = column < held
            in_chunk = HISTORY <= column <= HISTORY + row
            if in_cache or in_chunk:
                mask[row, column] = 0.0
    return mask


def plain_decode_mask(row):
    mask = np.full(CAPACITY + 1, -65536.0, np.float32)
    mask[:row] = 0.0
    mask[CAPACITY] = 0.0
    return mask


prefill_states = st.tuples(st.integers(0, HISTORY), st.integers(1, CHUNK))


@given(st.lists(prefill_states, min_size=1, max_size=8))
def test_a_prefill_mask_updated_in_any_order_is_as_if_made_anew(states):
    mask = PrefillMask(CHUNK, HISTORY)
    before = from_bf16(mask.bits)
    for held, tokens in states:
        written = mask.update(held, tokens)
        after = from_bf16(mask.bits)
        np.testing.assert_array_equal(after, plain_prefill_mask(held, tokens))
        changed = np.flatnonzero((after != before).any(axis=1))
        assert set(changed) <= set(written)
        before = after


@given(st.lists(st.integers(0, CAPACITY - 1), min_size=1, max_size=8))
def test_a_decode_mask_updated_in_any_order_is_as_if_made_anew(rows):
    mask = DecodeMask(CAPACITY)
    before = from_bf16(mask.bits)
    for row in rows:
        written = mask.update(row)
        after = from_bf16(mask.bits)
        np.testing.assert_array_equal(after, plain_decode_mask(row))
        assert set(np.flatnonzero(after != before)) <= set(written)
        before = after


def test_a_step_of_decoding_writes_one_column():
    mask = DecodeMask(CAPACITY)
    mask.update(3)
    assert list(mask.update(4)) == [3]


def test_a_mask_without_history_is_the_chunk_alone():
    mask = PrefillMask(CHUNK, 0)
    mask.update(0, CHUNK)
    expected = np.where(np.tri(CHUNK, dtype=bool), 0.0, -65536.0)
    np.testing.assert_array_equal(from_bf16(mask.bits), expected)
