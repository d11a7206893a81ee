"""What runs of a model take on this chip, measured when it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from time import perf_counter
from typing import TypeAlias

from edge_vlm_ros.core import CancelledError
from edge_vlm_ros.engines.base import StopCheck
from edge_vlm_ros.engines.sophgo.plan import RunCosts

_LAYERS_TIMED = 3
_STEPS_TIMED = 2


def _go_on() -> None:
    """Let a load that nobody stops go on."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What can be timed of a model.

    Attributes:
        layers: Decoder layers.
        rows: Tokens of the longest piece.
        held: Rows that pieces are timed after: as many as a whole one may stand after.
        capacities: Cache rows that the decode stages see, smallest first.
        is_fixed: Whether a piece costs the same however few its tokens are.
        run_piece: Runs so many tokens through the prefill nets, after so many rows.
        run_step: Runs a token through the decode nets, after so many rows.
        clock: Seconds.
        before_run: Called before each run; raises CancelledError where the load is to stop.
    """

    layers: int
    rows: int
    held: int
    capacities: Sequence[int]
    is_fixed: bool
    run_piece: Callable[[int, int, StopCheck], None] = field(repr=False)
    run_step: Callable[[int], None] = field(repr=False)
    clock: Callable[[], float] = perf_counter
    before_run: Callable[[], None] = _go_on


Settle: TypeAlias = Callable[[dict[str, float]], Mapping[str, float]]
"""Takes what was measured, by run; gives what is to be planned by (`kept_costs`)."""


def measure_costs(bench: Bench, settle: Settle = dict) -> RunCosts:
    """Time a step of each decode stage, the first layers of a piece or two: 1 s for a 7B model.

    Each runs once before that: first runs load what later ones find. Of dynamic nets the longest
    piece and one of two tokens tell the others: in between, cost grows about in a straight line.
    Where pieces may stand after a history, they are timed after all of it.

    Args:
        bench: What can be timed.
        settle: Keeps the noise of the measurement out of plans.
    """
    measured = {f'step {rows}': _time_steps(bench, rows) for rows in bench.capacities}
    measured['longest piece'] = _time_piece(bench, bench.rows)
    is_even = bench.is_fixed or bench.rows <= 2
    if not is_even:
        measured['piece of 2'] = _time_piece(bench, 2)
    settled = settle(measured)
    steps = tuple((rows, settled[f'step {rows}']) for rows in bench.capacities)
    longest = settled['longest piece']
    if is_even:
        return RunCosts(steps, longest)
    shortest = min(settled['piece of 2'], longest)
    token_s = (longest - shortest) / (bench.rows - 2)
    return RunCosts(steps, max(0.0, shortest - 2 * token_s), token_s)


def _time_steps(bench: Bench, rows: int) -> float:
    """Time the steps after the first one, at the stage's last row."""
    times = []
    bench.before_run()
    for _ in range(1 + _STEPS_TIMED):
        bench.run_step(rows - 1)
        times.append(bench.clock())
    return min(later - earlier for earlier, later in pairwise(times))


def _time_piece(bench: Bench, tokens: int) -> float:
    """Time the second run of a few layers, and what comes before the first one."""
    _run_layers(bench, tokens)
    times = _run_layers(bench, tokens)
    before, *layers = (later - earlier for earlier, later in pairwise(times))
    return before + bench.layers * min(layers)


def _run_layers(bench: Bench, tokens: int) -> list[float]:
    """Tell when the run began, and when each of a few layers did and the last one ended."""
    bench.before_run()
    times = [bench.clock()]

    def is_enough() -> bool:
        times.append(bench.clock())
        return len(times) > _LAYERS_TIMED + 1

    try:
        bench.run_piece(bench.held, tokens, is_enough)
        times.append(bench.clock())
    except CancelledError:
        pass
    return times
