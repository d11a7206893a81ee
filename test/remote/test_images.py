"""What of a frame leaves the robot."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from edge_vlm_ros.core import BadImageError, CompressedImage, FrameSource, RawImage, StoredFrame
from edge_vlm_ros.remote.images import encode_frame

SOURCE = FrameSource('front', '/image', 'optical')


def picture(width=320, height=180):
    ramp = np.linspace(0, 255, width, dtype=np.uint8)
    return np.repeat(np.stack([ramp, ramp[::-1], ramp // 2], -1)[np.newaxis], height, 0)


def encoded(kind='JPEG', pixels=None, **more):
    out = io.BytesIO()
    Image.fromarray(picture() if pixels is None else pixels).save(out, kind, **more)
    return out.getvalue()


def compressed(data, form='jpeg'):
    return StoredFrame(SOURCE, 1, CompressedImage(form, data))


def raw(pixels):
    height, width = pixels.shape[:2]
    return StoredFrame(SOURCE, 1, RawImage('rgb8', width, height, 3 * width, pixels.tobytes()))


def opened(sent):
    return Image.open(io.BytesIO(sent.jpeg))


def send(stored, max_side=1024, max_bytes=4_000_000):
    return encode_frame(stored, max_side, max_bytes)


def test_a_camera_s_jpeg_goes_as_it_came():
    data = encoded()
    sent = send(compressed(data, 'rgb8; jpeg compressed bgr8'))
    assert sent.is_untouched
    assert sent.jpeg == data
    assert (sent.width, sent.height) == (320, 180)
    assert sent.url == 'data:image/jpeg;base64,' + base64.b64encode(data).decode()
    assert len(sent.url) == sent.url_bytes


def test_a_larger_one_is_shrunk_and_keeps_its_shape_and_the_size_it_had():
    sent = send(compressed(encoded()), max_side=64)
    assert not sent.is_untouched
    assert opened(sent).size == (64, 36)
    assert (sent.width, sent.height) == (320, 180)


def test_raw_pixels_and_other_files_become_jpeg_of_the_same_colours():
    for stored in (raw(picture()), compressed(encoded('PNG'), 'png')):
        sent = send(stored)
        image = opened(sent)
        assert (image.format, image.size) == ('JPEG', (320, 180))
        difference = np.abs(np.asarray(image, int) - picture())
        assert difference.mean() < 4, 'red is red and blue is blue'


def test_where_a_picture_was_taken_stays_on_the_robot_and_it_stands_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # Turn it by 90 degrees.
    exif[0x010E] = 'the secret laboratory'
    sent = send(compressed(encoded(exif=exif)))
    assert not sent.is_untouched
    assert b'secret' not in sent.jpeg
    assert opened(sent).size == (180, 320)


def test_a_bayer_pattern_in_a_jpeg_becomes_colours():
    grey = encoded(pixels=picture()[..., 0])
    sent = send(compressed(grey, 'bayer_rggb8; jpeg compressed bayer_rggb8'))
    assert not sent.is_untouched
    assert opened(sent).mode == 'RGB'


def test_an_image_that_does_not_become_small_enough_is_refused_with_the_limit():
    noise = np.random.default_rng(1).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    with pytest.raises(BadImageError, match='max_image_kb allows 1000'):
        send(raw(noise), max_bytes=1000)
    assert len(send(raw(noise), max_bytes=130_000).jpeg) <= 130_000


@pytest.mark.parametrize('data', [b'', b'no image', encoded()[:-200]])
def test_what_is_damaged_is_not_sent(data):
    with pytest.raises(BadImageError):
        send(compressed(data))


def test_distances_are_not_sent_as_a_picture():
    with pytest.raises(BadImageError, match='distances'):
        send(compressed(encoded('PNG'), '16UC1; compressedDepth png'))
