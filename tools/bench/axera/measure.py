"""Measures the Axera engine on the C stub: prints one JSON object a line.

    python -m tools.bench.axera.measure

The stub sleeps by the latency table of InternVL3-2B on an AX650N and computes nothing, so what is
left is the cost of the host. Three drivers run the same set in one process, in turn: our engine in
place, our engine on `InferenceSession.run`, and a loop written as the vendor's demo is.
Needs a C compiler and, on sys.path, the stand-in axengine (`tools.bench.figures.axera` sees to
both).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from support.axera.sets import model_files, write_internvl3_2b
from support.axera.stub.compute import Stub

from edge_vlm_ros.core import (
    PromptPart,
    SamplingOptions,
    VisionFeatures,
    VisionInputs,
    VisionSpan,
    text_part,
)
from edge_vlm_ros.engines import Engine, Logits, open_engine
from tools.bench.axera.vendor_loop import VendorLoop

# Prompt tokens of the vendor's own examples. Source: the logs in the model's README.
PROMPTS = {0: 95, 1: 311, 4: 1123, 8: 2156}
STEPS = 24
_ROWS, _SIDE = 256, 448
_WORD = 100
_GREEDY = SamplingOptions()


@dataclass(frozen=True, slots=True)
class FirstToken:
    """A prompt from empty caches, the vision tower included.

    Attributes:
        driver: 'in place', 'portable' or 'vendor loop'.
        images: In the prompt.
        wall_s: From the question to the first token, seconds; less what the stub overslept.
        chip_s: Of these the chip was at work.
    """

    driver: str
    images: int
    wall_s: float
    chip_s: float


@dataclass(frozen=True, slots=True)
class Decoded:
    """One decode step with the choice of the token; medians over many.

    Attributes:
        driver: As above.
        wall_s: Of one step, seconds; less what the stub overslept.
        chip_s: Of these the chip was at work.
        host_share: Median of wall / chip - 1.
        cache_bytes: Flushed and invalidated in one step.
        runs: Of models in one step.
    """

    driver: str
    wall_s: float
    chip_s: float
    host_share: float
    cache_bytes: int
    runs: int


class Chip:
    """The stub's counters around a piece of work.

    Args:
        stub: Its hooks.
        moved: Counters of bytes that are summed up.
    """

    def __init__(
        self, stub: Stub, moved: tuple[str, str] = ('bytes_flushed', 'bytes_invalidated')
    ) -> None:
        self._stub, self._moved = stub, moved

    def cost(self, work: Callable[[], object]) -> tuple[float, float, int, int]:
        """Return wall and chip seconds, bytes moved, runs."""
        # A busy machine wakes the sleeping stub late; that is nobody's host time.
        names = ('delay_us', 'overshoot_us', *self._moved, 'runs')
        before = [self._stub.count(name) for name in names]
        started_ns = time.perf_counter_ns()
        work()
        wall_s = (time.perf_counter_ns() - started_ns) / 1e9
        after = [self._stub.count(name) for name in names]
        delay, late, flushed, invalidated, runs = (
            a - b for a, b in zip(after, before, strict=True)
        )
        return wall_s - late / 1e6, delay / 1e6, flushed + invalidated, runs


class EngineDriver:
    """Our engine, fed without family and scheduler."""

    def __init__(self, name: str, engine: Engine) -> None:
        self.name = name
        self.engine = engine
        self._position = 0

    def first_token(self, images: int) -> int:
        """Encode, prefill, choose."""
        engine = self.engine
        engine.kv.truncate(0)
        inputs = VisionInputs(np.zeros((1, 3, _SIDE, _SIDE), np.float32), (1, 1, 1), _ROWS)
        features: dict[int, VisionFeatures] = {i: engine.encode(inputs) for i in range(images)}
        prompt = _prompt(images)
        start = 0
        for piece in engine.plan_prefill(len(prompt)):
            engine.prefill(prompt.slice(start, start + piece), features)
            start += piece
        self._position = prompt.next_position
        return self._choose()

    def next_token(self) -> int:
        """Run one decode step, choose."""
        self.engine.decode(_WORD, self._position)
        self._position += 1
        return self._choose()

    def _choose(self) -> int:
        scored = self.engine.next_token(_GREEDY)
        assert isinstance(scored, Logits)
        return int(scored.values.argmax())


class VendorDriver:
    """The loop written as the vendor's demo is."""

    name = 'vendor loop'

    def __init__(self, loop: VendorLoop) -> None:
        self._loop = loop

    def first_token(self, images: int) -> int:
        """Encode, prefill, choose."""
        pixels = [np.zeros((1, 3, _SIDE, _SIDE), np.float32)] * images
        return self._loop.first_token([_WORD] * PROMPTS[images], pixels)

    def next_token(self) -> int:
        """Run one decode step, choose."""
        return self._loop.next_token(_WORD)


def _prompt(images: int) -> PromptPart:
    words = text_part([_WORD] * PROMPTS[images], 0)
    spans = tuple(VisionSpan(i, _ROWS * i, _ROWS * (i + 1)) for i in range(images))
    return PromptPart(words.tokens, words.positions, words.next_position, spans)


def measure_first_tokens(
    chip: Chip, drivers: list[EngineDriver | VendorDriver]
) -> Iterator[FirstToken]:
    """Ask with 0, 1, 4 and 8 images, the drivers in turn."""
    for images in PROMPTS:
        for driver in drivers:
            wall_s, chip_s, _, _ = chip.cost(partial(driver.first_token, images))
            yield FirstToken(driver.name, images, wall_s, chip_s)


def measure_decoding(chip: Chip, drivers: list[EngineDriver | VendorDriver]) -> Iterator[Decoded]:
    """Run decode steps after the text prompt, the drivers in turn."""
    costs: dict[str, list[tuple[float, float, int, int]]] = {d.name: [] for d in drivers}
    for driver in drivers:
        driver.first_token(0)
        driver.next_token()
    for _ in range(STEPS):
        for driver in drivers:
            costs[driver.name].append(chip.cost(driver.next_token))
    for name, steps in costs.items():
        yield Decoded(
            name,
            median(wall for wall, *_ in steps),
            median(busy for _, busy, *_ in steps),
            median(wall / busy - 1 for wall, busy, *_ in steps),
            round(median(moved for *_, moved, _ in steps)),
            round(median(runs for *_, runs in steps)),
        )


def count_calls(work: Callable[[], object]) -> int:
    """Count the calls of Python functions, this package's and others'."""
    calls = 0

    def seen(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        del frame, argument
        calls += event == 'call'

    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def tell_calls(driver: EngineDriver | VendorDriver) -> None:
    """Print how many calls of Python a decode step takes."""
    driver.first_token(0)
    driver.next_token()
    calls = count_calls(driver.next_token)
    sys.stdout.write(json.dumps({'kind': 'Calls', 'driver': driver.name, 'calls': calls}) + '\n')


def main() -> None:
    """Measure everything, print as it comes."""
    with tempfile.TemporaryDirectory() as made:
        files = model_files(write_internvl3_2b(Path(made)))
        stub = Stub(Path(os.environ['EDGE_VLM_AX_LIBRARY']))
        stub.set(delays=1)
        engines = {
            name: open_engine('ax650', files, options={'backend': option})
            for name, option in (('in place', 'in_place'), ('portable', 'portable'))
        }
        drivers: list[EngineDriver | VendorDriver] = [
            *(EngineDriver(name, engine) for name, engine in engines.items()),
            VendorDriver(VendorLoop(files.weights)),
        ]
        stub.compute_nothing()  # from here on: a way through Python would be a cost of the bench
        tell_calls(drivers[0])
        chip = Chip(stub)
        for result in (*measure_decoding(chip, drivers), *measure_first_tokens(chip, drivers)):
            _tell(result)
        for engine in engines.values():
            engine.close()


def _tell(result: Any) -> None:
    sys.stdout.write(json.dumps({'kind': type(result).__name__, **asdict(result)}) + '\n')
    sys.stdout.flush()


if __name__ == '__main__':
    main()
