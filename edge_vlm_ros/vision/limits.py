"""What is accepted, and what is refused before a pixel is touched.

Free of OpenCV: a ROS node may ask what can be decoded without being able to decode.
"""

from __future__ import annotations

from edge_vlm_ros.core import BadImageError

MAX_PIXELS = 100_000_000
"""Largest image decoded, pixels: 300 MB of RGB. A header may claim far more in a few bytes."""

MAX_SIDE_PX = 16_384
"""Longest side decoded, pixels. Tables for resizing grow with the side, not with the area."""

MAX_ASPECT = 200
"""Longest side over shortest: a strip thinner than this shows a model nothing."""

DEPTH_ENCODINGS = frozenset({'16SC1', '16UC1', '32FC1', '32SC1', '64FC1'})
"""One channel of numbers that are not brightness: depth, disparity, temperature."""


def check_size(width_px: int, height_px: int) -> None:
    """Refuse an image without pixels, with too many, or in too thin a strip.

    Raises:
        BadImageError: A side below 1 or above `MAX_SIDE_PX`, more than `MAX_PIXELS` in all, or one
            side more than `MAX_ASPECT` times the other.
    """
    if width_px < 1 or height_px < 1:
        raise BadImageError(f'the image is {width_px}x{height_px} px; each side is at least 1')
    if width_px * height_px > MAX_PIXELS:
        raise BadImageError(
            f'the image is {width_px}x{height_px} px, that is {width_px * height_px} pixels; '
            f'the limit is {MAX_PIXELS}'
        )
    longest, shortest = max(width_px, height_px), min(width_px, height_px)
    if longest > MAX_SIDE_PX:
        raise BadImageError(
            f'the image is {width_px}x{height_px} px; a side has at most {MAX_SIDE_PX} px'
        )
    if longest > MAX_ASPECT * shortest:
        raise BadImageError(
            f'the image is {width_px}x{height_px} px; one side is at most {MAX_ASPECT} times as '
            'long as the other'
        )
