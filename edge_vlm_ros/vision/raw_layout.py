"""How the encodings of `sensor_msgs/Image` lie in memory, and whether an image holds its own.

Free of OpenCV and of numpy's work: a ROS node looks at each frame that comes, and decodes none.

Source: sensor_msgs/image_encodings.hpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_vlm_ros.core import BadImageError
from edge_vlm_ros.vision.limits import DEPTH_ENCODINGS, check_size

if TYPE_CHECKING:
    from edge_vlm_ros.core import RawImage


@dataclass(frozen=True, slots=True)
class RawLayout:
    """How an encoding lies in memory.

    Attributes:
        pixel_bytes: Of one pixel in a row.
        is_paired: Two pixels of a row share their colour: the width must be even.
        is_planar: Rows of luma are followed by half as many of colour: the height must be even.
    """

    pixel_bytes: int
    is_paired: bool = False
    is_planar: bool = False

    def rows(self, height: int) -> int:
        """Rows in memory, colour rows too."""
        return height * 3 // 2 if self.is_planar else height


_BAYER = ('bayer_bggr', 'bayer_gbrg', 'bayer_grbg', 'bayer_rggb')
_PAIRED = RawLayout(2, is_paired=True)
_PLANAR = RawLayout(1, is_paired=True, is_planar=True)

RAW_LAYOUTS = {
    '8UC1': RawLayout(1),
    '8UC3': RawLayout(3),
    '8UC4': RawLayout(4),
    '16UC3': RawLayout(6),
    '16UC4': RawLayout(8),
    **{f'{name}8': RawLayout(1) for name in _BAYER},
    **{f'{name}16': RawLayout(2) for name in _BAYER},
    'bgr16': RawLayout(6),
    'bgr8': RawLayout(3),
    'bgra16': RawLayout(8),
    'bgra8': RawLayout(4),
    'mono16': RawLayout(2),
    'mono8': RawLayout(1),
    'nv12': _PLANAR,
    'nv21': _PLANAR,
    'rgb16': RawLayout(6),
    'rgb8': RawLayout(3),
    'rgba16': RawLayout(8),
    'rgba8': RawLayout(4),
    'uyvy': _PAIRED,
    'yuv422': _PAIRED,
    'yuv422_yuy2': _PAIRED,
    'yuyv': _PAIRED,
}

SUPPORTED_ENCODINGS = frozenset(RAW_LAYOUTS)
"""Encodings of `sensor_msgs/Image` that `decode_image` takes, as ROS spells them."""


def encoding_of(image: RawImage) -> str:
    """Return the encoding under which an image is to be read: its own, or brightness.

    Raises:
        BadImageError: It is not supported, or holds distances and nobody gave their range.
    """
    name = image.encoding
    if name in RAW_LAYOUTS:
        return name
    if name == '16UC1' and image.range16 != (0, 0):
        return 'mono16'  # the user says what is black and what is white
    if name in DEPTH_ENCODINGS:
        raise BadImageError(
            f'encoding {name!r} holds distances or raw numbers, not colours; '
            'use the colour topic of the camera, or publish a coloured image of it'
        )
    raise BadImageError(
        f'encoding {name!r} is not supported; supported: {", ".join(sorted(RAW_LAYOUTS))}'
    )


def check_layout(image: RawImage) -> RawLayout:
    """Check that an image holds the pixels that it claims; costs no look at them.

    Raises:
        BadImageError: Unknown encoding, no pixels, more than `MAX_PIXELS`, an odd side where two
            pixels share a colour, a step or data too short.
    """
    layout = RAW_LAYOUTS[encoding_of(image)]
    width, height, step = image.width, image.height, image.step
    check_size(width, height)
    if layout.is_paired and width % 2:
        raise BadImageError(f'{image.encoding} needs an even width, not {width}')
    if layout.is_planar and height % 2:
        raise BadImageError(f'{image.encoding} needs an even height, not {height}')
    row_bytes = width * layout.pixel_bytes
    if step < row_bytes:
        raise BadImageError(
            f'step is {step} bytes, but a row of {width} px in {image.encoding} takes {row_bytes}'
        )
    # Some drivers leave the padding of the last row away.
    needed = step * (layout.rows(height) - 1) + row_bytes
    if image.nbytes < needed:
        raise BadImageError(
            f'data has {image.nbytes} bytes, but {width}x{height} px in {image.encoding} '
            f'with a step of {step} bytes take {needed}'
        )
    return layout
