"""Every encoding against per-pixel formulas of its own, padded and in both byte orders."""

from __future__ import annotations

import array

import numpy as np
import pytest

from edge_vlm_ros.core import BadImageError, CompressedImage, FrameSource, RawImage, StoredFrame
from edge_vlm_ros.vision import colour
from edge_vlm_ros.vision.colour import decode_frame, decode_image
from edge_vlm_ros.vision.limits import DEPTH_ENCODINGS, MAX_PIXELS
from edge_vlm_ros.vision.raw_layout import SUPPORTED_ENCODINGS

WIDTH, HEIGHT = 10, 6
PADDINGS = [0, 1, 7, 64]


def noise(*shape: int, high: int = 256) -> np.ndarray:
    return np.random.default_rng(7).integers(0, high, shape)


def padded(rows: np.ndarray, padding: int) -> tuple[bytes, int]:
    """Lay rows of bytes out with padding that would show if it were read as pixels."""
    filler = np.full((len(rows), padding), 0xA5, np.uint8)
    return np.hstack([rows.astype(np.uint8), filler]).tobytes(), rows.shape[1] + padding


def raw(encoding: str, rows: np.ndarray, padding: int = 0, **changes) -> RawImage:
    data, step = padded(rows, padding)
    fields = {'width': WIDTH, 'height': HEIGHT, 'step': step, 'data': data, **changes}
    return RawImage(encoding, **fields)


def bt601(y: int, u: int, v: int) -> tuple[float, float, float]:
    """ITU-R BT.601, limited range: luma 16 to 235, colour differences 16 to 240 around 128.

    Written from the standard's luma weights (0.299, 0.587, 0.114), not from OpenCV's constants.
    Luma below black counts as black, as in OpenCV.
    """
    luma = max(y - 16, 0) * 255 / 219
    cb, cr = (u - 128) * 255 / 224, (v - 128) * 255 / 224
    red = luma + 2 * (1 - 0.299) * cr
    blue = luma + 2 * (1 - 0.114) * cb
    green = luma - (2 * 0.299 * (1 - 0.299) * cr + 2 * 0.114 * (1 - 0.114) * cb) / 0.587
    return tuple(min(max(value, 0.0), 255.0) for value in (red, green, blue))


def assert_close(pixels: np.ndarray, expected: np.ndarray, within: float) -> None:
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(float) - expected).max() <= within


@pytest.mark.parametrize('padding', PADDINGS)
@pytest.mark.parametrize(
    ('encoding', 'order'),
    [
        ('rgb8', [0, 1, 2]),
        ('bgr8', [2, 1, 0]),
        ('8UC3', [2, 1, 0]),
        ('rgba8', [0, 1, 2]),
        ('bgra8', [2, 1, 0]),
        ('8UC4', [2, 1, 0]),
        ('mono8', [0, 0, 0]),
        ('8UC1', [0, 0, 0]),
    ],
)
def test_eight_bit_channels_are_put_in_order(encoding, order, padding):
    channels = {'mono8': 1, '8UC1': 1, 'rgba8': 4, 'bgra8': 4, '8UC4': 4}.get(encoding, 3)
    pixels = noise(HEIGHT, WIDTH, channels)
    image = raw(encoding, pixels.reshape(HEIGHT, -1), padding)
    assert np.array_equal(decode_image(image), pixels[..., order])


@pytest.mark.parametrize('padding', [0, 2, 7])
@pytest.mark.parametrize('is_bigendian', [False, True])
def test_mono16_is_scaled_in_either_byte_order(is_bigendian, padding):
    values = noise(HEIGHT, WIDTH, high=65536)
    values[0, :6] = [0, 128, 129, 257, 65406, 65535]
    high, low = values >> 8, values & 255
    pair = (high, low) if is_bigendian else (low, high)
    rows = np.stack(pair, axis=-1).reshape(HEIGHT, -1)
    grey = np.array([[round(int(value) * 255 / 65535) for value in row] for row in values])
    pixels = decode_image(raw('mono16', rows, padding, is_bigendian=is_bigendian))
    assert np.array_equal(pixels, np.repeat(grey[..., None], 3, axis=2))


def wide(encoding: str, values: np.ndarray, *, is_bigendian=False, **changes) -> RawImage:
    """Lay 16-bit values out as a message has them."""
    rows = values.astype('>u2' if is_bigendian else '<u2').reshape(len(values), -1).view(np.uint8)
    return raw(encoding, rows, is_bigendian=is_bigendian, **changes)


@pytest.mark.parametrize('is_bigendian', [False, True])
@pytest.mark.parametrize(
    ('encoding', 'order'),
    [
        ('rgb16', [0, 1, 2]),
        ('bgr16', [2, 1, 0]),
        ('16UC3', [2, 1, 0]),
        ('rgba16', [0, 1, 2]),
        ('bgra16', [2, 1, 0]),
        ('16UC4', [2, 1, 0]),
    ],
)
def test_colours_of_16_bits_are_scaled_and_put_in_order(encoding, order, is_bigendian):
    channels = 4 if encoding.endswith(('a16', 'C4')) else 3
    values = noise(HEIGHT, WIDTH, channels, high=65536)
    pixels = decode_image(wide(encoding, values, is_bigendian=is_bigendian))
    assert np.array_equal(pixels, (values[..., order] + 128) // 257)


@pytest.mark.parametrize('pattern', ['bggr', 'gbrg', 'grbg', 'rggb'])
def test_a_bayer_pattern_of_16_bits_is_that_of_8_bits(pattern):
    # The same pattern in 8 bits, whose colours are checked above.
    values = noise(HEIGHT, WIDTH)
    expected = decode_image(raw(f'bayer_{pattern}8', values))
    assert_close(decode_image(wide(f'bayer_{pattern}16', values * 257)), expected, 1)


def test_an_image_of_14_bits_is_refused_rather_than_shown_black():
    values = noise(HEIGHT, WIDTH, high=16384)
    with pytest.raises(BadImageError, match=r'no value above 16\d+ of 65535 .*range_16bit'):
        decode_image(wide('mono16', values))
    assert decode_image(wide('mono16', values * 0)).max() == 0  # black by any scale


@pytest.mark.parametrize('encoding', ['mono16', '16UC1'])
def test_a_range_says_what_is_black_and_what_is_white(encoding):
    values = np.full((HEIGHT, WIDTH), 8000)
    values[0, :4] = [0, 7000, 9000, 16383]
    pixels = decode_image(wide(encoding, values, range16=(7000, 9000)))
    assert list(pixels[0, :5, 0]) == [0, 0, 255, 255, 128]


@pytest.mark.parametrize('range16', [(5, 5), (9, 2), (-1, 4), (0, 65536)])
def test_a_range_without_numbers_in_it_is_refused(range16):
    with pytest.raises(BadImageError, match='two rising numbers from 0 to 65535'):
        decode_image(wide('mono16', noise(HEIGHT, WIDTH), range16=range16))


@pytest.mark.parametrize('padding', PADDINGS)
@pytest.mark.parametrize(
    ('encoding', 'y_at', 'u_at', 'v_at'),
    [
        ('yuyv', 0, 1, 3),
        ('yuv422_yuy2', 0, 1, 3),
        ('uyvy', 1, 0, 2),
        ('yuv422', 1, 0, 2),
    ],
)
def test_packed_yuv_is_bt601_with_limited_range(encoding, y_at, u_at, v_at, padding):
    rows = noise(HEIGHT, 2 * WIDTH)
    expected = np.empty((HEIGHT, WIDTH, 3))
    for y in range(HEIGHT):
        for x in range(WIDTH):
            pair = rows[y, 4 * (x // 2) : 4 * (x // 2) + 4]
            expected[y, x] = bt601(pair[y_at + 2 * (x % 2)], pair[u_at], pair[v_at])
    assert_close(decode_image(raw(encoding, rows, padding)), expected, within=1.5)


@pytest.mark.parametrize('padding', PADDINGS)
@pytest.mark.parametrize(('encoding', 'u_at'), [('nv12', 0), ('nv21', 1)])
def test_planar_yuv_shares_colour_between_four_pixels(encoding, u_at, padding):
    rows = noise(HEIGHT * 3 // 2, WIDTH)
    expected = np.empty((HEIGHT, WIDTH, 3))
    for y in range(HEIGHT):
        for x in range(WIDTH):
            pair = rows[HEIGHT + y // 2, 2 * (x // 2) : 2 * (x // 2) + 2]
            expected[y, x] = bt601(rows[y, x], pair[u_at], pair[1 - u_at])
    assert_close(decode_image(raw(encoding, rows, padding)), expected, within=1.5)


@pytest.mark.parametrize(
    ('yuv', 'rgb'),
    [
        ((16, 128, 128), (0, 0, 0)),
        ((235, 128, 128), (255, 255, 255)),
        ((81, 90, 240), (255, 0, 0)),
        ((145, 54, 34), (0, 255, 0)),
        ((41, 240, 110), (0, 0, 255)),
        ((0, 128, 128), (0, 0, 0)),
    ],
)
def test_yuv_of_well_known_colours(yuv, rgb):
    y, u, v = yuv
    pixels = decode_image(RawImage('yuyv', 2, 1, 4, bytes([y, u, y, v])))
    assert_close(pixels, np.array([[rgb, rgb]]), within=2)


@pytest.mark.parametrize('padding', PADDINGS)
@pytest.mark.parametrize('first_rows', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_bayer_patterns_give_each_sensor_cell_its_colour(first_rows, padding):
    """Colours that rise evenly are interpolated exactly, away from the border."""
    rise = np.add.outer(2 * np.arange(HEIGHT), 3 * np.arange(WIDTH))
    scene = np.stack([rise + 20, rise + 90, rise + 160], axis=-1)
    cells = np.array(['rgb'.index(name) for name in first_rows]).reshape(2, 2)
    channel = np.tile(cells, (HEIGHT // 2, WIDTH // 2))
    mosaic = np.take_along_axis(scene, channel[..., None], axis=-1)[..., 0]
    pixels = decode_image(raw(f'bayer_{first_rows}8', mosaic, padding))
    assert_close(pixels[2:-2, 2:-2], scene[2:-2, 2:-2], within=1)


def test_the_list_of_encodings_is_what_is_decoded():
    assert frozenset(colour._CONVERSIONS) == SUPPORTED_ENCODINGS
    assert not SUPPORTED_ENCODINGS & DEPTH_ENCODINGS


@pytest.mark.parametrize('encoding', sorted(SUPPORTED_ENCODINGS))
def test_what_is_decoded_is_contiguous_and_read_only(encoding):
    rows = noise(HEIGHT * 3 // 2, WIDTH * 8)
    pixels = decode_image(raw(encoding, rows, 5))
    assert (pixels.shape, pixels.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    assert pixels.flags.c_contiguous
    assert not pixels.flags.writeable


@pytest.mark.parametrize(
    'kind', [bytes, bytearray, memoryview, list, lambda data: array.array('B', data)]
)
def test_any_buffer_of_bytes_serves(kind):
    pixels = noise(HEIGHT, WIDTH, 3)
    data = kind(pixels.astype(np.uint8).tobytes())
    image = RawImage('bgr8', WIDTH, HEIGHT, 3 * WIDTH, data)
    assert np.array_equal(decode_image(image), pixels[..., ::-1])


def test_rgb8_is_not_copied():
    data = np.zeros(HEIGHT * WIDTH * 3, np.uint8)
    pixels = decode_image(RawImage('rgb8', WIDTH, HEIGHT, 3 * WIDTH, memoryview(data)))
    assert np.shares_memory(pixels, data)
    assert data.flags.writeable


def test_the_last_row_may_lack_its_padding():
    pixels = noise(HEIGHT, WIDTH, 3)
    data, step = padded(pixels.reshape(HEIGHT, -1), 8)
    image = RawImage('rgb8', WIDTH, HEIGHT, step, data[:-8])
    assert np.array_equal(decode_image(image), pixels)


@pytest.mark.parametrize('encoding', sorted(DEPTH_ENCODINGS))
def test_depth_is_refused_as_what_it_is(encoding):
    with pytest.raises(BadImageError, match=rf"'{encoding}' holds distances"):
        decode_image(RawImage(encoding, 2, 2, 16, bytes(64)))


@pytest.mark.parametrize('encoding', ['bayer_xyzw16', 'nv24', 'RGB8', '', 'h264'])
def test_an_unknown_encoding_is_refused_by_name(encoding):
    with pytest.raises(BadImageError) as caught:
        decode_image(RawImage(encoding, 2, 2, 6, bytes(12)))
    assert repr(encoding) in caught.value.message
    assert 'bgr8' in caught.value.message
    assert 'yuv422_yuy2' in caught.value.message


GOOD = {'encoding': 'rgb8', 'width': 4, 'height': 2, 'step': 12, 'data': bytes(24)}


@pytest.mark.parametrize(
    ('changes', 'says'),
    [
        ({'width': 0}, '0x2 px'),
        ({'height': 0}, '4x0 px'),
        ({'width': -1}, '-1x2 px'),
        ({'step': 11}, 'step is 11 bytes, but a row of 4 px in rgb8 takes 12'),
        ({'step': 0}, 'step is 0 bytes'),
        ({'data': bytes(23)}, 'data has 23 bytes.*take 24'),
        ({'data': b''}, 'data has 0 bytes'),
        ({'data': [1, 300]}, 'not made of bytes'),
        ({'data': None}, 'not made of bytes'),
        ({'step': 2**62}, 'data has 24 bytes'),
        ({'width': 10_001, 'height': 10_000}, f'100010000 pixels; the limit is {MAX_PIXELS}'),
        ({'encoding': 'yuyv', 'width': 3}, 'yuyv needs an even width, not 3'),
        ({'encoding': 'nv12', 'width': 3}, 'nv12 needs an even width, not 3'),
        ({'encoding': 'nv21', 'height': 1}, 'nv21 needs an even height, not 1'),
        ({'encoding': 'nv12', 'data': bytes(27)}, 'data has 27 bytes.*take 28'),
    ],
)
def test_an_impossible_image_is_refused_with_value_and_limit(changes, says):
    with pytest.raises(BadImageError, match=says):
        decode_image(RawImage(**{**GOOD, **changes}))


def test_the_unchanged_image_of_those_refusals_is_good():
    assert decode_image(RawImage(**GOOD)).shape == (2, 4, 3)


def test_a_frame_keeps_its_stamp_and_source():
    source = FrameSource('front', '/camera/image', 'camera_optical')
    frame = decode_frame(StoredFrame(source, 123, RawImage(**GOOD)))
    assert (frame.source, frame.stamp_ns, frame.pixels.shape) == (source, 123, (2, 4, 3))


def test_a_bad_frame_names_its_camera():
    stored = StoredFrame(FrameSource('front'), 1, CompressedImage('jpeg', b''))
    with pytest.raises(BadImageError, match=r"camera 'front': .*no image file that is known"):
        decode_frame(stored)
