"""What is seen of a frame without decoding it is what decoding it would say."""

from __future__ import annotations

import subprocess
import sys
from array import array

import cv2
import numpy as np
import pytest

from edge_vlm_ros.core import BadImageError, CompressedImage, RawImage
from edge_vlm_ros.vision import check_at_first_look, decode_image
from edge_vlm_ros.vision.raw_layout import RAW_LAYOUTS

PIXELS = np.random.default_rng(3).integers(0, 255, (16, 24, 3)).astype(np.uint8)


def raw(encoding, width=8, height=6, *, step=None, data=None):
    layout = RAW_LAYOUTS.get(encoding)
    step = step if step is not None else width * (layout.pixel_bytes if layout else 1)
    rows = layout.rows(height) if layout else height
    data = data if data is not None else array('B', bytes(range(200)) * 10)[: step * rows]
    return RawImage(encoding, width, height, step, data, range16=(0, 65535))


def file(suffix, cut=None):
    return CompressedImage('', cv2.imencode(suffix, PIXELS)[1].tobytes()[:cut])


GOOD = {
    **{name: raw(name) for name in RAW_LAYOUTS},
    '16UC1 with a range': raw('16UC1', data=bytes(8 * 6 * 2), step=16),
    **{suffix: file(suffix) for suffix in ('.jpg', '.png', '.webp', '.bmp', '.tiff')},
}
BAD = {
    'no data': raw('rgb8', data=b''),
    'cut data': raw('rgb8', data=bytes(100)),
    'short step': raw('rgb8', step=23),
    'no pixels': raw('rgb8', 0, 0),
    'odd pair': raw('yuyv', 7),
    'odd plane': raw('nv12', 8, 5),
    'another encoding': raw('klingon8'),
    'depth': RawImage('16UC1', 8, 6, 16, bytes(96)),
    'empty file': CompressedImage('jpeg', b''),
    'no file': CompressedImage('jpeg', b'nothing of the kind'),
    **{f'cut {suffix}': file(suffix, -30) for suffix in ('.jpg', '.png', '.webp', '.bmp')},
    'gigapixels': RawImage('rgb8', 10**6, 10**6, 3 * 10**6, b''),
}


@pytest.mark.parametrize('image', GOOD.values(), ids=GOOD)
def test_what_can_be_decoded_passes(image):
    check_at_first_look(image)
    decode_image(image)


@pytest.mark.parametrize('image', BAD.values(), ids=BAD)
def test_what_is_refused_is_refused_with_the_words_of_the_decoder(image):
    with pytest.raises(BadImageError) as decoded:
        decode_image(image)
    with pytest.raises(BadImageError) as seen:
        check_at_first_look(image)
    assert seen.value.message == decoded.value.message


def test_it_loads_no_opencv():
    code = (
        'import sys\n'
        'from edge_vlm_ros.vision import check_at_first_look, SUPPORTED_ENCODINGS\n'
        'print("cv2" in sys.modules)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'False'
