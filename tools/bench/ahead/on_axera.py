"""Measures work ahead on the C stub of Axera's libraries: prints one JSON object a line.

    python -m tools.bench.ahead.on_axera

The stub has the shapes and the latency table of InternVL3-2B on an AX650N and computes nothing. It
sleeps for as long as a chip would work where a time is compared with another one, and only counts
that time where prefixes are made ready, where layouts are compared, and for hours of watching.
Needs what `tools.bench.axera.measure` does.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from support.axera.sets import model_files
from support.axera.stub.compute import Stub

from tools.bench.ahead.designs import DESIGNS
from tools.bench.ahead.layouts import FRAME, MOST_TOKENS, SYSTEM, TAIL, least_ms, vendor_ms
from tools.bench.ahead.simulation import Hook, Simulation
from tools.bench.ahead.stub_model import (
    COUNTED,
    SLEPT,
    SYSTEM_TEXT,
    VirtualClock,
    open_talking,
    words,
    write_model,
)
from tools.bench.ahead.watched import Asked, Watched, camera_frame
from tools.bench.axera.vendor_loop import VendorLoop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge_vlm_ros.core import StoredFrame

ROWS = ((1, 32), (4, 32), (7, 32), (8, 5), (8, 10), (8, 20))
"""Frames and question tokens whose time is slept through."""
GRID_FRAMES, GRID_TOKENS = (0, 1, 2, 3, 4, 5, 6, 7, 8), (5, 10, 20, 32, 64, 128)
KV_SLOTS = 2
_SIDE, _WORD = 448, 100
_TURN_FRAMES, _TURN_TOKENS, _ANSWER_TOKENS = 4, 32, 60
_SEED = 20


class Bench:
    """A pipeline to which it is said what will be asked, one to which it is not, a vendor's loop.

    Args:
        folder: An empty one.
        stub: Theirs.
    """

    def __init__(self, folder: Path, stub: Stub) -> None:
        self.stub = stub
        self.clock, self.hook = VirtualClock(stub), Hook()
        write_model(folder)
        stub.set(delays=SLEPT)  # Stage costs are measured when a model is loaded.
        options = {'kv_slots': KV_SLOTS}
        self.virtual = open_talking(folder, options, clock=self.clock, on_work=self.hook)
        self.told = Watched(open_talking(folder, options), system_prompt=SYSTEM_TEXT)
        self.plain = Watched(open_talking(folder, options), system_prompt=SYSTEM_TEXT)
        stub.compute_nothing()  # The self-test at load has shown that what is computed is right.
        self.vendor = VendorLoop(model_files(folder).weights)

    def layouts(self) -> Iterator[dict[str, Any]]:
        """Count the chip's time for each number of frames and question tokens."""
        self.stub.set(delays=COUNTED)
        watched = Watched(self.virtual, system_prompt=SYSTEM_TEXT)
        for frames in GRID_FRAMES:
            for tokens in GRID_TOKENS:
                prompt = SYSTEM + FRAME * frames + tokens + TAIL
                if prompt > MOST_TOKENS:
                    continue
                shown = _frames(frames)
                watched.ready(shown)
                ready = watched.ask(words(tokens), shown)
                assert ready.answer.timings.prompt_tokens == prompt
                yield {
                    'kind': 'layout',
                    'frames': frames,
                    'tokens': tokens,
                    'ready_s': ready.first_s,
                    'least_s': least_ms(frames, tokens) / 1e3,
                    'vendor_s': vendor_ms(frames, tokens) / 1e3,
                }

    def rows(self) -> Iterator[dict[str, Any]]:
        """Take the time of some of them: ready, cold, and of the vendor's loop."""
        vendor: dict[int, float] = {}
        cold: dict[int, float] = {}
        for frames, tokens in ROWS:
            if frames not in vendor:
                count = SYSTEM + FRAME * frames + tokens + TAIL
                vendor[frames] = self._vendor_s(count, frames)
                shown = _frames(frames)
                cold[frames] = self._asked_s(self.plain, words(tokens), shown)
            yield {
                'kind': 'row',
                'frames': frames,
                'tokens': tokens,
                'ready_s': self._ready_s(frames, tokens),
                'cold_s': cold[frames],
                'vendor_s': vendor[frames],
            }

    def second_turn(self) -> dict[str, Any]:
        """Take the time of a second question of a conversation about four frames."""
        self.stub.set(delays=COUNTED)
        first, second, shown = words(_TURN_TOKENS), words(_TURN_TOKENS), _frames(_TURN_FRAMES)
        self.told.ask(first, shown, max_tokens=_ANSWER_TOKENS, session_id='talk')
        asked, ready_s = self._slept(self.told, second, (), session_id='talk')
        count = asked.answer.timings.prompt_tokens
        vendor_s = self._vendor_s(count, _TURN_FRAMES)
        return {'kind': 'turn', 'ready_s': ready_s, 'vendor_s': vendor_s, 'tokens': count}

    def simulations(self) -> Iterator[dict[str, Any]]:
        """Watch and ask for hours."""
        self.stub.set(delays=COUNTED)
        for design in DESIGNS:
            simulation = Simulation(design, self.virtual, self.hook, self.clock, _SEED)
            yield {'kind': 'design', **simulation.run().summary()}

    def close(self) -> None:
        """End all three."""
        for pipeline in (self.virtual, self.told.pipeline, self.plain.pipeline):
            pipeline.close()

    def _ready_s(self, frames: int, tokens: int) -> float:
        shown = _frames(frames)
        self.stub.set(delays=COUNTED)
        self.told.ready(shown)
        return self._asked_s(self.told, words(tokens), shown)

    def _asked_s(self, watched: Watched, text: str, shown: tuple[StoredFrame, ...]) -> float:
        return self._slept(watched, text, shown)[1]

    def _slept(
        self, watched: Watched, text: str, shown: tuple[StoredFrame, ...], session_id: str = ''
    ) -> tuple[Asked, float]:
        """Ask while the stub sleeps; what it overslept on a busy machine is left out."""
        self.stub.set(delays=SLEPT)
        late_us = self.stub.count('overshoot_us')
        asked = watched.ask(text, shown, session_id=session_id)
        late_us = self.stub.count('overshoot_us') - late_us
        return asked, asked.first_s - late_us / 1e6

    def _vendor_s(self, tokens: int, frames: int) -> float:
        self.stub.set(delays=SLEPT)
        pixels = [np.zeros((1, 3, _SIDE, _SIDE), np.float32)] * frames
        started_ns, late_us = time.perf_counter_ns(), self.stub.count('overshoot_us')
        self.vendor.first_token([_WORD] * tokens, pixels)
        late_us = self.stub.count('overshoot_us') - late_us
        return (time.perf_counter_ns() - started_ns) / 1e9 - late_us / 1e6


def _frames(count: int) -> tuple[StoredFrame, ...]:
    grey = np.full((_SIDE, _SIDE, 3), 90, np.uint8)
    return tuple(camera_frame(grey) for _ in range(count))


def main() -> None:
    """Measure everything, print as it comes."""
    with tempfile.TemporaryDirectory() as made:
        bench = Bench(Path(made), Stub(Path(os.environ['EDGE_VLM_AX_LIBRARY'])))
        for result in (*bench.layouts(), *bench.rows(), bench.second_turn()):
            _tell(result)
        for result in bench.simulations():
            _tell(result)
        bench.close()


def _tell(result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(result) + '\n')
    sys.stdout.flush()


if __name__ == '__main__':
    main()
