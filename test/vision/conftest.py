"""Test pictures of the kinds that resizing treats differently. Seeded, so always the same."""

from __future__ import annotations

import cv2
import numpy as np
import pytest


@pytest.fixture(scope='session')
def picture():
    """Give the function that draws: picture(kind, width, height), kinds as in `_draw`."""
    return _draw


def _draw(kind: str, width: int, height: int) -> np.ndarray:
    """Draw one picture (scene, text, noise or gradient), uint8, (height, width, 3)."""
    random = np.random.default_rng(width * 10_007 + height)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    ramp = np.stack([255 * x / width, 255 * y / height, 255 * (x + y) / (width + height)], axis=-1)
    if kind == 'gradient':
        return ramp.astype(np.uint8)
    if kind == 'noise':
        return random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == 'text':
        return _text(width, height, random)
    return _scene(ramp, random)


def _text(width: int, height: int, random: np.random.Generator) -> np.ndarray:
    """Black glyphs of 5x7 px on white: the hardest picture for a resize without antialiasing.

    Glyphs are made of random strokes, because OpenCV's own fonts differ between versions.
    """
    alphabet = np.zeros((40, 10, 7), bool)
    alphabet[:, 1:8, 1:6] = random.random((40, 7, 5)) < 0.4
    alphabet[0] = False
    chosen = random.integers(0, 40, (height // 10 + 1, width // 7 + 1))
    ink = alphabet[chosen].swapaxes(1, 2).reshape(10 * chosen.shape[0], 7 * chosen.shape[1])
    page = np.where(ink[:height, :width, None], 0, 255)
    return np.repeat(page, 3, axis=2).astype(np.uint8)


def _scene(ramp: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Shaded things with sharp outlines, a lens's softness, a sensor's noise."""
    height, width = ramp.shape[:2]
    image = (0.5 * ramp + 60).astype(np.uint8)
    for _ in range(40):
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        centre = (int(random.integers(0, width)), int(random.integers(0, height)))
        size = int(random.integers(3, max(4, width // 8)))
        if random.random() < 0.5:
            cv2.circle(image, centre, size, colour, -1)
        else:
            cv2.rectangle(image, centre, (centre[0] + size, centre[1] + size // 2), colour, -1)
    soft = cv2.GaussianBlur(image, (0, 0), 0.8).astype(np.float32)
    return np.clip(soft + random.normal(0, 3, soft.shape), 0, 255).astype(np.uint8)
