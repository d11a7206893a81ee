"""Prompts with pictures, and greedy answers of an engine that plans its own pieces."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_vlm_ros.core import PromptPart, VisionFeatures, VisionInputs
from edge_vlm_ros.engines import Engine
from support.axera.sets import DEVIATION, MEAN
from support.tiny_model.prompts import decode_greedily


def picture(seed: int, *, px: int = 56, rows: int = 4) -> VisionInputs:
    """Draw one tile as a family would make it of 8-bit pixels: (1, 3, px, px), normalised."""
    drawn = np.random.default_rng(seed).integers(0, 256, (px, px, 3))
    scaled = (drawn.astype(np.float32) / 255 - MEAN) / DEVIATION
    pixels = np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], np.float32)
    return VisionInputs(pixels, (1, 1, 1), rows)


def prefill_as_planned(
    engine: Engine, part: PromptPart, features: Mapping[int, VisionFeatures] | None = None
) -> None:
    """Append a part in the pieces that the engine plans."""
    pieces = engine.plan_prefill(len(part))
    assert sum(pieces) == len(part), (pieces, len(part))
    start = 0
    for piece in pieces:
        engine.prefill(part.slice(start, start + piece), features or {})
        start += piece


def answer(
    engine: Engine,
    part: PromptPart,
    features: Mapping[int, VisionFeatures] | None = None,
    count: int = 3,
) -> tuple[list[int], np.ndarray]:
    """Append a part and answer greedily.

    Returns:
        The tokens, all of them appended, and the scores (count, vocabulary) they came from.
    """
    prefill_as_planned(engine, part, features)
    return decode_greedily(engine, part.next_position, count)
