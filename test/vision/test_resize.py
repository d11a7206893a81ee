"""Resizing: Pillow's bytes from our own code, and how near the fast way comes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_vlm_ros.core import BadImageError
from edge_vlm_ros.vision.resize import (
    resize_exact,
    resize_exact_bilinear,
    resize_exact_lanczos,
    resize_fast,
)

RESIZERS = [resize_exact, resize_exact_bilinear, resize_exact_lanczos, resize_fast]


def by_pillow(
    image: np.ndarray, width: int, height: int, kernel: Image.Resampling = Image.Resampling.BICUBIC
) -> np.ndarray:
    """Resize columns, then rows: what one call did before Pillow 13 began to choose the order."""
    turned = Image.fromarray(image).resize((width, image.shape[0]), kernel)
    return np.asarray(turned.resize((width, height), kernel))


@pytest.mark.parametrize('kind', ['scene', 'text', 'noise', 'gradient'])
@pytest.mark.parametrize(
    ('size', 'target'),
    [
        ((640, 480), (448, 448)),
        ((640, 480), (112, 112)),
        ((1920, 1080), (448, 448)),
        ((641, 479), (448, 448)),
        ((320, 240), (448, 448)),
        ((200, 1000), (448, 448)),
        ((640, 480), (896, 448)),
    ],
)
def test_exact_is_pillow_bit_for_bit(picture, kind, size, target):
    image = picture(kind, *size)
    assert np.array_equal(resize_exact(image, *target), by_pillow(image, *target))


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    target=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    levels=st.sampled_from([2, 256]),
)
@settings(deadline=None)
def test_law_exact_is_pillow_at_any_size(seed, size, target, levels):
    random = np.random.default_rng(seed)
    image = (random.integers(0, levels, (*size, 3)) * (255 // (levels - 1))).astype(np.uint8)
    assert np.array_equal(resize_exact(image, *target), by_pillow(image, *target))
    bilinear = by_pillow(image, *target, Image.Resampling.BILINEAR)
    assert np.array_equal(resize_exact_bilinear(image, *target), bilinear)
    lanczos = by_pillow(image, *target, Image.Resampling.LANCZOS)
    assert np.array_equal(resize_exact_lanczos(image, *target), lanczos)


@pytest.mark.parametrize('kind', ['scene', 'noise', 'gradient'])
@pytest.mark.parametrize('target', [(448, 448), (112, 112), (896, 448), (1344, 896)])
def test_exact_is_any_pillow_in_one_call_within_a_rounding(picture, kind, target):
    image = picture(kind, 640, 480)
    direct = Image.fromarray(image).resize(target, Image.Resampling.BICUBIC)
    difference = resize_exact(image, *target).astype(float) - np.asarray(direct)
    # Noise of 0 and 255 clips differently in the other order; one level is 1/255.
    assert np.abs(difference).mean() < 0.5
    assert np.abs(difference.mean(axis=(0, 1))).max() < 0.1


def test_exact_is_pillow_beyond_one_chunk_and_one_block(picture):
    image = picture('noise', 3000, 700)
    assert np.array_equal(resize_exact(image, 16, 500), by_pillow(image, 16, 500))
    bilinear = by_pillow(image, 16, 500, Image.Resampling.BILINEAR)
    assert np.array_equal(resize_exact_bilinear(image, 16, 500), bilinear)
    lanczos = by_pillow(image, 16, 500, Image.Resampling.LANCZOS)
    assert np.array_equal(resize_exact_lanczos(image, 16, 500), lanczos)


@pytest.mark.parametrize('size', [(1280, 720), (640, 480), (1920, 1080), (480, 640)])
def test_lanczos_is_pillow_through_the_resizes_of_smolvlm(picture, size):
    """First to the longest side, then to whole tiles, then the whole image to one tile."""
    image = theirs = picture('scene', *size)
    for target in [(2048, 1152), (2048, 1536), (512, 512)]:
        image = resize_exact_lanczos(image, *target)
        theirs = by_pillow(theirs, *target, Image.Resampling.LANCZOS)
        assert np.array_equal(image, theirs)


# Measured values are in resize.py; the bounds leave a little room for other builds of OpenCV.
@pytest.mark.parametrize(
    ('size', 'target', 'bounds'),
    [
        ((1920, 1080), 448, {'scene': 0.8, 'text': 15, 'noise': 10, 'gradient': 0.3}),
        ((1280, 720), 448, {'scene': 0.9, 'text': 18, 'noise': 15.5, 'gradient': 0.3}),
        ((1920, 1080), 112, {'scene': 1.6, 'text': 7.5, 'noise': 3, 'gradient': 0.9}),
        ((640, 480), 112, {'scene': 1.2, 'text': 14, 'noise': 7, 'gradient': 0.9}),
        ((1279, 719), 448, {'scene': 0.6, 'text': 7.5, 'noise': 7.5, 'gradient': 0.3}),
    ],
)
def test_fast_is_as_near_as_documented(picture, size, target, bounds):
    for kind, bound in bounds.items():
        image = picture(kind, *size)
        exact = resize_exact(image, target, target).astype(float)
        difference = np.abs(resize_fast(image, target, target) - exact).mean()
        assert difference <= bound, kind


@pytest.mark.parametrize('size', [(1920, 1080), (1280, 720), (640, 480), (1279, 719)])
@pytest.mark.parametrize('target', [448, 112])
def test_fast_keeps_the_brightness_of_a_scene_within_one_level(picture, size, target):
    image = picture('scene', *size)
    exact = resize_exact(image, target, target).astype(float)
    shift = (resize_fast(image, target, target) - exact).mean(axis=(0, 1))
    assert np.abs(shift).max() <= 1.0


@given(
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    target=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    colour=st.tuples(*[st.integers(0, 255)] * 3),
)
@settings(deadline=None)
def test_law_one_colour_stays_one_colour(size, target, colour):
    image = np.full((size[1], size[0], 3), colour, np.uint8)
    for resize in RESIZERS:
        small = resize(image, *target)
        assert small.shape == (target[1], target[0], 3)
        assert np.array_equal(small, np.broadcast_to(np.uint8(colour), small.shape))


@pytest.mark.parametrize('resize', RESIZERS)
def test_an_image_of_the_right_size_is_given_back(resize, picture):
    image = picture('noise', 31, 17)
    assert resize(image, 31, 17) is image


@pytest.mark.parametrize('resize', RESIZERS)
def test_a_read_only_image_is_resized_and_left_unchanged(resize, picture):
    image = picture('scene', 320, 240)
    image.flags.writeable = False
    before = image.copy()
    assert resize(image, 56, 64).shape == (64, 56, 3)
    assert np.array_equal(image, before)


@pytest.mark.parametrize('resize', RESIZERS)
@pytest.mark.parametrize(
    ('size', 'target', 'says'),
    [((0, 4), (2, 2), '0x4 px'), ((4, 4), (0, 2), '0x2 px'), ((4, 4), (2, -1), '2x-1 px')],
)
def test_a_side_of_nothing_is_refused(resize, size, target, says):
    image = np.zeros((size[1], size[0], 3), np.uint8)
    with pytest.raises(BadImageError, match=says):
        resize(image, *target)
