"""What the vision tower takes and gives, and how it joins the text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class VisionInputs:
    """One frame, ready for the vision tower.

    Attributes:
        pixels: float32, normalised; the family says the layout, for InternVL
            (tiles, 3, tile_px, tile_px), the thumbnail last when there is more than one tile.
        grid: (time, height, width) in patches for Qwen2-VL, (tiles, rows, columns) of the tiling
            for the others.
        tokens: Placeholders this frame takes in the prompt; 0 when it is cross-attended.
    """

    pixels: NDArray[np.float32] = field(repr=False)
    grid: tuple[int, int, int]
    tokens: int


@dataclass(frozen=True, slots=True)
class Spliced:
    """Features that take the place of placeholder tokens (InternVL, Qwen2-VL).

    Attributes:
        rows: (tokens, hidden), float32 or the engine's own dtype; owned by this object.
    """

    rows: NDArray[np.generic] = field(repr=False)

    @property
    def tokens(self) -> int:
        """How many placeholders these features fill."""
        return int(self.rows.shape[0])


@dataclass(frozen=True, slots=True)
class CrossAttended:
    """Features that the language model attends to from its own layers (Llama 3.2 Vision).

    Attributes:
        states: (rows, hidden), float32 or the engine's own dtype; owned by this object.
        rows_used: Rows that hold image tiles; the rest is padding.
    """

    states: NDArray[np.generic] = field(repr=False)
    rows_used: int

    @property
    def tokens(self) -> int:
        """How many placeholders these features fill: none."""
        return 0


VisionFeatures: TypeAlias = 'Spliced | CrossAttended'
