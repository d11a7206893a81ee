"""Measuring two things side by side, so that a busy machine hurts both alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Pairs:
    """Durations of two things, measured in turn.

    Attributes:
        values_s: Of the thing itself, seconds.
        baselines_s: Of what it is measured against, seconds; the same number of them.
    """

    values_s: tuple[float, ...]
    baselines_s: tuple[float, ...]

    @property
    def value_s(self) -> float:
        """Median duration, seconds."""
        return median(self.values_s)

    @property
    def baseline_s(self) -> float:
        """Median duration of the baseline, seconds."""
        return median(self.baselines_s)

    @property
    def cost(self) -> float:
        """Median of value / baseline over the pairs: below 1 is faster than the baseline."""
        return median(v / b for v, b in zip(self.values_s, self.baselines_s, strict=True))

    @property
    def gain(self) -> float:
        """Median of baseline / value over the pairs: how many times faster than the baseline."""
        return median(b / v for v, b in zip(self.values_s, self.baselines_s, strict=True))


def seconds(work: Callable[[], object]) -> float:
    """Run once, return how long it took on the steady clock."""
    started_ns = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - started_ns) / 1e9


def in_turn(
    value: Callable[[], float], baseline: Callable[[], float], *, rounds: int, warm_up: int = 1
) -> Pairs:
    """Measure two things in turn; who goes first alternates.

    Args:
        value: Does the thing once, returns what is to be counted, seconds.
        baseline: The same for the baseline.
        rounds: Pairs that count.
        warm_up: Pairs before them that do not.
    """
    values: list[float] = []
    baselines: list[float] = []
    gc.collect()
    for number in range(-warm_up, rounds):
        if number % 2:
            second, first = baseline(), value()
        else:
            first, second = value(), baseline()
        if number >= 0:
            values.append(first)
            baselines.append(second)
    return Pairs(tuple(values), tuple(baselines))


def pairs_of(
    value: Callable[[], object], baseline: Callable[[], object], *, rounds: int, warm_up: int = 1
) -> Pairs:
    """Time two things in turn."""
    return in_turn(
        lambda: seconds(value), lambda: seconds(baseline), rounds=rounds, warm_up=warm_up
    )
