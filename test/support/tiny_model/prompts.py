"""Random prompts, and greedy runs of them on any engine; for tests and measurements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import (
    PromptPart,
    SamplingOptions,
    VisionFeatures,
    VisionInputs,
    VisionSpan,
)
from edge_vlm_ros.engines import Engine, Logits


def random_inputs(seed: int, *, px: int, rows: int, tiles: int = 1) -> VisionInputs:
    """Draw pixels as a family would normalise them; `rows` is what all tiles give together."""
    pixels = np.random.default_rng(seed).normal(size=(tiles, 3, px, px)).astype(np.float32)
    return VisionInputs(pixels, (tiles, 1, 1), rows)


def random_prompt(
    seed: int, *, images: int, rows: int, placeholder: int, words: int = 12
) -> PromptPart:
    """Draw words, `images` images of `rows` placeholders with words between, and words again.

    Words have ids below `placeholder`.
    """
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, placeholder, words).tolist()
    spans = []
    for image in range(images):
        spans.append(VisionSpan(image, len(tokens), len(tokens) + rows))
        tokens += [placeholder] * rows + rng.integers(0, placeholder, 3).tolist()
    tokens += rng.integers(0, placeholder, words).tolist()
    count = len(tokens)
    positions = np.arange(count, dtype=np.int64)
    return PromptPart(np.array(tokens, np.int64), positions, count, tuple(spans))


def moved(part: PromptPart, offset: int) -> PromptPart:
    """Give the same words `offset` positions later."""
    return PromptPart(part.tokens, part.positions + offset, part.next_position + offset)


def prefill_in_cuts(
    engine: Engine,
    part: PromptPart,
    features: Mapping[int, VisionFeatures],
    cuts: Iterable[int] = (),
) -> None:
    """Prefill a part, cut at the given places and wherever the engine's chunk ends."""
    edges = sorted({0, *(cut for cut in cuts if 0 < cut < len(part)), len(part)})
    for start, stop in pairwise(edges):
        step = engine.limits.prefill_chunk or stop - start
        for low in range(start, stop, step):
            engine.prefill(part.slice(low, min(low + step, stop)), features)


def scores(engine: Engine) -> NDArray[np.float32]:
    """Copy the next token's scores."""
    found = engine.next_token(SamplingOptions())
    assert isinstance(found, Logits)
    values: NDArray[np.float32] = found.values.copy()
    return values


def decode_greedily(
    engine: Engine, position: int, count: int
) -> tuple[list[int], NDArray[np.float32]]:
    """Decode `count` tokens; return them and the scores (count, vocabulary) they came from."""
    tokens: list[int] = []
    rows: list[NDArray[np.float32]] = []
    for place in range(position, position + count):
        rows.append(scores(engine))
        tokens.append(int(rows[-1].argmax()))
        engine.decode(tokens[-1], place)
    return tokens, np.stack(rows)
