"""Measures the Sophgo engine on the emulator; runs in the process with the emulated chip.

Our engine and, for some models, a loop written as the vendor's sample is, have the same bmodel
loaded in one process and take turns. Their first tokens are really computed and must be the same;
after them launches sleep as long as a chip would need, while copies are made and counted as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np
from sophon import standin
from support.sophgo.engine_runs import model_files, open_fixture
from support.sophgo.fixtures import FIXTURES

from edge_vlm_ros.core import PromptPart, SamplingOptions, VisionFeatures, VisionInputs, VisionSpan
from edge_vlm_ros.engines.base import ChosenToken
from edge_vlm_ros.engines.sophgo.engine import SophgoEngine
from edge_vlm_ros.engines.sophgo.layers import LayerKind
from edge_vlm_ros.engines.sophgo.model_files import contract_of, read_for_chip
from tools.bench.sophgo.cases import Case
from tools.bench.sophgo.clock import StepTime
from tools.bench.sophgo.least import least_bytes
from tools.bench.sophgo.sample_loops import CopyingLoop, InPlaceLoop
from tools.bench.sophgo.watch import asleep, clock, kv_copies

_COUNTED = 8
_TIMED = 120
_WARM_UP = 3
_FIRST_TOKEN = 30
_SAMPLES: dict[str, type[InPlaceLoop | CopyingLoop]] = {
    'in place': InPlaceLoop,
    'copying': CopyingLoop,
}


@dataclass(frozen=True, slots=True)
class Moved:
    """What one decoded token moves and runs, the mean of several.

    Attributes:
        up: Bytes from host to chip.
        down: Bytes from chip to host.
        transfers: Copies both ways.
        device_copies: Copies on the chip that were asked for.
        device_bytes: Their bytes.
        inner_copies: Copies on the chip that launches make because a tensor lies elsewhere than
            the net was compiled for.
        inner_bytes: Their bytes.
        kv_bytes: Of inner_bytes those of whole caches.
        launches: Nets that ran.
        views: Tensors made that look into others.
    """

    up: float
    down: float
    transfers: float
    device_copies: float
    device_bytes: float
    inner_copies: float
    inner_bytes: float
    kv_bytes: float
    launches: float
    views: float


@dataclass(frozen=True, slots=True)
class HostTime:
    """What a decode step with its head takes outside the runtime's calls; medians, seconds.

    Attributes:
        fixed: Whatever the number of layers.
        layers: Each of a kind, by the kind.
        view: What the stand-in takes to make a view, which is in none of the others.
    """

    fixed: float
    layers: Mapping[str, float]
    view: float


@dataclass(frozen=True, slots=True)
class Result:
    """Of one case.

    Attributes:
        name: The case's.
        least: Bytes that a token moves at least, both ways.
        kinds: Of the layers.
        moved: By driver: 'ours', 'sample'.
        host: The same, where it was timed.
    """

    name: str
    least: int
    kinds: tuple[str, ...]
    moved: dict[str, Moved] = field(default_factory=dict)
    host: dict[str, HostTime] = field(default_factory=dict)


class Driver(Protocol):
    """Something that decodes on the chip."""

    def next_token(self, token: int) -> int:
        """Append a token and choose the next one."""
        ...

    def rewind(self) -> None:
        """Make room in the cache; forget all but the first rows."""
        ...


class OurDriver:
    """Our engine, fed without family and scheduler."""

    def __init__(self, engine: SophgoEngine, sampling: SamplingOptions) -> None:
        self._engine = engine
        self._sampling = sampling
        self._kept = 0

    def show_image(self) -> None:
        """Begin with an image that the cross-attention layers attend to."""
        limits = self._engine.limits
        px, tiles = limits.tile_px, limits.tiles_per_frame
        pixels = np.zeros((tiles, 3, px, px), np.float32)
        features: dict[int, VisionFeatures] = {
            0: self._engine.encode(VisionInputs(pixels, (1, 1, tiles), 0))
        }
        span = VisionSpan(0, 0, 1)
        part = PromptPart(np.array([_FIRST_TOKEN]), np.array([0]), 1, (span,))
        self._engine.prefill(part, features)
        self._kept = 1

    def next_token(self, token: int) -> int:
        """Append a token and choose the next one."""
        engine = self._engine
        engine.decode(token, engine.kv.length)
        found = engine.next_token(self._sampling)
        return found.token if isinstance(found, ChosenToken) else int(found.values.argmax())

    def rewind(self) -> None:
        """Make room in the cache."""
        self._engine.kv.truncate(self._kept)


class SampleDriver:
    """A loop written as the vendor's sample is."""

    def __init__(self, loop: InPlaceLoop | CopyingLoop) -> None:
        self._loop = loop

    def next_token(self, token: int) -> int:
        """Append a token and choose the next one."""
        return self._loop.next_token(token)

    def rewind(self) -> None:
        """Make room in the cache, but keep what the loop knows of its token."""
        self._loop.held = 1


def measure_case(case: Case, folder: Path) -> dict[str, Any]:
    """Measure one case; return a `Result` as plain data.

    Raises:
        AssertionError: Our engine and the sample's loop disagree about a token.
    """
    fixture = FIXTURES[case.fixture]
    path = fixture.unpack(folder)
    contract = contract_of(read_for_chip(model_files(fixture, path)))
    kinds = tuple(kind.value for kind in contract.decoder.kinds)
    least = least_bytes(contract, case.sampling)
    result = Result(case.name, least.total, kinds)
    with ExitStack() as stack:
        engine = open_fixture(case.fixture, str(path))
        stack.callback(engine.close)
        ours = OurDriver(engine, case.sampling)
        drivers: dict[str, Driver] = {'ours': ours}
        if case.sample:
            loop: InPlaceLoop | CopyingLoop = _SAMPLES[case.sample](path)
            stack.callback(loop.close)
            drivers['sample'] = SampleDriver(loop)
        if LayerKind.CROSS in contract.decoder.kinds:
            with asleep(0):
                ours.show_image()
        else:
            _compare(drivers, case.compared)
        with asleep(0):
            for name, driver in drivers.items():
                result.moved[name] = _count(driver, host_chooses=least.host_chooses)
        if case.launch_s:
            with asleep(case.launch_s):
                result.host.update(_time(drivers, contract.decoder.context, kinds))
    return asdict(result)


def _compare(drivers: Mapping[str, Driver], tokens: int) -> None:
    """Have the chip really compute the first tokens, and all drivers agree."""
    answers = []
    for driver in drivers.values():
        answer = [_FIRST_TOKEN]
        for _ in range(tokens):
            answer.append(driver.next_token(answer[-1]))
        answers.append(answer)
    assert all(answer == answers[0] for answer in answers), answers


def _count(driver: Driver, *, host_chooses: bool) -> Moved:
    """Count some tokens, after others: a loop's first token is not like the rest.

    A chip that sleeps gives the same scores again and again. The host chooses another token each
    time all the same, as it does while a chip works.
    """
    token = _FIRST_TOKEN
    for _ in range(_WARM_UP):
        token = driver.next_token(token)
    standin.reset()
    with kv_copies() as kv, clock() as watch:
        for number in range(_COUNTED):
            token = driver.next_token(_FIRST_TOKEN + number if host_chooses else token)
        views = sum(what == 'view' for what, _, _ in watch.calls)
    found = standin.counters()
    inner = found.launch_copies.values()
    sums = Moved(
        up=found.s2d.bytes,
        down=found.d2s.bytes,
        transfers=found.s2d.calls + found.d2s.calls,
        device_copies=found.d2d.calls,
        device_bytes=found.d2d.bytes,
        inner_copies=sum(traffic.calls for traffic in inner),
        inner_bytes=sum(traffic.bytes for traffic in inner),
        kv_bytes=kv.bytes,
        launches=sum(found.launches.values()),
        views=views,
    )
    return replace(sums, **{name: value / _COUNTED for name, value in asdict(sums).items()})


def _time(
    drivers: Mapping[str, Driver], context: int, kinds: tuple[str, ...]
) -> dict[str, HostTime]:
    """Time steps, the drivers in turn."""
    times: dict[str, list[StepTime]] = {name: [] for name in drivers}
    tokens = dict.fromkeys(drivers, _FIRST_TOKEN)
    with clock() as watch:
        for number in range(_TIMED):
            full = number % (context // 2) == 0
            for name, driver in drivers.items():
                if full:
                    driver.rewind()
                    tokens[name] = driver.next_token(tokens[name])
                times[name].append(watch.time_step(_step(driver, name, tokens)))
    return {name: _host_time(found, kinds) for name, found in times.items()}


def _step(driver: Driver, name: str, tokens: dict[str, int]) -> Callable[[], None]:
    def step() -> None:
        tokens[name] = driver.next_token(tokens[name])

    return step


def _host_time(steps: list[StepTime], kinds: tuple[str, ...]) -> HostTime:
    """Take apart what each layer costs and what a step costs besides."""
    layers = {
        kind: median(s for step in steps for layer, s in step.layer_s if kinds[layer] == kind)
        for kind in set(kinds)
    }
    of_layers = sum(layers[kind] for kind in kinds)
    fixed = median(step.host_s for step in steps) - of_layers
    return HostTime(fixed, layers, median(step.view_s for step in steps))
