"""InternVL3-2B's shapes on the C stub of Axera's libraries, behind the whole pipeline.

The tokenizer makes prompts as long as the real one: a frame is 263 tokens, the words around a
question 5, and every letter of the question is one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from support.axera.sets import write_internvl3_2b

from edge_vlm_ros.engines import Engine, Logits
from edge_vlm_ros.serving import VlmPipeline
from edge_vlm_ros.serving.loading import LoadedModel, load_model
from edge_vlm_ros.serving.model_info import ModelSpec
from tools.bench.ahead.layouts import SYSTEM

if TYPE_CHECKING:
    from pathlib import Path

    from support.axera.stub.compute import Stub

    from edge_vlm_ros.core import Clock, SamplingOptions
    from edge_vlm_ros.serving.step import OnStep

_ONE_TOKEN = ('Frame', 'system', 'user', 'assistant')
"""Words that are one token of the real tokenizer, and stand in the prompt's form."""
_AROUND_SYSTEM = 8
"""`<|im_start|>system`, a line break; `<|im_end|>`, a line break; `<|im_start|>user`, another."""

SYSTEM_TEXT = 's' * (SYSTEM - _AROUND_SYSTEM)

_LETTERS = 'abcdefghijklmnopqrstuvwxyz'
"""One token each; its number is that of the byte."""

SLEPT, COUNTED = 1, 2
"""What the stub does about the chip's time: sleep that long, or count it only."""


def write_model(folder: Path) -> Path:
    """Write the set, and a tokenizer for which the words of the form are one token each."""
    write_internvl3_2b(folder)
    path = folder / 'tokenizer.json'
    content = json.loads(path.read_text(encoding='utf-8'))
    model, first = content['model'], len(content['model']['vocab'])
    for word in _ONE_TOKEN:
        for end in range(2, len(word) + 1):
            if word[:end] not in model['vocab']:
                model['vocab'][word[:end]] = len(model['vocab'])
                model['merges'].append(f'{word[: end - 1]} {word[end - 1]}')
    for token in content['added_tokens']:
        token['id'] += len(model['vocab']) - first
    path.write_text(json.dumps(content), encoding='utf-8')
    return folder


def words(tokens: int) -> str:
    """Return a question of so many tokens."""
    return 'q' * tokens


class _Talking:
    """An engine that says letters at random: the stub's scores are all alike.

    Args:
        engine: Does all the work.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rng = random.Random(0)
        self._letters = np.eye(len(_LETTERS), engine.limits.vocab_size, ord(_LETTERS[0]))
        self._letters = self._letters.astype(np.float32)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def next_token(self, sampling: SamplingOptions) -> Logits:
        """Run the head; score one letter above all else."""
        self._engine.next_token(sampling)
        return Logits(self._rng.choice(self._letters))


def open_talking(
    folder: Path,
    options: Mapping[str, object],
    *,
    clock: Clock | None = None,
    on_work: OnStep | None = None,
) -> VlmPipeline:
    """Open a model that was written here."""

    def load() -> LoadedModel:
        loaded = load_model(ModelSpec('ax650', str(folder), options=dict(options)))
        engine: Any = _Talking(loaded.engine)
        return replace(loaded, engine=engine)

    return VlmPipeline.start(load, clock=clock, on_work=on_work)


class VirtualClock:
    """The stub's working time, and the time in between; safe to read from several threads.

    Args:
        stub: Counts microseconds of work, and sleeps through none (`COUNTED`).
    """

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._idle_ns = 10**9  # 0 means no time at all here and there.

    def now_ns(self) -> int:
        """Read the clock."""
        return self._idle_ns + self.busy_ns()

    def busy_ns(self) -> int:
        """Return how long the chip has worked."""
        return 1000 * self._stub.count('delay_us')

    def wait_until(self, at_ns: int) -> None:
        """Let time pass while the chip does nothing; it never goes back."""
        self._idle_ns += max(0, at_ns - self.now_ns())
