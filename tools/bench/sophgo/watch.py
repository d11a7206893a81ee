"""The stand-in's calls under watch: their times, what launches copy, and launches that sleep."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from sophon.sail import EngineLLM, Tensor
from sophon.standin import address_of

from tools.bench.sophgo.clock import LAYER, Clock

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
        if not name.startswith(LAYER) or engine.get_addr_mode(name) >= _IO_TAG:
            return
        first = {_SELF_INPUTS: 3, _CROSS_INPUTS: 2}[len(inputs)]
        compiled = engine.get_input_tensors_addrmode0(name)
        for index in (first, first + 1):
            if address_of(inputs[index]) != address_of(compiled[index]):
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
