"""The pictures of the golden tests, and what is kept of what a processor makes of them.

Whole arrays would be megabytes, so each is kept as its shape, the mean of each row (a patch; a
line of a tile), the mean of each column, and every 997th value: a wrong order of axes, of patches
or of channels changes all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

STRIDE = 997
QWEN_OPENING = '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n'
QWEN_QUESTION = 'What do you see?'
QWEN_CLOSING = '<|im_end|>\n<|im_start|>assistant\n'
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


@dataclass(frozen=True, slots=True)
class Shown:
    """An image, or a clip of several frames, of a size that needs no resizing.

    Attributes:
        width: Pixels.
        height: Pixels.
        frames: Of the clip; 0 = an image.
        fps: Frames a second.
    """

    width: int
    height: int
    frames: int = 0
    fps: float = 1.0

    def pictures(self) -> list[NDArray[np.uint8]]:
        """Draw the image, or the frames of the clip."""
        return [picture(self.width, self.height, seed) for seed in range(self.frames or 1)]


# No clip lasts longer than its sides are long in tokens: there transformers 4 and 5 disagree
# about where the text behind it stands.
QWEN2_5_VL_PROMPTS = (
    (Shown(84, 56),),
    (Shown(84, 56), Shown(56, 112)),
    (Shown(280, 56, 8, 2.0),),
    (Shown(280, 56, 6, 1.0),),
    (Shown(280, 56, 5, 4.0),),
    (Shown(280, 56, 4, 0.5),),
    (Shown(280, 56, 6, 1.5),),
    (Shown(280, 56, 6, 3.0),),
    (Shown(280, 56, 9, 5.0),),
    (Shown(56, 84), Shown(280, 56, 4, 1.0), Shown(84, 56)),
    (Shown(280, 56, 4, 1.0), Shown(280, 84, 6, 2.0)),
)
WINDOW_GRIDS = (
    # moments, rows and columns of patches
    (1, 2, 2),
    (1, 8, 8),
    (1, 16, 24),
    (1, 10, 14),
    (1, 2, 40),
    (1, 34, 46),
    (3, 6, 20),
    (4, 18, 10),
)
QWEN3_VL_OPENING = '<|im_start|>user\n'
QWEN3_VL_PROMPTS = (
    (Shown(96, 64),),
    (Shown(96, 64), Shown(64, 128)),
    (Shown(160, 64, 8, 2.0),),
    (Shown(96, 64, 5, 1.0),),
    (Shown(64, 96, 4, 0.1),),
    (Shown(64, 64, 6, 3.0),),
    (Shown(64, 96), Shown(128, 64, 4, 1.0), Shown(96, 64)),
    (Shown(64, 64, 2, 1.0), Shown(96, 64, 4, 2.0)),
)
TABLE_GRIDS = (
    # rows and columns of patches, side of the table
    (2, 2, 48),
    (24, 24, 48),
    (48, 48, 48),
    (30, 40, 48),
    (96, 10, 48),
    (4, 6, 6),
    (6, 6, 6),
    (2, 4, 1),
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
