"""The scripted engine with real models' times, slept through: a static build, and waiting.

A static build runs its whole prefill graph whatever the prompt, once, from an empty cache; after a
prefix it goes on token by token through the decode graph.
"""

from __future__ import annotations

import itertools
import random
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from support.tiny_model.config import TinyConfig
from support.tiny_model.make import write_texts

from edge_vlm_ros.core import Prefix, StoredFrame
from edge_vlm_ros.serving import VlmPipeline
from tools.bench.ahead.stub_model import words
from tools.bench.ahead.watched import WINDOW, Watched, camera_frame
from tools.bench.figure import Figure
from tools.bench.timing import in_turn

# Qwen2-VL-7B, 1536 tokens, on a SE7-32: first token and step as the vendor publishes them. The
# share of all that is no language model is what its two builds of different length leave.
_STATIC: Mapping[str, Any] = {
    'answers': [{'answer': 'No.'}],
    'latency': {'encode_tile_s': 2.28 / 4, 'prefill_call_s': 3.80, 'decode_s': 0.1088},
    'limits': {'context_tokens': 1536, 'prefill_chunk': 1535, 'extension_chunk': 1},
}
_FORCED_TOKENS, _TEMPLATE_TOKENS = 17, 13
"""A question of 12 tokens with the 5 around it; here 13 stand around it, one a letter."""
_STATIC_ROUNDS, _STATIC_FRAMES = 3, 4

_PIECE_S = 0.04
_WATCHED: Mapping[str, Any] = {
    'answers': [{'answer': 'Yes.'}],
    'latency': {'encode_tile_s': _PIECE_S, 'prefill_call_s': _PIECE_S, 'decode_s': 0.001},
    'limits': {'context_tokens': 4096, 'prefill_chunk': 128},
}
_WAITS = 200
_PX = 56
_TILE_PX, _CONTEXT = 448, 8192  # 256 tokens a frame


def measure_static() -> Figure:
    """Ask a static build about a frame, ready and cold."""
    text = words(_FORCED_TOKENS - _TEMPLATE_TOKENS)
    with _open(_STATIC) as one, _open(_STATIC) as other:
        told, plain = Watched(one), Watched(other)

        def ready_s() -> float:
            frames = _frames(_STATIC_FRAMES)
            told.ready(frames)
            return told.ask(text, frames).first_s

        def cold_s() -> float:
            return plain.ask(text, _frames(_STATIC_FRAMES)).first_s

        pairs = in_turn(ready_s, cold_s, rounds=_STATIC_ROUNDS, warm_up=0)
    return Figure(
        'ahead_static_build_ttft_12_tokens',
        pairs.value_s,
        's',
        pairs.baseline_s,
        'the plain schedule; both slept by the times of Qwen2-VL-7B, 1536 tokens',
        pairs.cost,
        'ratio <= 0.333',
    )


def measure_waits() -> tuple[Figure, dict[str, Any]]:
    """Ask in the middle of work ahead that never ends.

    Returns:
        A figure, and the waits for the plots.
    """
    waits_s: list[float] = []
    is_over = threading.Event()
    with _open(_WATCHED) as pipeline:
        watched = Watched(pipeline)

        def wish() -> None:
            """Want other frames again and again, so that the chip never rests."""
            while not is_over.wait(_PIECE_S * 20):
                pipeline.want_prefix(Prefix(_frames(12), shown_as=WINDOW))

        wishing = threading.Thread(target=wish)
        wishing.start()
        rng = random.Random(3)
        try:
            for _ in range(_WAITS):
                time.sleep(rng.uniform(2, 6) * _PIECE_S)
                waits_s.append(watched.ask('What?').answer.timings.queue_s)
        finally:
            is_over.set()
            wishing.join()
    most_s = max(waits_s)
    figure = Figure(
        'ahead_wait_for_work_under_way_most',
        1e3 * most_s,
        'ms',
        1e3 * _PIECE_S,
        f'one piece of work ahead; of {_WAITS} questions',
        most_s / _PIECE_S,
        'ratio <= 1.1',
    )
    return figure, {'piece_s': _PIECE_S, 'waits_s': [round(wait_s, 5) for wait_s in waits_s]}


@contextmanager
def _open(script: Mapping[str, Any]) -> Iterator[VlmPipeline]:
    with tempfile.TemporaryDirectory(prefix='edge_vlm_bench_') as made:
        path = Path(made) / 'script.yaml'
        write_texts(Path(made), TinyConfig(image_px=_TILE_PX, context_tokens=_CONTEXT))
        path.write_text(yaml.safe_dump(dict(script)), encoding='utf-8')
        with VlmPipeline.open(chip='scripted', model=str(path)) as pipeline:
            yield pipeline


_greys = itertools.count()


def _frames(count: int) -> tuple[StoredFrame, ...]:
    greys = (next(_greys) % 256 for _ in range(count))
    return tuple(camera_frame(np.full((_PX, _PX, 3), grey, np.uint8)) for grey in greys)
