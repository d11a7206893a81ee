"""Normalising: the reference's float32 numbers, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from edge_vlm_ros.core import BadRequestError
from edge_vlm_ros.vision.normalise import Normaliser

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def reference(image: np.ndarray, mean, std) -> np.ndarray:
    """torchvision: ToTensor, then Normalize, in float32."""
    unit = image.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    mean, std = (np.array(each, np.float32)[:, None, None] for each in (mean, std))
    return (unit - mean) / std


@pytest.mark.parametrize(('mean', 'std'), [IMAGENET, CLIP, HALF])
@pytest.mark.parametrize('size', [(1, 1), (37, 21), (448, 448)])
def test_it_equals_the_reference_bit_for_bit(picture, mean, std, size):
    image = picture('noise', *size)
    pixels = Normaliser(mean, std)(image)
    assert pixels.dtype == np.float32
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels, reference(image, mean, std))


def test_all_levels_of_all_channels_are_right():
    level = np.arange(256, dtype=np.uint8)
    image = np.stack([level, level[::-1], (level + 77).astype(np.uint8)], axis=-1)[None]
    assert np.array_equal(Normaliser(*IMAGENET)(image), reference(image, *IMAGENET))


def test_it_writes_into_the_given_array(picture):
    image = picture('noise', 40, 30)
    batch = np.full((3, 3, 30, 40), np.nan, np.float32)
    assert Normaliser(*CLIP)(image, out=batch[1]) is not None
    assert np.array_equal(batch[1], reference(image, *CLIP))
    assert np.isnan(batch[[0, 2]]).all()


def test_a_read_only_tile_of_a_larger_image_serves(picture):
    image = picture('noise', 80, 60)
    image.flags.writeable = False
    tile = image[10:40, 20:60]
    assert np.array_equal(Normaliser(*HALF)(tile), reference(tile, *HALF))


@pytest.mark.parametrize(
    ('mean', 'std'),
    [
        ((0.5, 0.5), HALF[1]),
        (HALF[0], (0.5,)),
        (HALF[0], (0.5, 0.0, 0.5)),
        ((), ()),
        (HALF[0], (0.5, float('nan'), 0.5)),
    ],
)
def test_senseless_means_and_deviations_are_refused(mean, std):
    with pytest.raises(BadRequestError, match='three numbers'):
        Normaliser(mean, std)


def test_two_of_the_same_numbers_are_equal():
    assert Normaliser(*CLIP) == Normaliser(*CLIP)
    assert Normaliser(*CLIP) != Normaliser(*HALF)
