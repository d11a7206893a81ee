"""Image files to RGB: what `sensor_msgs/CompressedImage` carries, and what lies on a disk.

Size, wholeness and format are read from the header first (`image_header`); OpenCV decodes.

Source: image_transport's format strings: ros-perception/image_transport_plugins,
compressed_image_transport (a Bayer pattern is compressed as one grey channel, and its encoding
stays in the string) and compressed_depth_image_transport.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import BadImageError
from edge_vlm_ros.vision.image_header import ImageHeader, read_header
from edge_vlm_ros.vision.limits import DEPTH_ENCODINGS, check_size
from edge_vlm_ros.vision.message_bytes import bytes_of
from edge_vlm_ros.vision.wide import narrow

if TYPE_CHECKING:
    from edge_vlm_ros.core import CompressedImage, RgbImage

BAYER_CODES = {
    'bayer_bggr': cv2.COLOR_BayerRG2RGB,
    'bayer_gbrg': cv2.COLOR_BayerGR2RGB,
    'bayer_grbg': cv2.COLOR_BayerGB2RGB,
    'bayer_rggb': cv2.COLOR_BayerBG2RGB,
}
"""OpenCV codes by ROS name, for 8 and 16 bits; its newer names are missing in OpenCV 4.5."""

SMALL_PX = 256
"""An image with a shorter side than this is decoded whole, however little of it is wanted."""


def decode_compressed(image: CompressedImage) -> RgbImage:
    """Decode an image file to RGB; a rotation in its EXIF data is carried out.

    Returns:
        uint8, (H, W, 3), RGB; owned by the caller. 16-bit files are reduced to 8 bits as
        `image.range16` says, a Bayer pattern becomes colours, transparency is dropped.

    Raises:
        BadImageError: Empty, in a format that is not read, distances, too large, truncated,
            damaged, or of 16 bits with nearly black content and no `range16`.
    """
    encoding = colour_encoding(image)
    data, header = _checked(image)
    pattern = encoding.lower().rstrip('0123456789')
    if pattern in BAYER_CODES:
        return _from_bayer(data, header, BAYER_CODES[pattern], image.range16)
    if header.bits > 8:
        return _from_wide(data, header, image.range16)
    bgr = _decode(data, header, cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def colour_encoding(image: CompressedImage) -> str:
    """Return the encoding that an image was compressed from; '' where its format does not say.

    Raises:
        BadImageError: It holds distances, and nobody said which of them are black and white.
    """
    # image_transport writes '<encoding>; jpeg compressed <encoding>', others just 'jpeg'.
    encoding, _, codec = image.format.partition(';')
    encoding = encoding.strip()
    is_depth = encoding.upper() in DEPTH_ENCODINGS and image.range16 == (0, 0)
    if 'compressedDepth' in codec or is_depth:
        raise BadImageError(
            f'format {image.format!r} holds distances, not colours; use the colour topic'
        )
    return encoding


def decode_small(image: CompressedImage) -> NDArray[np.uint8]:
    """Decode an image file at an eighth of its sides: for JPEG a fraction of the whole work.

    Returns:
        uint8, (H / 8, W / 8, 3), or larger for a small one; owned by the caller. Good to compare
        with another's, not to look at: in no order of colours that is said.

    Raises:
        BadImageError: As `decode_compressed`.
    """
    colour_encoding(image)
    data, header = _checked(image)
    if header.bits > 8:  # OpenCV would keep the upper 8, whichever of them are used.
        return decode_compressed(image)[::8, ::8]
    is_small = min(header.width, header.height) < SMALL_PX
    flags = cv2.IMREAD_COLOR if is_small else cv2.IMREAD_REDUCED_COLOR_8
    return np.asarray(_decode(data, header, flags), np.uint8)


def _checked(image: CompressedImage) -> tuple[bytes, ImageHeader]:
    """Return a file whose header promises an image that may be decoded, and the header."""
    data = bytes_of(image.data).tobytes()
    header = read_header(data)
    check_size(header.width, header.height)
    header.check_whole(len(data))
    return data, header


def _decode(data: bytes, header: ImageHeader, flags: int) -> NDArray[Any]:
    size = f'{header.width}x{header.height}'
    what = f'the {header.kind} file ({len(data)} bytes, {size} px) is damaged'
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise BadImageError(f'{what}: {error}') from error
    if decoded is None:
        raise BadImageError(what)
    return np.asarray(decoded)


def _from_bayer(data: bytes, header: ImageHeader, code: int, range16: tuple[int, int]) -> RgbImage:
    """Interpolate the colours of a pattern that was compressed as one grey channel."""
    decoded = _decode(data, header, cv2.IMREAD_UNCHANGED)
    if decoded.ndim == 3:  # the publisher has made colours of it
        decoded, code = decoded[..., :3], cv2.COLOR_BGR2RGB
    return _narrowed(np.asarray(cv2.cvtColor(decoded, code)), header, range16)


def _from_wide(data: bytes, header: ImageHeader, range16: tuple[int, int]) -> RgbImage:
    """Decode a file of more than 8 bits a channel."""
    decoded = _decode(data, header, cv2.IMREAD_UNCHANGED)
    if decoded.ndim == 2:
        rgb = np.repeat(decoded[..., np.newaxis], 3, axis=2)
    else:
        rgb = decoded[..., 2::-1]
    return _narrowed(rgb, header, range16)


def _narrowed(rgb: NDArray[Any], header: ImageHeader, range16: tuple[int, int]) -> RgbImage:
    if rgb.dtype == np.uint8:
        return np.asarray(rgb, np.uint8)
    if rgb.dtype != np.uint16:
        raise BadImageError(
            f'the {header.kind} file holds {rgb.dtype} numbers, not colours of 8 or 16 bits'
        )
    return narrow(rgb, range16, f'the 16-bit {header.kind} file')
