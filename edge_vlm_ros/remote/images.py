"""Frames as servers take them: JPEG files, of which no server has to fetch anything."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

import cv2
import numpy as np

from edge_vlm_ros.core import BadImageError, CompressedImage, StoredFrame
from edge_vlm_ros.vision import decode_frame, resize_fast
from edge_vlm_ros.vision.compressed import BAYER_CODES, colour_encoding
from edge_vlm_ros.vision.image_header import read_header
from edge_vlm_ros.vision.limits import check_size
from edge_vlm_ros.vision.message_bytes import bytes_of

QUALITY = 85
_LOWER_QUALITIES = (QUALITY, 70, 50)
_EXIF = b'Exif\x00\x00'
_HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class SentImage:
    """One frame as it is sent.

    Attributes:
        jpeg: The file.
        width: Of the frame as it came, pixels.
        height: Likewise.
        is_untouched: The camera's own bytes.
    """

    jpeg: bytes = field(repr=False)
    width: int
    height: int
    is_untouched: bool = False

    @property
    def url(self) -> str:
        """It as a data URL."""
        return 'data:image/jpeg;base64,' + base64.b64encode(self.jpeg).decode('ascii')

    @property
    def url_bytes(self) -> int:
        """Bytes of the data URL."""
        return 23 + (len(self.jpeg) + 2) // 3 * 4


def encode_frame(stored: StoredFrame, max_side: int, max_bytes: int) -> SentImage:
    """Make a frame ready to be sent.

    A camera's JPEG that is small enough goes as it came; all else is decoded, shrunk and
    compressed. So is a JPEG with EXIF data: servers do not turn it, and it may say where it was
    taken.

    Args:
        stored: As it came; left unchanged.
        max_side: Longer side of what is sent, pixels.
        max_bytes: Of what is sent.

    Raises:
        BadImageError: It cannot be decoded, or does not become small enough.
    """
    untouched = _untouched(stored, max_side, max_bytes)
    if untouched is not None:
        return untouched
    pixels = decode_frame(stored).pixels
    height, width = pixels.shape[:2]
    scale = min(1.0, max_side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    bgr = cv2.cvtColor(resize_fast(pixels, *size), cv2.COLOR_RGB2BGR)
    jpeg = b''
    for quality in _LOWER_QUALITIES:
        _, encoded = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        jpeg = np.asarray(encoded).tobytes()
        if len(jpeg) <= max_bytes:
            return SentImage(jpeg, width, height)
    raise BadImageError(
        f'an image of {size[0]}x{size[1]} px has {len(jpeg)} bytes, max_image_kb allows '
        f'{max_bytes}; a smaller max_side makes it smaller'
    )


def _untouched(stored: StoredFrame, max_side: int, max_bytes: int) -> SentImage | None:
    """Return a camera's own JPEG, if a server may be sent it."""
    image = stored.image
    if not isinstance(image, CompressedImage) or image.nbytes > max_bytes:
        return None
    encoding = colour_encoding(image).lower().rstrip('0123456789')
    data = bytes_of(image.data).tobytes()
    header = read_header(data)
    if header.kind != 'JPEG' or header.bits != 8 or encoding in BAYER_CODES:
        return None
    check_size(header.width, header.height)
    header.check_whole(len(data))
    if max(header.width, header.height) > max_side or _EXIF in data[:_HEAD_BYTES]:
        return None
    return SentImage(data, header.width, header.height, is_untouched=True)
