"""What the vision tower takes and gives, and how it joins the text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core.frames import ShownAs


@dataclass(frozen=True, slots=True)
class VisionInputs:
    """One image, ready for the vision tower: a frame, or neighbouring frames of a clip in one.

    Attributes:
        pixels: float32, normalised, C-contiguous. InternVL: (tiles, 3, tile_px, tile_px), the
            thumbnail last when there is more than one tile. Qwen2-VL: (patches, 1176), in the
            order of `vision.patches.cut_patches`. Llama 3.2 Vision: (max_tiles, 3, tile_px,
            tile_px), row by row, tiles of zeros after those that `grid` tells of.
        grid: InternVL: (tiles, rows, columns) of the tiling. Qwen2-VL: (pairs, rows, columns) in
            patches, one pair for an image, more for frames of a clip. Llama 3.2 Vision: (1, rows,
            columns) in tiles; `vision.canvas` makes aspect ratio id and mask of it.
        tokens: Placeholders this image takes in the prompt; 0 when it is cross-attended.
        clip: Which clip it is a moment of; neighbours in a prompt that name the same clip are
            shown as one video by families that know videos. '' = an image of its own.
        images: How many it counts against `EngineLimits.max_images`: tiles, where each goes
            through the vision tower by itself; pairs of frames of a clip; 1 where all is one
            image.
        shown_as: What it was made for: families word an image among others as one of several,
            even where it is the only one so far, so that a prompt with one more begins with it.
        stamps_ns: When the frames of a clip in it were taken (`Frame.stamp_ns`), oldest first, for
            families that tell the model; () where it is no clip.
        table_side: Rows, and columns, of the position embeddings that the vision tower stretches
            to an image's grid (Qwen3-VL); 0 = it has none that are stretched.
    """

    pixels: NDArray[np.float32] = field(repr=False)
    grid: tuple[int, int, int]
    tokens: int
    clip: str = ''
    images: int = 1
    shown_as: ShownAs = ShownAs.ALONE
    stamps_ns: tuple[int, ...] = ()
    table_side: int = 0


@dataclass(frozen=True, slots=True)
class Spliced:
    """Features that take the place of placeholder tokens (InternVL, Qwen2-VL, Qwen3-VL).

    Attributes:
        rows: (tokens, hidden), float32 or the engine's own dtype; owned by this object.
        deepstack: As `rows`, of earlier layers of the vision tower: the i-th is added to the
            hidden states of the same tokens after decoder layer i (Qwen3-VL). As many as
            `EngineLimits.deepstack_layers`.
    """

    rows: NDArray[np.generic] = field(repr=False)
    deepstack: tuple[NDArray[np.generic], ...] = field(default=(), repr=False)

    @property
    def tokens(self) -> int:
        """How many placeholders these features fill."""
        return int(self.rows.shape[0])

    @property
    def nbytes(self) -> int:
        """Host memory that is kept."""
        return sum(int(rows.nbytes) for rows in (self.rows, *self.deepstack))


@dataclass(frozen=True, slots=True)
class CrossAttended:
    """Features that the language model attends to from its own layers (Llama 3.2 Vision).

    Attributes:
        states: (rows, hidden), float32 or the engine's own dtype; owned by this object. Tile by
            tile, padding tiles last.
        rows_used: Rows that hold image tiles (tiles times rows of one tile); the rest is padding,
            which no text attends to.
    """

    states: NDArray[np.generic] = field(repr=False)
    rows_used: int

    @property
    def tokens(self) -> int:
        """How many placeholders these features fill: none."""
        return 0

    @property
    def nbytes(self) -> int:
        """Host memory that is kept."""
        return int(self.states.nbytes)


VisionFeatures: TypeAlias = 'Spliced | CrossAttended'
