"""What the chip takes for one run of each shape group, measured when a model is loaded."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from edge_vlm_ros.core import CancelledError, ModelFiles
from edge_vlm_ros.engines.axera.backend import LayerBackend
from edge_vlm_ros.engines.axera.graphs import DecodeGroup, PrefillGroup, StackShapes
from edge_vlm_ros.engines.kept_costs import settle

_LAYERS_TIMED = 3
_STEPS_TIMED = 2
_GROUPS_TIMED = 3


@dataclass(frozen=True, slots=True)
class GroupCosts:
    """Milliseconds of one run of one layer, by the group's number in the file.

    Attributes:
        prefill: A chunk, however many of its tokens count; infinite = not to be run.
        decode: One token.
    """

    prefill: Mapping[int, float]
    decode: Mapping[int, float]


def measure_costs(
    backend: LayerBackend, shapes: StackShapes, clock: Callable[[], float] = perf_counter
) -> GroupCosts:
    """Time a few groups and draw lines between them: 1 s for InternVL3-2B on an AX650N.

    A chunk's cost grows in a straight line with its history (in the vendor's table the lines are
    at most 1.3 ms off, of 7 to 52 ms), so the shortest, the middle and the longest history of each
    chunk length tell the others. A chunk is given up after three layers; of decode groups, a whole
    step is timed. Each is run once before that: the first run of a layer's group takes many times
    as long (pyaxengine issue 17: 27 ms, then 1.7 ms). Stale rows that this leaves in
    the caches are finite and count for nothing.

    Args:
        backend: Freshly opened.
        shapes: Of the set.
        clock: Seconds.
    """
    decode = {group.index: _time_steps(backend, shapes, group, clock) for group in shapes.decode}
    if not backend.takes_chunks:
        return GroupCosts({group.index: math.inf for group in shapes.prefill}, decode)
    by_chunk: dict[int, list[PrefillGroup]] = defaultdict(list)
    for group in shapes.prefill:
        by_chunk[group.chunk].append(group)
    prefill: dict[int, float] = {}
    for groups in by_chunk.values():
        places = np.linspace(0, len(groups) - 1, min(_GROUPS_TIMED, len(groups)))
        timed = [groups[round(place)] for place in places]
        found = [_time_chunk(backend, shapes, group, clock) for group in timed]
        rising = np.maximum.accumulate(found)
        lines = np.interp(
            [group.history for group in groups], [group.history for group in timed], rising
        )
        prefill |= {group.index: float(ms) for group, ms in zip(groups, lines, strict=True)}
    return GroupCosts(prefill, decode)


def settle_costs(measured: GroupCosts, files: ModelFiles, how: str) -> GroupCosts:
    """Keep the noise of the measurement out of plans; see `kept_costs`.

    Args:
        measured: Just now.
        files: Of the set.
        how: The backend's name, and where the chip sits.
    """
    runs = {f'prefill {group}': cost for group, cost in measured.prefill.items()}
    runs |= {f'decode {group}': cost for group, cost in measured.decode.items()}
    settled = settle({run: cost for run, cost in runs.items() if cost < math.inf}, files, how)
    return GroupCosts(
        {group: settled.get(f'prefill {group}', math.inf) for group in measured.prefill},
        {group: settled[f'decode {group}'] for group in measured.decode},
    )


def _time_chunk(
    backend: LayerBackend, shapes: StackShapes, group: PrefillGroup, clock: Callable[[], float]
) -> float:
    """Time the second run of a few layers."""
    _run_layers(backend, shapes, group, clock)
    return 1e3 * float(min(np.diff(_run_layers(backend, shapes, group, clock))))


def _run_layers(
    backend: LayerBackend, shapes: StackShapes, group: PrefillGroup, clock: Callable[[], float]
) -> list[float]:
    """Tell when each of a few layers began and the last ended: the stop check is asked between."""
    asked: list[float] = []

    def is_enough() -> bool:
        asked.append(clock())
        return len(asked) > _LAYERS_TIMED

    row = min(group.history, shapes.capacity - 1)
    tokens = min(group.chunk, shapes.capacity - row)
    embeds = np.zeros((tokens, shapes.hidden), np.uint16)
    positions = _positions(shapes, row, tokens)
    try:
        backend.prefill(group, embeds, positions, row, is_enough)
        asked.append(clock())
    except CancelledError:
        pass
    return asked


def _time_steps(
    backend: LayerBackend, shapes: StackShapes, group: DecodeGroup, clock: Callable[[], float]
) -> float:
    """Time the steps after the first one."""
    times = []
    for number in range(1 + _STEPS_TIMED):
        row = min(number, group.capacity - 1)
        embed = np.zeros(shapes.hidden, np.uint16)
        backend.step(group, embed, _positions(shapes, row, 1), row)
        times.append(clock())
    return 1e3 * float(min(np.diff(times))) / shapes.layers


def _positions(
    shapes: StackShapes, row: int, tokens: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint32]]:
    line = np.arange(row, row + tokens, dtype=np.uint32)
    return line if shapes.position_rows == 1 else np.tile(line, (shapes.position_rows, 1))
