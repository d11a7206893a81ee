"""What a compressed image says of itself, checked before OpenCV sees a byte of it.

OpenCV decodes a truncated JPEG to a half-grey picture without a word, and a header of a few bytes
may claim gigapixels, in every format. So the format is told by the file's first bytes (never by a
name or a message's format string), its size is read here, and formats whose size cannot be read
here are refused by name.

Source: ITU-T T.81 (JPEG), annex B; libjpeg-turbo jdmarker.c, next_marker (stray bytes between
segments are skipped); W3C PNG, sections 5 and 11; RFC 9649 (WebP), sections 2.5 to 2.7; TIFF 6.0,
section 2, and the BigTIFF design of libtiff; ITU-T T.800 (JPEG 2000), annex A.5.1; CompuServe
GIF89a; netpbm, ppm(5); Microsoft BITMAPINFOHEADER.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edge_vlm_ros.core import BadImageError

READABLE = ('JPEG', 'PNG', 'WebP', 'TIFF', 'BMP', 'GIF', 'PNM', 'JPEG 2000')
"""The formats that are read, for messages."""

_JPEG_END = b'\xff\xd9'
# Start-of-frame markers carry the size; C4, C8 and CC are tables that share their range.
_JPEG_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN_MARKER = 0xDA
_JPEG_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a segment after them."""
_PNG_HEADER = struct.Struct('>8x4x4sIIBB')
_J2K_START = b'\xff\x4f\xff\x51'
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS = 256, 257, 258
_TIFF_PARTS = ((273, 279), (324, 325))
"""Tags of offsets and byte counts: of strips, of tiles."""
_TIFF_TYPES = {3: 'H', 4: 'I', 16: 'Q'}
_TIFF_MAX_VALUES = 2**16
_PNM = re.compile(rb'P[1-6](?:\s|#[^\n]*\n)+(\d{1,10})(?:\s|#[^\n]*\n)+(\d{1,10})\s')


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an image file's header says.

    Attributes:
        kind: 'JPEG', 'PNG', ...
        width: Pixels in a row.
        height: Rows.
        is_whole: Whether the file reaches to its end, as far as its format lets that be seen.
        bits: Of one channel of one pixel.
    """

    kind: str
    width: int
    height: int
    is_whole: bool = True
    bits: int = 8

    def check_whole(self, nbytes: int) -> None:
        """Refuse a file that does not reach to its end.

        Args:
            nbytes: Of the file.

        Raises:
            BadImageError: It is cut.
        """
        if not self.is_whole:
            raise BadImageError(
                f'the {self.kind} file is truncated: no end mark in its {nbytes} bytes'
            )


def read_header(data: bytes) -> ImageHeader:
    """Read what an image file says of itself; nothing is decoded.

    Args:
        data: The whole file.

    Raises:
        BadImageError: It is empty, in a format that is not read, or its header is damaged.
    """
    for start, (kind, read) in _READERS.items():
        if _begins(data, start):
            try:
                return read(data)
            except (struct.error, IndexError, ValueError) as error:
                raise BadImageError(
                    f'the {kind} file ends in its header, or that is damaged ({len(data)} bytes)'
                ) from error
    raise BadImageError(
        f'the data ({len(data)} bytes, starting {data[:4].hex()!r}) is '
        f'{_known_by_name(data)}; formats that are read: {", ".join(READABLE)}'
    )


def looks_like_image(start: bytes) -> bool:
    """Tell from a file's first 32 bytes whether it is an image in a format that is read."""
    return any(_begins(start, known) for known in _READERS)


def _begins(data: bytes, start: bytes) -> bool:
    # RIFF files are videos and sounds, too.
    return data.startswith(start) and (start != b'RIFF' or data[8:12] == b'WEBP')


def _known_by_name(data: bytes) -> str:
    if data[4:12] in {b'ftypavif', b'ftypavis'}:
        return 'an AVIF image, which is not read'
    if data.startswith((b'\x76\x2f\x31\x01', b'#?RADIANCE', b'#?RGBE', b'PF', b'Pf')):
        return 'an image of floating point numbers, which is not read'
    return 'no image file that is known'


# --- JPEG and PNG --------------------------------------------------------------------------------


def _jpeg(data: bytes) -> ImageHeader:
    size = None
    scan = len(data)
    for at, marker in _jpeg_segments(data):
        if marker in _JPEG_SIZE_MARKERS and at + 9 <= len(data):
            height, width = struct.unpack_from('>HH', data, at + 5)
            size = (width, height, data[at + 4])
        if marker == _JPEG_SCAN_MARKER:
            scan = at
    if size is None:
        raise BadImageError(f'the JPEG file ({len(data)} bytes) has no size in its header')
    width, height, bits = size
    return ImageHeader('JPEG', width, height, data.rfind(_JPEG_END) > scan, bits)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Give (place, marker) of each segment up to the first scan; stray bytes are skipped."""
    at = 2
    while True:
        at = data.find(b'\xff', at)
        if at < 0 or at + 4 > len(data):
            return
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0 or marker in _JPEG_BARE_MARKERS:
            at += 2
        else:
            yield at, marker
            if marker == _JPEG_SCAN_MARKER:
                return
            (length,) = struct.unpack_from('>H', data, at + 2)
            at += 2 + max(length, 2)


def _png(data: bytes) -> ImageHeader:
    name, width, height, bits, _ = _PNG_HEADER.unpack_from(data)
    if name != b'IHDR':
        raise BadImageError(f'the PNG header is damaged: {name!r} where IHDR belongs')
    return ImageHeader('PNG', width, height, data.rfind(b'IEND') > 0, bits)


# --- the others ----------------------------------------------------------------------------------


def _webp(data: bytes) -> ImageHeader:
    (size,) = struct.unpack_from('<I', data, 4)
    kind = data[12:16]
    if kind == b'VP8X':
        width = 1 + int.from_bytes(data[24:27], 'little')
        height = 1 + int.from_bytes(data[27:30], 'little')
    elif kind == b'VP8L':
        (packed,) = struct.unpack_from('<I', data, 21)
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    elif kind == b'VP8 ' and data[23:26] == b'\x9d\x01\x2a':
        width, height = (side & 0x3FFF for side in struct.unpack_from('<HH', data, 26))
    else:
        raise BadImageError(
            f'the RIFF file ({len(data)} bytes) is no WebP image: {data[8:16]!r} in its header'
        )
    return ImageHeader('WebP', width, height, size + 8 <= len(data))


def _bmp(data: bytes) -> ImageHeader:
    offset, header = struct.unpack_from('<II', data, 10)
    if header == 12:
        width, height, _, bits = struct.unpack_from('<HHHH', data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from('<iiHHI', data, 18)
    height = abs(height)  # negative: the first row is the top one
    needed = offset + (width * bits + 31) // 32 * 4 * height if compression == 0 else 0
    return ImageHeader('BMP', width, height, needed <= len(data))


def _gif(data: bytes) -> ImageHeader:
    width, height = struct.unpack_from('<HH', data, 6)
    return ImageHeader('GIF', width, height, data.rfind(b'\x3b') > 12)


def _pnm(data: bytes) -> ImageHeader:
    found = _PNM.match(data[:4096])
    if found is None:
        raise ValueError('no size')
    return ImageHeader('PNM', int(found[1]), int(found[2]))


def _jpeg_2000(data: bytes) -> ImageHeader:
    # The size that the decoder takes is that of the codestream, not the one in the box before it.
    at = data.find(_J2K_START)
    if at < 0:
        raise BadImageError(f'the JPEG 2000 file ({len(data)} bytes) holds no codestream')
    right, bottom, left, top = struct.unpack_from('>IIII', data, at + 8)
    bits = 1 + (data[at + 42] & 0x7F)
    return ImageHeader('JPEG 2000', right - left, bottom - top, data.rfind(_JPEG_END) > at, bits)


def _tiff(data: bytes) -> ImageHeader:
    tags = _TiffTags(data)
    width, height = tags.first(_TIFF_WIDTH), tags.first(_TIFF_HEIGHT)
    ends = [
        offset + count
        for offsets, counts in _TIFF_PARTS
        for offset, count in zip(tags.values(offsets), tags.values(counts), strict=False)
    ]
    bits = max(tags.values(_TIFF_BITS), default=1)
    return ImageHeader('TIFF', width, height, max(ends, default=0) <= len(data), bits)


class _TiffTags:
    """The entries of a TIFF file's first directory.

    Args:
        data: The whole file, classic TIFF or BigTIFF.

    Raises:
        struct.error: The directory does not lie in the file.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._order = '<' if data[:2] == b'II' else '>'
        is_big = data[2:4] in {b'+\x00', b'\x00+'}
        self._word = 'Q' if is_big else 'I'
        (at,) = self._unpack(self._word, 8 if is_big else 4)
        (count,) = self._unpack('Q' if is_big else 'H', at)
        at += 8 if is_big else 2
        entry, word_bytes = (20, 8) if is_big else (12, 4)
        self._entries: dict[int, tuple[int, int, int]] = {}
        for place in range(at, at + entry * min(count, 4096), entry):
            tag, kind, number = self._unpack(f'HH{self._word}', place)
            self._entries.setdefault(tag, (kind, number, place + entry - word_bytes))

    def first(self, tag: int) -> int:
        """Return the one value of a tag.

        Raises:
            ValueError: The tag is missing.
        """
        found = self.values(tag)
        if not found:
            raise ValueError(f'tag {tag} is missing')
        return found[0]

    def values(self, tag: int) -> list[int]:
        """Return the values of a tag; none where it is missing or of another type."""
        kind, number, place = self._entries.get(tag, (0, 0, 0))
        code = _TIFF_TYPES.get(kind)
        if code is None or not 0 < number <= _TIFF_MAX_VALUES:
            return []
        if struct.calcsize(f'={number}{code}') > struct.calcsize(f'={self._word}'):
            (place,) = self._unpack(self._word, place)
        return list(self._unpack(f'{number}{code}', place))

    def _unpack(self, form: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(f'{self._order}{form}', self._data, at)


_Reader = Callable[[bytes], ImageHeader]
_READERS: dict[bytes, tuple[str, _Reader]] = {
    b'\xff\xd8\xff': ('JPEG', _jpeg),
    b'\x89PNG\r\n\x1a\n': ('PNG', _png),
    b'RIFF': ('WebP', _webp),
    b'II*\x00': ('TIFF', _tiff),
    b'MM\x00*': ('TIFF', _tiff),
    b'II+\x00': ('TIFF', _tiff),
    b'MM\x00+': ('TIFF', _tiff),
    b'BM': ('BMP', _bmp),
    b'GIF87a': ('GIF', _gif),
    b'GIF89a': ('GIF', _gif),
    b'\x00\x00\x00\x0cjP  \r\n\x87\n': ('JPEG 2000', _jpeg_2000),
    _J2K_START: ('JPEG 2000', _jpeg_2000),
    **{b'P%d' % number: ('PNM', _pnm) for number in range(1, 7)},
}
