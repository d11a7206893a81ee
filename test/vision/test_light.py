"""Whether there is light in a picture."""

from __future__ import annotations

import numpy as np
import pytest

from edge_vlm_ros.core import RawImage
from edge_vlm_ros.vision import is_dark, thumbnail


def raw(encoding, brightness, colour=128):
    width, height = 64, 36
    luma = np.full((height, width), brightness, np.uint8)
    if encoding == 'nv12':
        data = np.concatenate([luma, np.full((height // 2, width), colour, np.uint8)])
    elif encoding in {'yuyv', 'uyvy'}:
        data = np.empty((height, width * 2), np.uint8)
        first = 0 if encoding == 'yuyv' else 1
        data[:, first::2], data[:, 1 - first :: 2] = brightness, colour
    elif encoding == 'mono16':
        data = np.full((height, width), brightness * 257, '<u2').view(np.uint8)
    else:
        data = np.repeat(luma, {'mono8': 1, 'bayer_rggb8': 1, 'rgb8': 3}[encoding], axis=1)
    return RawImage(encoding, width, height, data.shape[1], data.tobytes())


@pytest.mark.parametrize(
    'encoding', ['rgb8', 'mono8', 'mono16', 'bayer_rggb8', 'nv12', 'yuyv', 'uyvy']
)
def test_dark_is_dark_in_every_encoding(encoding):
    assert is_dark(thumbnail(raw(encoding, 12)))
    assert not is_dark(thumbnail(raw(encoding, 60)))


def test_a_lamp_in_the_night_is_light():
    pixels = np.zeros((480, 640, 3), np.uint8)
    assert is_dark(thumbnail(RawImage('rgb8', 640, 480, 1920, pixels.tobytes())))
    pixels[100:200, 200:300] = 255
    assert not is_dark(thumbnail(RawImage('rgb8', 640, 480, 1920, pixels.tobytes())))
