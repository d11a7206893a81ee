"""Camera bytes to RGB: the encodings of `sensor_msgs/Image`, and compressed images.

All encodings of colour and brightness that sensor_msgs names are read here, nv24 alone excepted;
what is left (distances, signed and floating point numbers) is refused by name. So `cv_bridge` is
not needed, whose compiled part breaks where numpy 2 meets a build for numpy 1.

Bayer patterns are named by their first two rows in ROS, by their second row's in OpenCV's older
constants (the newer ones are missing in OpenCV 4.5); colours are interpolated.
YUV is BT.601 with limited range (luma 16 to 235), as OpenCV and cv_bridge read it.
Source: sensor_msgs/image_encodings.hpp; OpenCV, "Color conversions", RGB <-> YUV.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import BadImageError, CompressedImage, Frame
from edge_vlm_ros.vision.compressed import BAYER_CODES, decode_compressed
from edge_vlm_ros.vision.limits import DEPTH_ENCODINGS, MAX_PIXELS
from edge_vlm_ros.vision.message_bytes import bytes_of
from edge_vlm_ros.vision.raw_layout import SUPPORTED_ENCODINGS, check_layout, encoding_of
from edge_vlm_ros.vision.wide import narrow

if TYPE_CHECKING:
    from edge_vlm_ros.core import RawImage, RgbImage, StoredFrame

__all__ = ['DEPTH_ENCODINGS', 'MAX_PIXELS', 'SUPPORTED_ENCODINGS', 'decode_frame', 'decode_image']

Bytes: TypeAlias = NDArray[np.uint8]


class _Convert(Protocol):
    def __call__(self, rows: Bytes, image: RawImage) -> RgbImage: ...


def decode_frame(stored: StoredFrame) -> Frame:
    """Decode a stored frame.

    Raises:
        BadImageError: As `decode_image`; the message names the camera.
    """
    try:
        pixels = decode_image(stored.image)
    except BadImageError as error:
        name = stored.source.camera or stored.source.topic
        where = f'camera {name!r}: ' if name else ''
        raise BadImageError(f'{where}{error.message}') from error
    return Frame(pixels=pixels, stamp_ns=stored.stamp_ns, source=stored.source)


def decode_image(image: RawImage | CompressedImage) -> RgbImage:
    """Decode one image to RGB.

    Returns:
        uint8, (H, W, 3), RGB, C-contiguous, read-only. For 'rgb8' without padding it is a view of
        `image.data`, which must not be written to.

    Raises:
        BadImageError: Unknown encoding, no pixels, more than `MAX_PIXELS`, a step or data too
            short, a damaged file.
    """
    if isinstance(image, CompressedImage):
        pixels = decode_compressed(image)
    else:
        rows = _rows_of(image)
        try:
            pixels = _CONVERSIONS[encoding_of(image)](rows, image)
        except cv2.error as error:  # pragma: no cover - sizes are checked above
            raise BadImageError(f'cannot convert {image!r}: {error}') from error
    view: RgbImage = np.ascontiguousarray(pixels).view()
    view.flags.writeable = False
    return view


def _rows_of(image: RawImage) -> Bytes:
    """Return the image as (rows, bytes of a row), padding left out; a view of its data."""
    data = bytes_of(image.data)
    layout = check_layout(image)
    shape = (layout.rows(image.height), image.width * layout.pixel_bytes)
    view: Bytes = np.ndarray(shape, np.uint8, buffer=data, strides=(image.step, 1))
    return view


def _pixels(rows: Bytes, channels: int) -> Bytes:
    pixels: Bytes = rows.reshape(rows.shape[0], -1, channels)
    return pixels


def _same(rows: Bytes, image: RawImage) -> RgbImage:
    del image
    return _pixels(rows, 3)


def _by_opencv(code: int, channels: int) -> _Convert:
    """Return a conversion of interleaved pixels by an OpenCV colour code."""

    def convert(rows: Bytes, image: RawImage) -> RgbImage:
        del image
        return np.asarray(cv2.cvtColor(_pixels(rows, channels), code), np.uint8)

    return convert


def _planar(code: int) -> _Convert:
    """Return a conversion of luma rows followed by interleaved colour rows."""

    def convert(rows: Bytes, image: RawImage) -> RgbImage:
        del image
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(rows), code), np.uint8)

    return convert


def _wide_by_opencv(code: int, channels: int) -> _Convert:
    """Return a conversion of interleaved 16-bit pixels by an OpenCV colour code.

    Colours of a Bayer pattern are interpolated before the values are narrowed.
    """

    def convert(rows: Bytes, image: RawImage) -> RgbImage:
        order = '>u2' if image.is_bigendian else '<u2'
        wide = np.ascontiguousarray(rows).view(order).astype(np.uint16)
        shaped = wide.reshape(wide.shape[0], -1, channels)
        rgb = np.asarray(cv2.cvtColor(shaped, code), np.uint16)
        return narrow(rgb, image.range16, f'the {image.encoding} image')

    return convert


def _rgb16(rows: Bytes, image: RawImage) -> RgbImage:
    order = '>u2' if image.is_bigendian else '<u2'
    wide = np.ascontiguousarray(rows).view(order).reshape(rows.shape[0], -1, 3)
    return narrow(wide, image.range16, f'the {image.encoding} image')


_MONO = _by_opencv(cv2.COLOR_GRAY2RGB, 1)
_MONO16 = _wide_by_opencv(cv2.COLOR_GRAY2RGB, 1)
_BGR = _by_opencv(cv2.COLOR_BGR2RGB, 3)
_BGRA = _by_opencv(cv2.COLOR_BGRA2RGB, 4)
_BGR16 = _wide_by_opencv(cv2.COLOR_BGR2RGB, 3)
_BGRA16 = _wide_by_opencv(cv2.COLOR_BGRA2RGB, 4)
_YUYV = _by_opencv(cv2.COLOR_YUV2RGB_YUY2, 2)
_UYVY = _by_opencv(cv2.COLOR_YUV2RGB_UYVY, 2)

_CONVERSIONS = {
    '8UC1': _MONO,
    '8UC3': _BGR,  # OpenCV's own order, which cv_bridge assumes too
    '8UC4': _BGRA,
    '16UC3': _BGR16,
    '16UC4': _BGRA16,
    **{f'{name}8': _by_opencv(code, 1) for name, code in BAYER_CODES.items()},
    **{f'{name}16': _wide_by_opencv(code, 1) for name, code in BAYER_CODES.items()},
    'bgr16': _BGR16,
    'bgr8': _BGR,
    'bgra16': _BGRA16,
    'bgra8': _BGRA,
    'mono16': _MONO16,
    'mono8': _MONO,
    'nv12': _planar(cv2.COLOR_YUV2RGB_NV12),
    'nv21': _planar(cv2.COLOR_YUV2RGB_NV21),
    'rgb16': _rgb16,
    'rgb8': _same,
    'rgba16': _wide_by_opencv(cv2.COLOR_RGBA2RGB, 4),
    'rgba8': _by_opencv(cv2.COLOR_RGBA2RGB, 4),
    'uyvy': _UYVY,
    'yuv422': _UYVY,  # ROS 1 and Humble name
    'yuv422_yuy2': _YUYV,
    'yuyv': _YUYV,
}
"""What makes RGB of each of `RAW_LAYOUTS`."""
