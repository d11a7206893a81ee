"""Words, boxes and points on pictures that people look at."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edge_vlm_ros.core import Detection, RgbImage

Colour: TypeAlias = 'tuple[int, int, int]'
"""Red, green, blue, of 255."""

INK: Colour = (236, 239, 244)
FAINT: Colour = (150, 160, 176)
PAPER: Colour = (34, 38, 46)
CARD: Colour = (46, 52, 64)
GOOD: Colour = (143, 212, 143)
BAD: Colour = (240, 120, 110)
ACCENT: Colour = (120, 190, 240)

_FONT = cv2.FONT_HERSHEY_DUPLEX
_SIDE_PX = 16
_SHORTEST_PX, _LONGEST_PX = 320, 960
_MARK: Colour = (255, 196, 60)


@dataclass(frozen=True, slots=True)
class Line:
    """One paragraph of a caption.

    Attributes:
        text: Any; see `plain`.
        colour: Of the letters.
        scale: Of the font.
        most: Lines that it may take when it is broken.
    """

    text: str
    colour: Colour = INK
    scale: float = 0.55
    most: int = 4


def plain(text: str) -> str:
    """Return a text in letters that OpenCV can draw: ASCII, no accents, '?' for any other."""
    spread = unicodedata.normalize('NFKD', text)
    bare = ''.join(letter for letter in spread if not unicodedata.combining(letter))
    return bare.encode('ascii', 'replace').decode()


def wrapped(text: str, scale: float, width_px: int) -> list[str]:
    """Break text into lines that fit; a single word that is too long stays whole."""
    lines: list[str] = []
    for word in text.split():
        longer = f'{lines[-1]} {word}' if lines else word
        if lines and _width(longer, scale) <= width_px:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def write(
    picture: NDArray[np.uint8], text: str, place: tuple[int, int], scale: float, colour: Colour
) -> None:
    """Write one line of text; `place` is where its first letter stands."""
    cv2.putText(picture, plain(text), place, _FONT, scale, colour, 1, cv2.LINE_AA)


def captioned(
    pixels: RgbImage, lines: Sequence[Line], marks: Sequence[Detection] = ()
) -> NDArray[np.uint8]:
    """Return a picture for people: a frame with marks on it and words below it.

    Args:
        pixels: The frame; shown 320 to 960 px wide. Left unchanged.
        lines: The words, from above.
        marks: Boxes and points in the frame's own pixels.

    Returns:
        uint8, (H, W, 3), RGB.
    """
    shown, scale = _sized(pixels)
    for mark in marks:
        _draw(shown, mark, scale)
    width = shown.shape[1]
    rows = [
        (text, line)
        for line in lines
        for text in wrapped(line.text, line.scale, width - 2 * _SIDE_PX)[: line.most]
    ]
    heights = [round(44 * line.scale) for _, line in rows]
    strip = np.full((sum(heights) + 2 * _SIDE_PX, width, 3), CARD, np.uint8)
    y = _SIDE_PX
    for (text, line), height in zip(rows, heights, strict=True):
        y += height
        write(strip, text, (_SIDE_PX, y - height // 4), line.scale, line.colour)
    return np.concatenate([shown, strip])


def _sized(pixels: RgbImage) -> tuple[NDArray[np.uint8], float]:
    """Return a copy of a frame in the size in which it is shown, and the scale."""
    height, width = pixels.shape[:2]
    scale = min(max(width, _SHORTEST_PX), _LONGEST_PX) / width
    size = (round(width * scale), max(1, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.array(cv2.resize(pixels, size, interpolation=method), np.uint8), scale


def _draw(picture: NDArray[np.uint8], mark: Detection, scale: float) -> None:
    left, upper = round(mark.x * scale), round(mark.y * scale)
    right, lower = round((mark.x + mark.width) * scale), round((mark.y + mark.height) * scale)
    if mark.width or mark.height:
        cv2.rectangle(picture, (left, upper), (right, lower), _MARK, 2, cv2.LINE_AA)
    else:
        cv2.circle(picture, (left, upper), 5, _MARK, -1, cv2.LINE_AA)
    if mark.label:
        write(picture, mark.label, (left + 3, max(upper - 5, 14)), 0.5, _MARK)


def _width(text: str, scale: float) -> int:
    return int(cv2.getTextSize(plain(text), _FONT, scale, 1)[0][0])
