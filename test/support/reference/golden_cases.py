"""The pictures of the golden tests, and what is kept of what a processor makes of them.

Whole arrays would be megabytes, so each is kept as its shape, the mean of each row (a patch; a
line of a tile), the mean of each column, and every 997th value: a wrong order of axes, of patches
or of channels changes all of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

STRIDE = 997
CLIP = {'mean': [0.48145466, 0.4578275, 0.40821073], 'std': [0.26862954, 0.26130258, 0.27577711]}

QWEN2_VL_IMAGES = (
    # width, height, min_pixels, max_pixels
    (640, 480, 3136, 12845056),
    (1920, 1080, 3136, 602112),
    (333, 77, 3136, 12845056),
    (20, 15, 3136, 12845056),
    (42, 70, 3136, 12845056),  # halves of 28: rounded to even
    (50, 900, 3136, 50176),
    (112, 112, 100352, 200704),
    (1400, 30, 3136, 12845056),
)
QWEN2_VL_VIDEOS = (
    # frames, width, height: sizes that need no resizing, for videos are resized by torchvision
    (2, 56, 84),
    (4, 140, 112),
    (5, 84, 56),
)
MLLAMA_IMAGES = (
    # width, height, tile
    (640, 480, 560),
    (1920, 1080, 560),
    (333, 200, 56),
    (20, 10, 56),
    (100, 400, 56),
    (57, 57, 56),
    (1000, 30, 56),
    (56, 112, 56),
    (1, 300, 56),
    (112, 56, 56),
    (113, 57, 56),
)


def summary(pixels: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Shorten an array to what tells it from any other."""
    flat = pixels.reshape(-1, pixels.shape[-1])
    return {
        'shape': np.array(pixels.shape),
        'rows': flat.mean(axis=1, dtype=np.float64).astype(np.float32)[:: 1 + len(flat) // 4000],
        'columns': flat.mean(axis=0, dtype=np.float64).astype(np.float32),
        'samples': pixels.reshape(-1)[::STRIDE].copy(),
    }


def picture(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """Draw a gradient with hard-edged rectangles and some noise.

    The same on every machine: whole numbers only.

    Args:
        width: Pixels.
        height: Pixels.
        seed: Another picture.

    Returns:
        uint8, (height, width, 3).
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    shades = [rows * 190 // height, columns * 190 // width, (rows + columns) % 190]
    pixels = np.stack(shades, axis=-1) + 30
    for _ in range(8):
        top, left = rng.integers(0, height), rng.integers(0, width)
        colour = rng.integers(0, 256, 3)
        pixels[top : top + height // 4 + 1, left : left + width // 5 + 1] = colour
    noise = rng.integers(-6, 7, pixels.shape)
    clipped: NDArray[np.uint8] = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    return clipped
