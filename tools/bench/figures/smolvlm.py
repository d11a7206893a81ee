"""SmolVLM-256M at its true size, random weights, 8 bit: our engine beside a bare loop.

The graphs are made on the spot, about 1 GB for a moment, and taken away again. Both sides have the
same graphs, threads and settings, so what differs is ours. Of a decode step processor time counts,
of all threads, which what runs beside does not change; to the first token the clock does.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from edge_vlm_ros.core import (
    FrameSource,
    Question,
    RawImage,
    RgbImage,
    SamplingOptions,
    StoredFrame,
    text_part,
)
from edge_vlm_ros.engines import Engine, Logits, open_engine
from edge_vlm_ros.models import find_model
from edge_vlm_ros.serving import ModelSpec, VlmPipeline
from tools.bench.figure import Figure
from tools.bench.timing import in_turn

ROUNDS = 7
STEPS = 12
HELD = 100
"""Tokens in the cache before the steps: a prompt of one tile and a short question."""
TILE_PX = 512
WORDS_BEFORE, WORDS_AFTER = 8, 30
QUESTION = 'What is it?'


def measure() -> Iterator[Figure]:
    """Measure a decode step and the time to the first token."""
    with tempfile.TemporaryDirectory(prefix='smolvlm-') as place:
        folder = _made(Path(place))
        plain = BareLoop(folder)
        yield _decode_step(folder, plain)
        yield _first_token(folder, plain)


def _made(place: Path) -> Path:
    from support.tiny_smolvlm.config import TRUE_SIZE
    from support.tiny_smolvlm.make import make_tiny_smolvlm
    from support.tiny_smolvlm.variants import make_variant

    whole = make_tiny_smolvlm(place / 'float32', TRUE_SIZE)
    made = make_variant(whole, 'int8', place / 'int8')
    shutil.rmtree(whole)
    return made


def _decode_step(folder: Path, plain: BareLoop) -> Figure:
    engine = open_engine('cpu', find_model('cpu', str(folder)), options={'prefill_chunk': HELD})
    pairs = in_turn(_steps(engine), plain.steps, rounds=ROUNDS)
    engine.close()
    return Figure(
        'smolvlm_decode_step',
        pairs.value_s * 1e3,
        'ms',
        pairs.baseline_s * 1e3,
        'a bare ONNX Runtime loop',
        pairs.cost,
        'ratio <= 1.05',
    )


def _steps(engine: Engine) -> Callable[[], float]:
    def run() -> float:
        engine.kv.truncate(0)
        engine.prefill(text_part(range(HELD), 0), {})
        started_s = time.process_time()
        for step in range(STEPS):
            scores = engine.next_token(SamplingOptions())
            assert isinstance(scores, Logits)
            engine.decode(int(scores.values.argmax()), HELD + step)
        return (time.process_time() - started_s) / STEPS

    return run


def _first_token(folder: Path, plain: BareLoop) -> Figure:
    numbers = iter(range(10**6))
    spec = ModelSpec('cpu', str(folder), options={'max_tiles': 1})
    with VlmPipeline.open(spec) as pipeline:

        def ours() -> float:
            image = _image(next(numbers))
            raw = RawImage('rgb8', 1280, 720, 3 * 1280, image.tobytes())
            frame = StoredFrame(FrameSource('bench'), next(numbers) + 1, raw)
            question = Question(QUESTION, frames=(frame,), sampling=SamplingOptions(max_tokens=1))
            return pipeline.ask(question).answer(600).timings.time_to_first_token_s

        pairs = in_turn(ours, lambda: plain.first_token(_image(next(numbers))), rounds=ROUNDS)
    return Figure(
        'smolvlm_first_token_one_tile',
        pairs.value_s * 1e3,
        'ms',
        pairs.baseline_s * 1e3,
        'a bare PIL and ONNX Runtime loop',
        pairs.cost,
        'ratio <= 1.15',
    )


def _image(seed: int) -> RgbImage:
    blocks = np.random.default_rng(seed).integers(0, 256, (9, 16, 3), np.uint8)
    return np.ascontiguousarray(blocks.repeat(80, axis=0).repeat(80, axis=1))


@dataclass(frozen=True, slots=True)
class _Sessions:
    vision: Any
    embed: Any
    decoder: Any


class BareLoop:
    """The loop that most examples show, with the engine's settings of ONNX Runtime."""

    def __init__(self, folder: Path) -> None:
        graphs = (
            _session(folder / 'onnx' / f'{name}_int8.onnx')
            for name in ('vision_encoder', 'embed_tokens', 'decoder_model_merged')
        )
        self._run = _Sessions(*graphs)
        inputs = [i for i in self._run.decoder.get_inputs() if i.name.startswith('past')]
        self._past_names = [i.name for i in inputs]
        self._empty = [np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32) for i in inputs]
        presents = [name.replace('past_key_values', 'present') for name in self._past_names]
        self._wanted = ['logits', *presents]

    def steps(self) -> float:
        """Return the processor seconds of one decode step."""
        token, past = self._decode(self._embedded(list(range(HELD))), self._empty)
        started_s = time.process_time()
        for _ in range(STEPS):
            token, past = self._decode(self._embedded([token]), past)
        return (time.process_time() - started_s) / STEPS

    def first_token(self, image: RgbImage) -> float:
        """Return the seconds from an image to the first token."""
        started_s = time.perf_counter()
        small = Image.fromarray(image).resize((TILE_PX, 288), Image.Resampling.LANCZOS)
        square = small.resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
        array = (np.asarray(square).astype(np.float32) / 255.0 - 0.5) / 0.5
        feeds = {
            'pixel_values': np.ascontiguousarray(array.transpose(2, 0, 1))[None, None],
            'pixel_attention_mask': np.ones((1, 1, TILE_PX, TILE_PX), np.bool_),
        }
        features = self._run.vision.run(None, feeds)[0][0]
        rows = len(features)
        embedded = self._embedded([65] * (WORDS_BEFORE + rows + WORDS_AFTER))
        embedded[0, WORDS_BEFORE : WORDS_BEFORE + rows] = features
        self._decode(embedded, self._empty)
        return time.perf_counter() - started_s

    def _embedded(self, tokens: list[int]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._run.embed.run(
            None, {'input_ids': np.array([tokens], np.int64)}
        )[0]
        return found

    def _decode(
        self, embedded: NDArray[np.float32], past: list[NDArray[np.float32]]
    ) -> tuple[int, list[NDArray[np.float32]]]:
        held, count = past[0].shape[2], embedded.shape[1]
        feeds = {
            'inputs_embeds': embedded,
            'attention_mask': np.ones((1, held + count), np.int64),
            'position_ids': np.arange(held, held + count)[None],
            **dict(zip(self._past_names, past, strict=True)),
        }
        logits, *present = self._run.decoder.run(self._wanted, feeds)
        return int(logits[0, -1].argmax()), present


def _session(path: Path) -> onnxruntime.InferenceSession:
    from edge_vlm_ros.engines.cpu.engine import usable_cores

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = usable_cores()
    settings.inter_op_num_threads = 1
    settings.enable_mem_pattern = False
    settings.add_session_config_entry('session.intra_op.allow_spinning', '0')
    return onnxruntime.InferenceSession(str(path), settings, providers=['CPUExecutionProvider'])
