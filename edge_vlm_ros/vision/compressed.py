"""JPEG and PNG to RGB, their headers read first.

OpenCV decodes a truncated JPEG to a half-grey picture without a word, and a header of a few bytes
may claim gigapixels: both are caught here before OpenCV sees the file.

Source: ITU-T T.81 (JPEG), annex B; W3C PNG, sections 5 and 11; image_transport's format strings:
ros-perception/image_transport_plugins, compressed_image_transport and
compressed_depth_image_transport.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import BadImageError
from edge_vlm_ros.vision.limits import DEPTH_ENCODINGS, check_size

if TYPE_CHECKING:
    from edge_vlm_ros.core import Buffer, CompressedImage, RgbImage

_JPEG_START = b'\xff\xd8\xff'
_JPEG_END = b'\xff\xd9'
_PNG_START = b'\x89PNG\r\n\x1a\n'
_PNG_END = b'IEND'
_PNG_HEADER = struct.Struct('>8x4x4sII')

# Start-of-frame markers carry the size; C4, C8 and CC are tables that share their range.
_JPEG_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN_MARKER = 0xDA
_JPEG_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a segment behind them."""


def decode_compressed(image: CompressedImage) -> RgbImage:
    """Decode a JPEG or PNG file to RGB; a rotation in its EXIF data is carried out.

    Returns:
        uint8, (H, W, 3), RGB; owned by the caller. 16-bit PNG is reduced to 8 bits, transparency
        is dropped.

    Raises:
        BadImageError: Empty, neither JPEG nor PNG, depth, too large, truncated or damaged.
    """
    # image_transport writes '<encoding>; jpeg compressed <encoding>', others just 'jpeg'.
    encoding, _, codec = image.format.partition(';')
    if 'compressedDepth' in codec or encoding.strip().upper() in DEPTH_ENCODINGS:
        raise BadImageError(
            f'format {image.format!r} holds distances, not colours; use the colour topic'
        )
    data = bytes_of(image.data).tobytes()
    if data.startswith(_JPEG_START):
        kind, size, is_whole = 'JPEG', *_jpeg_size(data)
    elif data.startswith(_PNG_START):
        kind, size, is_whole = 'PNG', *_png_size(data)
    else:
        raise BadImageError(
            f'the data ({len(data)} bytes, format {image.format!r}, starting {data[:4].hex()!r}) '
            'is neither JPEG nor PNG'
        )
    check_size(*size)
    if not is_whole:
        raise BadImageError(f'the {kind} file is truncated: no end mark in its {len(data)} bytes')
    return _decode(data, kind, size)


def bytes_of(data: Buffer) -> NDArray[np.uint8]:
    """View a message's data as bytes, uint8, (bytes,); copied only when it is a list of numbers.

    Raises:
        BadImageError: It is no buffer, and no list of numbers from 0 to 255 either.
    """
    try:
        view: NDArray[np.uint8] = np.frombuffer(data, np.uint8)  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):
        pass
    else:
        return view
    try:  # an empty buffer, or a plain list of numbers
        return np.frombuffer(bytes(data), np.uint8)
    except (TypeError, ValueError) as error:
        raise BadImageError(f'data is not made of bytes: {error}') from error


def _decode(data: bytes, kind: str, size: tuple[int, int]) -> RgbImage:
    what = f'the {kind} file ({len(data)} bytes, {size[0]}x{size[1]} px) is damaged'
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise BadImageError(f'{what}: {error}') from error
    if bgr is None:
        raise BadImageError(what)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _jpeg_size(data: bytes) -> tuple[tuple[int, int], bool]:
    """Return (width, height) and whether the end mark follows the first scan."""
    at = 2
    size = None
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise BadImageError(f'the JPEG header is damaged at byte {at} of {len(data)}')
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _JPEG_BARE_MARKERS:
            at += 2
            continue
        (length,) = struct.unpack_from('>H', data, at + 2)
        if marker in _JPEG_SIZE_MARKERS and at + 9 <= len(data):
            height, width = struct.unpack_from('>HH', data, at + 5)
            size = (width, height)
        if marker == _JPEG_SCAN_MARKER:
            break
        at += 2 + length
    if size is None:
        raise BadImageError(f'the JPEG file ({len(data)} bytes) has no size in its header')
    return size, data.rfind(_JPEG_END) > at


def _png_size(data: bytes) -> tuple[tuple[int, int], bool]:
    """Return (width, height) and whether the end chunk is there."""
    if len(data) < _PNG_HEADER.size:
        raise BadImageError(f'the PNG file ends in its header ({len(data)} bytes)')
    name, width, height = _PNG_HEADER.unpack_from(data)
    if name != b'IHDR':
        raise BadImageError(f'the PNG header is damaged: {name!r} where IHDR belongs')
    return (width, height), data.rfind(_PNG_END) > 0
