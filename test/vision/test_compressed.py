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
from edge_vlm_ros.vision.image_header import read_header
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


@pytest.mark.parametrize(
    ('data', 'says'),
    [
        (b'', 'no image file that is known'),
        (b'\xff\xd8', 'no image file that is known'),
        (b'no image at all', 'no image file that is known'),
        (b'RIFF\x10\0\0\0AVI LIST', 'no image file that is known'),
        (b'\0\0\0\x20ftypavif' + bytes(40), 'an AVIF image, which is not read'),
        (b'#?RADIANCE\n', 'floating point numbers'),
    ],
)
def test_other_files_are_refused_with_their_first_bytes(data, says):
    with pytest.raises(BadImageError, match=says) as caught:
        decode_image(CompressedImage('jpeg', data))
    assert repr(data[:4].hex()) in caught.value.message


@pytest.mark.parametrize(
    'format_',
    ['16UC1; compressedDepth', '32FC1; compressedDepth png', '16UC1; png compressed 16UC1'],
)
def test_compressed_depth_is_refused_as_what_it_is(format_):
    with pytest.raises(BadImageError, match='holds distances'):
        decode_image(CompressedImage(format_, PNG))


OTHERS = {
    'WEBP': {'lossless': True},
    'TIFF': {},
    'BMP': {},
    'GIF': {},
    'PPM': {},
    'JPEG2000': {},
}


@pytest.mark.parametrize('kind', OTHERS)
def test_other_formats_are_read(kind):
    pixels = decode_image(CompressedImage('', encoded(kind, **OTHERS[kind])))
    within = 40 if kind == 'GIF' else 0  # a palette
    assert np.abs(pixels.astype(int) - picture()).max() <= within


@pytest.mark.parametrize(
    ('kind', 'options'),
    [
        ('WEBP', {'lossless': True}),
        ('WEBP', {'lossless': False}),
        ('WEBP', {'lossless': True, 'exif': Image.Exif().tobytes() + bytes(8)}),
        ('TIFF', {}),
        ('TIFF', {'compression': 'tiff_lzw'}),
        ('TIFF', {'big_tiff': True}),
        ('BMP', {}),
        ('GIF', {}),
        ('PPM', {}),
        ('JPEG2000', {}),
        ('JPEG2000', {'no_jp2': True}),
        ('JPEG', {'progressive': True}),
        ('PNG', {}),
    ],
)
def test_a_header_says_the_size_of_every_format(kind, options):
    header = read_header(encoded(kind, picture(61, 35), **options))
    assert (header.width, header.height, header.is_whole, header.bits) == (61, 35, True, 8)


@pytest.mark.parametrize('kind', ['WEBP', 'TIFF', 'BMP', 'GIF', 'JPEG2000'])
@pytest.mark.parametrize('share', [0.05, 0.5, 0.9])
def test_other_formats_that_are_cut_are_refused(kind, share):
    data = encoded(kind, noisy(), **OTHERS[kind])
    with pytest.raises(BadImageError):
        decode_image(CompressedImage('', data[: int(len(data) * share)]))


def noisy() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8)


def test_a_tiff_of_gigapixels_is_refused_at_once():
    entries = [(256, 4, 1, 200_000), (257, 4, 1, 200_000), (258, 3, 1, 8)]
    data = b'II*\0' + struct.pack('<I', 8) + struct.pack('<H', len(entries))
    data += b''.join(struct.pack('<HHII', *entry) for entry in entries) + bytes(4)
    with pytest.raises(BadImageError, match=f'the limit is {MAX_PIXELS}'):
        decode_image(CompressedImage('', data))


@pytest.mark.parametrize('size', [(1, 10_000_000), (20_000, 200), (1, 201), (9_000, 30)])
def test_strips_are_refused(size):
    with pytest.raises(BadImageError, match=r'a side has at most|times as long'):
        decode_image(CompressedImage('png', with_png_size(*size)))


def test_stray_bytes_between_segments_are_skipped():
    for stray in (b'\0', b'abc', b'\xff\0', b'\xff\xff\xff'):
        with_stray = JPEG[:20] + stray + JPEG[20:]
        assert JPEG[20:21] == b'\xff'
        assert decode_image(CompressedImage('jpeg', with_stray)).shape == (48, 64, 3)
        with pytest.raises(BadImageError, match='truncated'):
            decode_image(CompressedImage('jpeg', with_stray[:-100]))


@pytest.mark.parametrize('codec', ['jpeg', 'png'])
@pytest.mark.parametrize('pattern', ['bayer_rggb8', 'bayer_bggr8', 'bayer_grbg8', 'bayer_gbrg8'])
def test_a_compressed_bayer_pattern_becomes_colours(pattern, codec):
    colour = np.zeros((32, 32, 3), np.uint8)
    colour[:] = (220, 60, 20)
    mosaic = np.zeros((32, 32), np.uint8)
    for place, letter in enumerate(pattern.split('_')[1][:4]):
        channel = 'rgb'.index(letter)
        mosaic[place // 2 :: 2, place % 2 :: 2] = colour[0, 0, channel]
    data = encoded('PNG', mosaic) if codec == 'png' else encoded('JPEG', mosaic, quality=100)
    pixels = decode_image(CompressedImage(f'{pattern}; {codec} compressed ', data))
    assert np.abs(pixels[4:-4, 4:-4].astype(int) - colour[4:-4, 4:-4]).max() <= 8


def test_a_bayer_camera_whose_publisher_made_colours_is_left_so():
    data = encoded('PNG')
    pixels = decode_image(CompressedImage('bayer_rggb8; png compressed bgr8', data))
    assert np.array_equal(pixels, picture())


def test_a_png_of_16_bits_is_scaled_as_raw_images_are():
    values = np.random.default_rng(5).integers(0, 65536, (48, 64), np.uint16)
    file = io.BytesIO()
    Image.fromarray(values).save(file, 'PNG')
    pixels = decode_image(CompressedImage('mono16; png compressed ', file.getvalue()))
    assert np.array_equal(pixels[..., 1], (values.astype(int) + 128) // 257)
    dim = io.BytesIO()
    Image.fromarray(values >> 2).save(dim, 'PNG')
    with pytest.raises(BadImageError, match='range_16bit'):
        decode_image(CompressedImage('png', dim.getvalue()))
    image = CompressedImage('16UC1; png compressed ', dim.getvalue(), range16=(0, 16383))
    assert decode_image(image).max() == 255


def test_a_tiff_of_floating_point_numbers_is_refused_by_name():
    file = io.BytesIO()
    Image.fromarray(np.ones((8, 8), np.float32)).save(file, 'TIFF')
    with pytest.raises(BadImageError, match='holds float32 numbers'):
        decode_image(CompressedImage('', file.getvalue()))


@given(
    data=st.sampled_from([JPEG, PNG, *(encoded(kind, **OTHERS[kind]) for kind in OTHERS)]),
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
