"""The look that decides whether a frame is worth the chip's time."""

from __future__ import annotations

import array
import statistics
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vlm_ros.core import BadImageError, CompressedImage, RawImage
from edge_vlm_ros.vision import SUPPORTED_ENCODINGS, decode_image, has_changed, thumbnail
from edge_vlm_ros.vision.change import COLUMNS, ROWS
from edge_vlm_ros.vision.raw_layout import RAW_LAYOUTS

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT = 640, 480
NOISE = 5.0
WIDE = [name for name in sorted(SUPPORTED_ENCODINGS) if '16' in name and not name.startswith('yu')]


def rgb8(pixels, padding=0):
    height, width = pixels.shape[:2]
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (0, padding)), constant_values=0xA5)
    return RawImage('rgb8', width, height, rows.shape[1], array.array('B', rows.tobytes()))


def scene(picture, seed=0, noise=NOISE, size=(WIDTH, HEIGHT)):
    """Draw a scene as a sensor sees it: its noise is another in every frame."""
    random = np.random.default_rng(seed)
    pixels = picture('scene', *size).astype(np.float32)
    return np.clip(pixels + random.normal(0, noise, pixels.shape), 0, 255).astype(np.uint8)


def with_block(pixels, corner, size, contrast):
    """Put an object into a picture that differs so much from what was there."""
    (left, top), (width, height) = corner, size
    changed = pixels.astype(np.int16)
    place = changed[top : top + height, left : left + width]
    place += np.where(place > 127, -contrast, contrast).astype(np.int16)
    return changed.clip(0, 255).astype(np.uint8)


def differ(before, now):
    return has_changed(thumbnail(before), thumbnail(now))


def test_noise_is_no_change(picture):
    frames = [thumbnail(rgb8(scene(picture, seed))) for seed in range(30)]
    assert not any(has_changed(frames[0], frame) for frame in frames[1:])


@pytest.mark.parametrize('seed', range(20))
def test_an_object_of_a_hundredth_of_the_picture_is_seen_wherever_it_is(picture, seed):
    random = np.random.default_rng(seed)
    width, height = WIDTH // 10, HEIGHT // 10
    left, top = random.integers(0, WIDTH - width), random.integers(0, HEIGHT - height)
    now = with_block(scene(picture, seed), (left, top), (width, height), 45)
    assert differ(rgb8(scene(picture, 100 + seed)), rgb8(now))


def test_two_frames_that_differ_in_one_block_of_pixels_only(picture):
    before = scene(picture)
    assert not differ(rgb8(before), rgb8(before.copy()))
    assert differ(rgb8(before), rgb8(with_block(before, (300, 200), (64, 48), 60)))


@pytest.mark.parametrize('step', [-25, 25])
def test_a_step_of_brightness_counts(picture, step):
    before = scene(picture)
    brighter = (before.astype(np.int16) + step).clip(0, 255).astype(np.uint8)
    assert differ(rgb8(before), rgb8(brighter))


def test_a_colour_of_the_same_brightness_counts():
    """A signal that goes from red to green is a change for whoever waits at it."""
    red, green = np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)
    red[..., 0], green[..., 1] = 200, 102  # of the same luma
    assert differ(rgb8(red), rgb8(green))


def padded(encoding, seed, padding=0):
    """Fill an image of any encoding with values that repeat for the same seed."""
    layout = RAW_LAYOUTS[encoding]
    random = np.random.default_rng(seed)
    shape = (layout.rows(HEIGHT), WIDTH * layout.pixel_bytes)
    rows = np.full(shape, random.integers(20, 80) + 120 * (seed % 2), np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=seed % 2 * 255)
    return RawImage(encoding, WIDTH, HEIGHT, rows.shape[1], rows.tobytes())


@pytest.mark.parametrize('encoding', sorted(SUPPORTED_ENCODINGS))
@pytest.mark.parametrize('padding', [0, 16])
def test_every_encoding_is_compared_and_its_padding_is_not(encoding, padding):
    before = padded(encoding, 2, padding)
    rows = np.frombuffer(before.data, np.uint8).reshape(-1, before.step).copy()
    rows[:, before.step - padding :] = 3
    repadded = RawImage(encoding, WIDTH, HEIGHT, before.step, rows.tobytes())
    assert not differ(before, repadded)
    assert differ(before, padded(encoding, 3, padding))


@pytest.mark.parametrize('encoding', sorted(SUPPORTED_ENCODINGS))
def test_what_is_one_object_to_an_eye_is_seen_in_every_encoding(encoding):
    layout = RAW_LAYOUTS[encoding]
    before = padded(encoding, 2)
    rows = np.frombuffer(before.data, np.uint8).reshape(-1, before.step).copy()
    rows[200:248, 300 * layout.pixel_bytes : 364 * layout.pixel_bytes] += 90
    now = RawImage(encoding, WIDTH, HEIGHT, before.step, rows.tobytes())
    assert differ(before, now)


@pytest.mark.parametrize('encoding', WIDE)
@pytest.mark.parametrize('is_bigendian', [False, True])
def test_sixteen_bits_are_read_in_their_order_and_range(encoding, is_bigendian):
    """A thermal camera's 12 bits are all there is: they must not look like black."""
    order = '>u2' if is_bigendian else '<u2'
    values = RAW_LAYOUTS[encoding].pixel_bytes // 2 * WIDTH

    def image(value):
        data = np.full((HEIGHT, values), value, order).tobytes()
        return RawImage(encoding, WIDTH, HEIGHT, values * 2, data, is_bigendian, (0, 4095))

    assert differ(image(1000), image(1300))
    assert not differ(image(1000), image(1020))


def test_an_image_of_distances_with_a_range_is_brightness():
    data = np.full((8, 8), 500, '<u2').tobytes()
    other = np.full((8, 8), 900, '<u2').tobytes()
    images = [RawImage('16UC1', 8, 8, 16, each, range16=(0, 1000)) for each in (data, other)]
    assert differ(*images)
    assert not differ(images[0], images[0])


@given(st.integers(1, 200), st.integers(1, 200))
def test_an_image_of_any_size_is_sampled_to_its_edges(width, height):
    y, x = np.mgrid[0:height, 0:width].astype(np.uint8)
    pixels = np.stack([y, x, x], axis=2)
    samples = thumbnail(rgb8(pixels)).samples.astype(int)
    assert samples.shape[0] <= ROWS
    assert samples.shape[1] <= COLUMNS
    for axis, size in ((0, height), (1, width)):
        line = samples[:, 0, 0] if axis == 0 else samples[0, :, 1]
        step = -(-size // (ROWS, COLUMNS)[axis])
        assert line[0] < step
        assert line[-1] >= size - step
        assert np.all(np.diff(line) == step)


@pytest.mark.parametrize('data', [bytes, bytearray, memoryview, list, np.asarray])
def test_whatever_holds_the_bytes(data):
    pixels = np.arange(8 * 8 * 3, dtype=np.uint8)
    raw = RawImage('rgb8', 8, 8, 24, data(pixels.tobytes() if data is not np.asarray else pixels))
    assert thumbnail(raw).samples.tobytes() == pixels.tobytes()


@pytest.mark.parametrize('kind', ['.jpg', '.png', '.webp', '.bmp'])
@pytest.mark.parametrize('size', [(WIDTH, HEIGHT), (70, 66), (12, 9)])
def test_files_are_compared_at_an_eighth(picture, kind, size):
    def file(pixels):
        return CompressedImage('jpeg', cv2.imencode(kind, pixels)[1].tobytes())

    before = scene(picture, 0, size=size)
    width, height = size
    block = with_block(before, (width // 3, height // 3), (width // 4, height // 4), 70)
    assert not differ(file(before), file(scene(picture, 1, size=size, noise=2.0)))
    assert differ(file(before), file(block))


def test_files_of_sixteen_bits_are_compared_in_their_range():
    def file(value):
        pixels = np.full((480, 640), value, np.uint16)
        return CompressedImage('mono16; png compressed', cv2.imencode('.png', pixels)[1].tobytes())

    def ranged(value):
        image = file(value)
        return CompressedImage(image.format, image.data, (0, 4095))

    assert differ(ranged(1000), ranged(1300))
    assert not differ(ranged(1000), ranged(1020))
    with pytest.raises(BadImageError, match='nearly black'):
        thumbnail(file(1000))


DAMAGED = {
    'short': RawImage('rgb8', 640, 480, 1920, bytes(100)),
    'unknown': RawImage('nonsense', 640, 480, 1920, bytes(640 * 480 * 3)),
    'odd': RawImage('yuyv', 641, 480, 1282, bytes(1282 * 480)),
    'distances': RawImage('32FC1', 8, 8, 32, bytes(8 * 8 * 4)),
    'empty': CompressedImage('jpeg', b''),
    'cut': CompressedImage('jpeg', b'\xff\xd8\xff\xe0 and no more'),
    'depth': CompressedImage('16UC1; compressedDepth png', b'\x89PNG'),
    'huge': CompressedImage('pnm', b'P5 60000 60000 255 '),
}


@pytest.mark.parametrize('name', DAMAGED)
def test_what_cannot_be_decoded_cannot_be_sampled_and_counts_as_changed(name):
    with pytest.raises(BadImageError):
        thumbnail(DAMAGED[name])
    with pytest.raises(BadImageError):
        decode_image(DAMAGED[name])
    good = thumbnail(rgb8(np.zeros((8, 8, 3), np.uint8)))
    assert has_changed(None, good)
    assert has_changed(good, None)
    assert has_changed(None, None)


def test_another_size_or_encoding_is_a_change():
    pixels = np.zeros((48, 64, 3), np.uint8)
    before = rgb8(pixels)
    assert differ(before, rgb8(pixels[:24]))
    assert differ(before, RawImage('bgr8', 64, 48, 192, before.data))


def test_a_look_costs_a_small_part_of_a_conversion(picture):
    image = rgb8(np.ascontiguousarray(picture('gradient', 1920, 1080)))
    before = thumbnail(image)
    looks, conversions = [], []
    for _ in range(15):
        start = time.perf_counter()
        has_changed(before, thumbnail(image))
        middle = time.perf_counter()
        cv2.resize(decode_image(image), (448, 448), interpolation=cv2.INTER_AREA)
        looks.append(middle - start)
        conversions.append(time.perf_counter() - middle)
    assert statistics.median(looks) * 5 < statistics.median(conversions)


def test_a_look_at_a_raw_image_loads_no_opencv():
    code = (
        'import sys; from edge_vlm_ros.vision import thumbnail; '
        'from edge_vlm_ros.core import RawImage; '
        "thumbnail(RawImage('rgb8', 8, 8, 24, bytes(192))); assert 'cv2' not in sys.modules"
    )
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)
