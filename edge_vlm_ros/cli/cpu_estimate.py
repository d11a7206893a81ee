"""What a model of the CPU is going to cost on this machine, before it is there: an estimate.

Measured are a product of matrices that one core makes alone, whose speed is that of arithmetic,
and a look at a large table, whose speed is that of memory. A tile and a prompt are many of the
first, shared by the cores; an answer's token reads every weight once. Both are of float32: 8-bit
files, where the CPU has instructions for them, are about twice as fast (SmolVLM-256M with random
weights, x86 with VNNI).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from edge_vlm_ros.models.catalogue import ModelWork

HOW: Final = 'estimated in float32 from a matrix product and a memory read, measured just now'
_SIDE: Final = 72
"""Below 2^19 multiplications OpenBLAS uses one thread; with more, busy cores spoil the figure."""
_TABLE: Final = 1 << 24
_RUNS: Final = 5
_MEASURED_S: Final = 0.2
_WORDS: Final = 26
"""Tokens of a short question and what stands around it."""


@dataclass(frozen=True, slots=True)
class MachineSpeed:
    """How fast this process may compute.

    Attributes:
        arithmetic: Multiplications a second of large products.
        reading: Multiplications a second where each weight is read for one of them.
    """

    arithmetic: float
    reading: float


@dataclass(frozen=True, slots=True)
class CpuEstimate:
    """What a model is expected to take.

    Attributes:
        first_word_s: From a frame of one tile and a short question to the answer's first word.
        tile_s: Each tile more.
        tokens_per_s: Of the answer.
    """

    first_word_s: float
    tile_s: float
    tokens_per_s: float

    def __str__(self) -> str:
        return (
            f'first word after {self.first_word_s:.1f} s with one tile, each more '
            f'{self.tile_s:.1f} s, then {self.tokens_per_s:.0f} tokens/s'
        )


@cache
def measure_speed() -> MachineSpeed:
    """Measure for less than half a second, once a process."""
    square = np.ones((_SIDE, _SIDE), np.float32)
    table = np.ones(_TABLE, np.float32)
    cores = len(os.sched_getaffinity(0))
    return MachineSpeed(
        arithmetic=cores * _SIDE**3 / _fastest_s(lambda: square @ square),
        reading=_TABLE / _fastest_s(table.max),
    )


def estimate(work: ModelWork, speed: MachineSpeed) -> CpuEstimate:
    """Say what a model is expected to take."""
    attention = 2 * work.patches**2 * work.tower_width * work.tower_layers
    tower_s = (work.tower_weights * 1e6 * work.patches + attention) / speed.arithmetic
    token_s = work.language_weights * 1e6 / speed.arithmetic
    tile_s = tower_s + work.tile_tokens * token_s
    return CpuEstimate(
        first_word_s=tile_s + _WORDS * token_s,
        tile_s=tile_s,
        tokens_per_s=speed.reading / (work.language_weights * 1e6),
    )


def _fastest_s(product: Callable[[], object]) -> float:
    """Return the least of many runs: what else the machine does makes them slower only."""
    best, runs = float('inf'), 0
    end = time.perf_counter() + _MEASURED_S
    while runs < _RUNS or time.perf_counter() < end:
        started = time.perf_counter()
        product()
        best, runs = min(best, time.perf_counter() - started), runs + 1
    return max(best, 1e-9)
