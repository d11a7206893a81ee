"""The stand-in's calls under watch: their times, what launches copy, and launches that sleep."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from sophon.sail._engine import EngineLLM
from sophon.sail._tensor import Tensor

_LAYER = 'block_cache_'
_SELF_INPUTS, _CROSS_INPUTS = 5, 4
_IO_TAG = 2

_CALLS = ('update_data', 'asnumpy', 'sync_s2d', 'sync_d2s', 'sync_d2d', 'reshape')


@contextmanager
def asleep(seconds: float) -> Iterator[None]:
    """Have launches sleep instead of running; the memory they would write stays as it is.

    Copies are still made, everything is still counted. The emulator computes a thousand times
    slower than a chip and on the same cores as the host.
    """

    def sleep(*_: object) -> None:
        time.sleep(seconds)

    with patch.object(EngineLLM, '_launch', sleep):
        yield


@dataclass
class KvCopies:
    """Whole caches that launches copied because they lie elsewhere than the net reads them.

    Attributes:
        calls: Caches, K and V apart.
        bytes: Theirs.
    """

    calls: int = 0
    bytes: int = 0

    def look(self, engine: EngineLLM, name: str, inputs: dict[int, Tensor]) -> None:
        """Look at one launch. Nets in address mode 2 read everything where it lies."""
        if not name.startswith(_LAYER) or engine.get_addr_mode(name) >= _IO_TAG:
            return
        first = {_SELF_INPUTS: 3, _CROSS_INPUTS: 2}[len(inputs)]
        compiled = engine.get_input_tensors_addrmode0(name)
        for index in (first, first + 1):
            if inputs[index].memory().address != compiled[index].memory().address:
                self.calls += 1
                self.bytes += inputs[index].nbytes()


@contextmanager
def kv_copies() -> Iterator[KvCopies]:
    """Count copied caches."""
    found = KvCopies()
    process = EngineLLM.process

    def watched(
        self: EngineLLM, name: str, inputs: dict[int, Tensor], outputs: dict[int, Tensor]
    ) -> None:
        found.look(self, name, inputs)
        process(self, name, inputs, outputs)

    with patch.object(EngineLLM, 'process', watched):
        yield found


@dataclass
class Clock:
    """When calls of the runtime were made and when they returned.

    Attributes:
        calls: Net or method, start and end on the steady clock, seconds.
    """

    calls: list[tuple[str, float, float]] = field(default_factory=list)

    def time_step(self, step: Callable[[], object]) -> StepTime:
        """Run a decode step; return what it took outside the runtime's calls."""
        self.calls.clear()
        started_s = time.perf_counter()
        step()
        ended_s = time.perf_counter()
        result = StepTime()
        free_s, since_layer_s, previous = started_s, 0.0, False
        for what, start_s, end_s in self.calls:
            gap_s = start_s - free_s
            result.host_s += gap_s
            result.view_s += end_s - start_s if what == 'view' else 0.0
            since_layer_s += gap_s
            if what.startswith(_LAYER):
                if previous:
                    result.layer_s.append((int(what.removeprefix(_LAYER)), since_layer_s))
                since_layer_s, previous = 0.0, True
            free_s = end_s
        result.host_s += ended_s - free_s
        return result


@dataclass
class StepTime:
    """One decode step, seconds outside the runtime's calls.

    Attributes:
        host_s: In all.
        layer_s: Layer and what lies between the launch before its own and its own.
        view_s: Inside the stand-in for making views, which is in none of the others.
    """

    host_s: float = 0.0
    view_s: float = 0.0
    layer_s: list[tuple[int, float]] = field(default_factory=list)


@contextmanager
def clock() -> Iterator[Clock]:
    """Note all calls of the runtime. What noting costs, some 0.2 us a call, counts as ours."""
    watch = Clock()
    note = watch.calls.append
    now = time.perf_counter

    def timed(label: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            started_s = now()
            result = method(*args)
            note((label, started_s, now()))
            return result

        return call

    def process(
        engine: EngineLLM, name: str, inputs: dict[int, Tensor], outputs: dict[int, Tensor]
    ) -> None:
        started_s = now()
        launch(engine, name, inputs, outputs)
        note((name, started_s, now()))

    launch = EngineLLM.process
    with ExitStack() as stack:
        for method in _CALLS:
            replaced = timed(method, getattr(Tensor, method))
            stack.enter_context(patch.object(Tensor, method, replaced))
        stack.enter_context(patch.object(Tensor, '__init__', timed('view', Tensor.__init__)))
        stack.enter_context(patch.object(EngineLLM, 'process', process))
        yield watch
