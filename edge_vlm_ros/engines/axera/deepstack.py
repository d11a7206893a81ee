"""Features that are added to an image's tokens after the first layers (Qwen3-VL's deepstack).

Nothing on the chip adds them: layers are files of their own, and between two of them the hidden
states of a chunk lie where the processor sees them. So the processor adds, for the rows from a
chunk's first image token to its last one, and words alone cost nothing.

Source: AXERA-TECH/Qwen3-VL.AXERA (python/infer_image.py), which adds in the same place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import PromptPart, VisionFeatures
from edge_vlm_ros.engines.bf16 import from_bf16, to_bf16
from edge_vlm_ros.engines.checks import deepstack_of


@dataclass(frozen=True, slots=True)
class Deepstack:
    """What is added to some tokens of a chunk.

    Attributes:
        start: The first of them, counted in the chunk.
        layers: bfloat16 bit patterns, (layers, tokens, hidden): the i-th after layer i; zeros at
            words between images.
    """

    start: int
    layers: NDArray[np.uint16] = field(repr=False)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def tokens(self) -> slice:
        """Rows of the chunk."""
        return slice(self.start, self.start + self.layers.shape[1])

    def only(self, token: int) -> Deepstack | None:
        """Return what is added to one token, for a run of it alone; None = nothing."""
        at = token - self.start
        if not 0 <= at < self.layers.shape[1]:
            return None
        return Deepstack(0, self.layers[:, at : at + 1])

    def add(self, layer: int, hidden: NDArray[np.uint16]) -> None:
        """Add to what a layer gave for these tokens, in place: bfloat16 bit patterns."""
        hidden[...] = to_bf16(from_bf16(hidden) + from_bf16(self.layers[layer]))


def deepstack_rows(
    piece: PromptPart, features: Mapping[int, VisionFeatures], layers: int, hidden: int
) -> Deepstack | None:
    """Gather what is added to a piece's tokens; None = nothing is.

    Args:
        piece: What one run takes.
        features: By `VisionSpan.image`; checked.
        layers: Decoder layers that something is added after.
        hidden: Width of the language model.
    """
    if not layers or not piece.spans:
        return None
    start, stop = piece.spans[0].start, piece.spans[-1].stop
    rows = np.zeros((layers, stop - start, hidden), np.uint16)
    for span in piece.spans:
        for layer, found in zip(rows, deepstack_of(span, features), strict=True):
            is_bits = found.dtype == np.uint16
            given = found if is_bits else to_bf16(found.astype(np.float32))
            layer[span.start - start : span.stop - start] = given
    return Deepstack(start, rows)
