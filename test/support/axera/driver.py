"""The backend in place, driven by hand: a tiny set, one text, and what its tokens must give."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace
from functools import cache
from types import FrameType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import ModelFiles
from edge_vlm_ros.engines.axera.chip import Chip
from edge_vlm_ros.engines.axera.in_place import InPlaceBackend
from edge_vlm_ros.engines.axera.rows import CopiedRows, DirectRows, RowWriterType
from edge_vlm_ros.engines.base import StopCheck, never
from support.axera import sets
from support.axera.layout import Layout
from support.axera.plain import embed, plain_logits, stack_shapes
from support.axera.weights import Weights, tiny_weights

WAYS: Final = (DirectRows, CopiedRows)
TOLERANCE: Final = 0.05  # of logits of +-10: one rounding to bfloat16 that falls the other way
# Caches that end inside the last chunk: its padding would run past them.
TIGHT: Final = replace(sets.NINE, histories=(0, 16, 32, 48), capacities=(55,))
LAYOUTS: Final = {**sets.TINY_LAYOUTS, 'tight': TIGHT}


@cache
def weights() -> Weights:
    """Make the tiny model's weights, once."""
    return tiny_weights()


@cache
def tokens() -> NDArray[np.int64]:
    """Draw the text, once."""
    return np.random.default_rng(3).integers(0, 256, 320)


@cache
def expected(count: int, step: int = 1) -> NDArray[np.float32]:
    """Give the logits after each of the first `count` tokens, without chunks and caches."""
    return plain_logits(weights(), embed(weights(), tokens()[::step][:count]))


class Driver:
    """Feeds the text to a backend, and to its second slot the text from its end.

    Chunks run the group with the shortest history that holds what is cached.

    Args:
        chip: Where.
        files: Of the set.
        layout: Of the set.
        rows: How new rows reach the caches.
    """

    def __init__(self, chip: Chip, files: ModelFiles, layout: Layout, rows: RowWriterType) -> None:
        self.shapes = stack_shapes(layout, weights())
        self.backend = InPlaceBackend(chip, files, self.shapes, rows)
        self.slot = 0
        self.lengths = [0, 0]

    def select(self, slot: int) -> None:
        """Turn to a slot."""
        self.backend.select(slot)
        self.slot = slot

    @property
    def length(self) -> int:
        """Tokens that the slot holds; set it to cut them."""
        return self.lengths[self.slot]

    @length.setter
    def length(self, length: int) -> None:
        self.lengths[self.slot] = length

    def words(self, start: int, stop: int) -> NDArray[np.int64]:
        """Give tokens of the slot's text."""
        return tokens()[:: (1, -1)[self.slot]][start:stop]

    def prefill(self, count: int, stop: StopCheck = never) -> None:
        """Append a chunk of so many tokens."""
        at = self.length
        group = next(g for g in self.shapes.prefill if g.history >= at)
        positions = np.arange(at, at + count, dtype=np.uint32)
        embeds = embed(weights(), self.words(at, at + count))
        self.backend.prefill(group, embeds, positions, at, stop)
        self.length += count

    def prefill_to(self, length: int) -> None:
        """Append chunks, and steps where no group has so much history."""
        chunk = self.shapes.prefill[0].chunk
        longest = self.shapes.prefill[-1].history
        while self.length < length and self.length <= longest:
            self.prefill(min(chunk, length - self.length))
        while self.length < length:
            self.step()

    def step(self) -> None:
        """Append one token."""
        at = self.length
        group = next(g for g in self.shapes.decode if g.capacity > at)
        embeds = embed(weights(), self.words(at, at + 1))
        self.backend.step(group, embeds[0], np.array([at], np.uint32), at)
        self.length += 1

    def check(self) -> NDArray[np.float32]:
        """Compare the logits of the last token with the model run at once; give them."""
        found, wanted = self.backend.head(), expected(self.length, (1, -1)[self.slot])[-1]
        assert np.isfinite(found).all()
        assert np.abs(found - wanted).max() < TOLERANCE
        assert found.argmax() == wanted.argmax()
        checked: NDArray[np.float32] = found.copy()
        return checked

    def close(self) -> None:
        """Free the chip's memory."""
        self.backend.close()


def everything(chip: Chip, files: ModelFiles, rows: RowWriterType) -> NDArray[np.float32]:
    """Take every path of a tight set; give all logits."""
    one = Driver(chip, files, TIGHT, rows)
    found = []
    with closing(one):
        for length in (16, 21, 27, 48, 54):  # whole, padded, overlapping, past the end
            one.prefill_to(length)
            found.append(one.backend.head().copy())
        one.step()
        found.append(one.backend.head().copy())
        one.length = 5  # the masks shrink
        one.step()
        found.append(one.backend.head().copy())
        one.prefill(9)
        found.append(one.backend.head().copy())
        one.step()
        found.append(one.backend.head().copy())
    return np.array(found)


def caller() -> str:
    """Name the lines of the package that asked for a flush or invalidate; of `take`, whose."""
    frame = sys._getframe(2)
    lines = [_line(frame)]
    if frame.f_code.co_name == 'take':
        lines.append(_line(frame.f_back))
    return ' < '.join(lines)


def _line(frame: FrameType | None) -> str:
    assert frame is not None
    code = frame.f_code
    return f'{code.co_filename.rsplit("/", 1)[-1]}:{code.co_name}:{frame.f_lineno}'
