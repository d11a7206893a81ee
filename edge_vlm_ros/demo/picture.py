"""One picture of the whole demo: each question beside the frames it was asked about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import RgbImage
from edge_vlm_ros.vision.captions import (
    ACCENT,
    BAD,
    CARD,
    FAINT,
    GOOD,
    INK,
    PAPER,
    wrapped,
    write,
)

_MARGIN = 24
_CARD_WIDTH = 640
_FRAME_HEIGHT = 480
_TEXT_HEIGHT = 196
_STRIP_HEIGHT = 60
_COLUMNS = 2


@dataclass(frozen=True, slots=True)
class Card:
    """One question, as the picture shows it.

    Attributes:
        frames: The frames used, oldest first, RGB; at least one.
        question: As asked.
        answer: As given.
        facts: One line of small print.
        good: Whether the answer is right.
    """

    frames: Sequence[RgbImage]
    question: str
    answer: str
    facts: str
    good: bool


def save_picture(path: Path, title: str, cards: Sequence[Card]) -> None:
    """Draw the cards two in a row and write them as a PNG.

    Raises:
        OSError: The file cannot be written.
    """
    rows = -(-len(cards) // _COLUMNS)
    columns = min(_COLUMNS, len(cards))
    card_height = _FRAME_HEIGHT + _TEXT_HEIGHT
    width = columns * (_CARD_WIDTH + _MARGIN) + _MARGIN
    height = 76 + rows * (card_height + _MARGIN)
    canvas = np.full((height, width, 3), PAPER, np.uint8)
    write(canvas, title, (_MARGIN, 50), 0.9, INK)
    for number, card in enumerate(cards):
        row, column = divmod(number, _COLUMNS)
        x = _MARGIN + column * (_CARD_WIDTH + _MARGIN)
        y = 76 + row * (card_height + _MARGIN)
        canvas[y : y + card_height, x : x + _CARD_WIDTH] = _draw(card)
    done, png = cv2.imencode('.png', cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR))
    assert done
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png.tobytes())


def _draw(card: Card) -> NDArray[np.uint8]:
    tile = np.full((_FRAME_HEIGHT + _TEXT_HEIGHT, _CARD_WIDTH, 3), CARD, np.uint8)
    tile[:_FRAME_HEIGHT] = _fit(card.frames[-1], _CARD_WIDTH, _FRAME_HEIGHT)
    if len(card.frames) > 1:
        _draw_strip(tile, card.frames)
    y = _FRAME_HEIGHT + 38
    for line in wrapped(card.question, 0.62, _CARD_WIDTH - 2 * _MARGIN)[:2]:
        write(tile, line, (_MARGIN, y), 0.62, ACCENT)
        y += 30
    y += 6
    for line in wrapped(card.answer or '(no answer)', 0.72, _CARD_WIDTH - 2 * _MARGIN)[:3]:
        write(tile, line, (_MARGIN, y), 0.72, INK)
        y += 32
    bottom = _FRAME_HEIGHT + _TEXT_HEIGHT - 16
    cv2.circle(tile, (_MARGIN + 6, bottom - 6), 7, GOOD if card.good else BAD, -1, cv2.LINE_AA)
    write(tile, card.facts, (_MARGIN + 24, bottom), 0.5, FAINT)
    return tile


def _draw_strip(tile: NDArray[np.uint8], frames: Sequence[RgbImage]) -> None:
    """Lay all frames of a clip along the lower edge of the newest one."""
    step = _CARD_WIDTH // len(frames)
    top = _FRAME_HEIGHT - _STRIP_HEIGHT - 2
    tile[top : top + _STRIP_HEIGHT + 2] = PAPER
    for number, frame in enumerate(frames):
        small = _fit(frame, step - 4, _STRIP_HEIGHT - 2)
        x = number * step + 2
        tile[top + 2 : top + _STRIP_HEIGHT, x : x + step - 4] = small


def _fit(image: RgbImage, width: int, height: int) -> NDArray[np.uint8]:
    """Resize to cover width x height, cut what is over."""
    scale = max(width / image.shape[1], height / image.shape[0])
    size = (
        max(width, round(image.shape[1] * scale)),
        max(height, round(image.shape[0] * scale)),
    )
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)
    x, y = (size[0] - width) // 2, (size[1] - height) // 2
    return scaled[y : y + height, x : x + width]
