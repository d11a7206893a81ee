"""JPEG and PNG: what is decoded, and what is refused before it can do harm."""

from __future__ import annotations

import array
import io
import struct
import time
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_vlm_ros.core import BadImageError, CompressedImage
from edge_vlm_ros.vision.colour import decode_image
from edge_vlm_ros.vision.limits import MAX_PIXELS


def picture(width: int = 64, height: int = 48) -> np.ndarray:
    """A red to blue ramp with a green bar: swapped channels would show."""
    x = np.linspace(0, 255, width)
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = x
    image[..., 2] = 255 - x
    image[height // 3 : height // 2, :, 1] = 255
    return image


def encoded(kind: str, image: np.ndarray | None = None, **options) -> bytes:
    """Encode with Pillow, so that OpenCV does not check itself."""
    file = io.BytesIO()
    Image.fromarray(picture() if image is None else image).save(file, kind, **options)
    return file.getvalue()


JPEG = encoded('JPEG', quality=95, subsampling=0)
PNG = encoded('PNG')


@pytest.mark.parametrize(
    'format_', ['png', 'rgb8; png compressed bgr8', 'bgr8; png compressed', '']
)
def test_png_is_decoded_exactly(format_):
    assert np.array_equal(decode_image(CompressedImage(format_, PNG)), picture())


@pytest.mark.parametrize('format_', ['jpeg', 'jpg', 'rgb8; jpeg compressed bgr8', ''])
@pytest.mark.parametrize('options', [{}, {'progressive': True}, {'optimize': True}])
def test_jpeg_is_decoded_as_pillow_does(format_, options):
    data = encoded('JPEG', quality=95, **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert('RGB')).astype(int)
    pixels = decode_image(CompressedImage(format_, data))
    assert np.abs(pixels - expected).mean() < 1.0
    assert np.abs(pixels - expected).max() < 32
    assert not pixels.flags.writeable


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_grey_files_become_three_equal_channels(kind):
    grey = picture()[..., 0]
    pixels = decode_image(CompressedImage('', encoded(kind, grey)))
    assert pixels.shape == (48, 64, 3)
    assert np.array_equal(pixels[..., 0], pixels[..., 2])
    assert np.abs(pixels[..., 0].astype(int) - grey).max() < 8


def test_transparency_is_dropped():
    alpha = np.full((48, 64, 1), 7, np.uint8)
    data = encoded('PNG', np.concatenate([picture(), alpha], axis=2))
    assert np.array_equal(decode_image(CompressedImage('png', data)), picture())


def test_an_array_of_bytes_serves_as_from_a_message():
    image = CompressedImage('png', array.array('B', PNG))
    assert np.array_equal(decode_image(image), picture())


def test_bytes_after_the_end_mark_are_no_fault():
    assert decode_image(CompressedImage('jpeg', JPEG + bytes(512))).shape == (48, 64, 3)


@pytest.mark.parametrize(('kind', 'data'), [('JPEG', JPEG), ('PNG', PNG)])
@pytest.mark.parametrize('share', [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(kind, data, share):
    with pytest.raises(BadImageError, match=kind):
        decode_image(CompressedImage('', data[: int(len(data) * share)]))


def test_a_thumbnail_in_the_header_does_not_hide_truncation():
    inner = encoded('JPEG', picture(16, 12))
    segment = b'\xff\xe1' + struct.pack('>H', len(inner) + 2) + inner
    whole = JPEG[:2] + segment + JPEG[2:]
    assert decode_image(CompressedImage('jpeg', whole)).shape == (48, 64, 3)
    with pytest.raises(BadImageError, match='truncated'):
        decode_image(CompressedImage('jpeg', whole[:-200]))


def test_a_damaged_png_is_refused():
    data = bytearray(PNG)
    data[60:64] = b'\x00\x00\x00\x00'
    with pytest.raises(BadImageError, match=r'PNG file .* is damaged'):
        decode_image(CompressedImage('png', bytes(data)))


def with_jpeg_size(width: int, height: int) -> bytes:
    at = JPEG.index(b'\xff\xc0') + 5
    return JPEG[:at] + struct.pack('>HH', height, width) + JPEG[at + 4 :]


def with_png_size(width: int, height: int) -> bytes:
    body = b'IHDR' + struct.pack('>II', width, height) + PNG[24:29]
    return PNG[:12] + body + struct.pack('>I', zlib.crc32(body)) + PNG[33:]


@pytest.mark.parametrize(
    'data', [with_jpeg_size(65500, 65500), with_png_size(2**31 - 1, 2**31 - 1)]
)
def test_a_header_that_claims_gigapixels_is_refused_at_once(data):
    start = time.process_time()
    with pytest.raises(BadImageError, match=f'the limit is {MAX_PIXELS}'):
        decode_image(CompressedImage('', data))
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize(
    'data', [with_jpeg_size(0, 48), with_jpeg_size(64, 0), with_png_size(0, 9)]
)
def test_a_header_that_claims_no_pixels_is_refused(data):
    with pytest.raises(BadImageError, match='each side is at least 1'):
        decode_image(CompressedImage('', data))


@pytest.mark.parametrize('data', [b'', b'\xff\xd8', b'GIF89a' + bytes(99), b'no image at all'])
def test_other_files_are_refused_with_their_first_bytes(data):
    with pytest.raises(BadImageError, match='neither JPEG nor PNG') as caught:
        decode_image(CompressedImage('jpeg', data))
    assert repr(data[:4].hex()) in caught.value.message


@pytest.mark.parametrize(
    'format_',
    ['16UC1; compressedDepth', '32FC1; compressedDepth png', '16UC1; png compressed 16UC1'],
)
def test_compressed_depth_is_refused_as_what_it_is(format_):
    with pytest.raises(BadImageError, match='holds distances'):
        decode_image(CompressedImage(format_, PNG))


@given(
    data=st.sampled_from([JPEG, PNG]),
    damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
    keep=st.floats(0, 1),
)
def test_law_damage_gives_an_image_or_the_one_error(data, damage, keep):
    bad = bytearray(data)
    for where, value in damage:
        bad[int(where * (len(bad) - 1))] = value
    try:
        pixels = decode_image(CompressedImage('', bytes(bad[: int(len(bad) * keep)])))
    except BadImageError:
        return
    assert pixels.ndim == 3
