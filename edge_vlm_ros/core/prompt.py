"""Prompts: token ids, positions, and where the frames come in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

TokenIds: TypeAlias = NDArray[np.int64]
"""int64, (tokens,)."""

Positions: TypeAlias = NDArray[np.int64]
"""int64, (tokens,), or (3, tokens) for M-RoPE (time, height, width)."""


@dataclass(frozen=True, slots=True)
class VisionSpan:
    """Where one image stands in a prompt part: the interval [start, stop).

    Of spliced images, the placeholders that rows of its features take the place of. Of
    cross-attended images (`VisionInputs.tokens` is 0), the one token that stands for it: this
    token and all that follow, up to the next image's, attend to the image (images side by side are
    attended to together); tokens before the first one attend to none. So an engine that appends a
    part with such a span at `start` attends to `image` from there on, in later parts and answer
    tokens too, until it is truncated to `start` or less. Source: huggingface/transformers,
    processing_mllama.py, get_cross_attention_token_mask.

    Attributes:
        image: Index into the images of the conversation, oldest first.
        start: First token, counted from the part's first token.
        stop: One past the last token.
        first_row: The feature row at `start`; above 0 where a part was cut inside an image.
    """

    image: int
    start: int
    stop: int
    first_row: int = 0

    def __len__(self) -> int:
        return self.stop - self.start

    def clip(self, start: int, stop: int) -> VisionSpan | None:
        """Return what of this span lies in [start, stop), counted from `start`; None = nothing."""
        low, high = max(self.start, start), min(self.stop, stop)
        if low >= high:
            return None
        row = self.first_row + low - self.start
        return VisionSpan(self.image, low - start, high - start, row)


@dataclass(frozen=True, slots=True)
class PromptPart:
    """A run of prompt tokens that follows what the KV cache already holds.

    Attributes:
        tokens: int64, (tokens,); placeholders stand where features are spliced in.
        positions: int64, (tokens,) or (3, tokens).
        next_position: Position of the token after the last one. Data, not the length: with M-RoPE
            an image takes fewer positions than tokens.
        spans: Vision spans inside this part, in order.
    """

    tokens: TokenIds = field(repr=False)
    positions: Positions = field(repr=False)
    next_position: int
    spans: tuple[VisionSpan, ...] = ()

    def __post_init__(self) -> None:
        assert self.tokens.ndim == 1, self.tokens.shape
        assert self.positions.shape[-1] == len(self.tokens), self.positions.shape

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def vision_tokens(self) -> int:
        """How many tokens of this part stand for images."""
        return sum(len(span) for span in self.spans)

    def slice(self, start: int, stop: int) -> PromptPart:
        """Return the tokens [start, stop) as a part of their own, vision spans cut to fit."""
        stop = min(stop, len(self))
        spans = (span.clip(start, stop) for span in self.spans)
        is_end = stop == len(self)
        after = self.next_position if is_end else int(self.positions[..., stop].max())
        return PromptPart(
            tokens=self.tokens[start:stop],
            positions=self.positions[..., start:stop],
            next_position=after,
            spans=tuple(span for span in spans if span is not None),
        )


def text_part(token_ids: Iterable[int], first_position: int) -> PromptPart:
    """Make a part of plain text whose positions count up from `first_position`."""
    tokens = np.fromiter(token_ids, dtype=np.int64)
    stop = first_position + len(tokens)
    return PromptPart(tokens, np.arange(first_position, stop, dtype=np.int64), stop)


def join_parts(parts: Iterable[PromptPart]) -> PromptPart:
    """Join parts that follow each other; their positions must already do so."""
    listed = list(parts)
    if not listed:
        return text_part((), 0)
    spans: list[VisionSpan] = []
    offset = 0
    for part in listed:
        spans += [
            replace(span, start=span.start + offset, stop=span.stop + offset)
            for span in part.spans
        ]
        offset += len(part)
    return PromptPart(
        tokens=np.concatenate([part.tokens for part in listed]),
        positions=np.concatenate([part.positions for part in listed], axis=-1),
        next_position=listed[-1].next_position,
        spans=tuple(spans),
    )
