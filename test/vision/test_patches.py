"""Qwen2-VL's patches: sizes within the rule, and every pixel in its place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vlm_ros.core import BadImageError, BadRequestError
from edge_vlm_ros.vision import Normaliser, Patching, cut_patches, patch_places, smart_size

PLAIN = Normaliser((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
SIDES = st.integers(1, 3000)


@given(width=SIDES, height=SIDES, most=st.integers(28 * 28, 10**6))
def test_sizes_are_multiples_of_a_block_within_the_bounds(width, height, most):
    patching = Patching(min_pixels=min(3136, most), max_pixels=most)
    if max(width, height) > 200 * min(width, height):
        with pytest.raises(BadImageError, match='at most 200 times'):
            smart_size(width, height, patching)
        return
    wide, high = smart_size(width, height, patching)
    assert wide % 28 == high % 28 == 0
    assert min(wide, high) >= 28
    if min(width, height) * 28 >= max(width, height) and most >= 100 * 784:
        assert wide * high <= most  # a block more or less is a small part of such an image


@pytest.mark.parametrize(
    ('size', 'expected'),
    [
        ((210, 140), (224, 140)),  # the vendor's example: 16 x 10 patches
        ((42, 70), (56, 56)),  # halves go to even multiples
        ((1, 1), (56, 56)),
        ((640, 480), (644, 476)),
    ],
)
def test_known_sizes(size, expected):
    assert smart_size(*size, Patching(max_pixels=12845056)) == expected


def test_an_image_without_pixels_is_refused():
    with pytest.raises(BadImageError):
        smart_size(0, 5, Patching())


@pytest.mark.parametrize('bounds', [{'max_pixels': 783}, {'min_pixels': 0}, {'patch_px': 0}])
def test_bounds_that_leave_no_size_are_refused(bounds):
    with pytest.raises(BadRequestError):
        Patching(**{'max_pixels': 3136, **bounds})


@given(rows=st.integers(1, 6), columns=st.integers(1, 6), frames=st.integers(1, 2))
def test_every_pixel_is_found_again_where_its_patch_lies(rows, columns, frames):
    rng = np.random.default_rng(rows * 10 + columns)
    height, width = rows * 28, columns * 28
    shown = [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(frames)]
    patches = cut_patches(shown, Patching(), PLAIN)
    places = patch_places(2 * rows, 2 * columns)
    assert patches.shape == (len(places), 1176)
    assert patches.flags.c_contiguous
    for frame, pixels in enumerate([shown[0], shown[-1]]):
        rebuilt = np.empty((height, width, 3), np.float32)
        for patch, (row, column) in zip(patches, places, strict=True):
            part = patch.reshape(3, 2, 14, 14)[:, frame].transpose(1, 2, 0)
            rebuilt[row * 14 : row * 14 + 14, column * 14 : column * 14 + 14] = part
        np.testing.assert_array_equal(rebuilt, pixels.astype(np.float32) / np.float32(255))


@given(rows=st.integers(1, 5), columns=st.integers(1, 5))
def test_four_neighbours_are_one_block_and_blocks_come_row_by_row(rows, columns):
    places = patch_places(2 * rows, 2 * columns).reshape(rows, columns, 4, 2)
    inside = [(0, 0), (0, 1), (1, 0), (1, 1)]
    for row in range(rows):
        for column in range(columns):
            corner = np.array([2 * row, 2 * column])
            assert (places[row, column] - corner).tolist() == [list(place) for place in inside]
