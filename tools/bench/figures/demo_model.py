"""The demo model on this CPU: time to first token for 1 and 8 frames, tokens per second.

Each question comes with frames that were never seen before, so nothing is cached; against the
plain ONNX Runtime loop of `tools/bench/plain_loop.py` with the same weights, frames and words.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tools.bench.figure import Figure

if TYPE_CHECKING:
    from edge_vlm_ros.core import Answer
    from tools.bench.plain_loop import PlainAnswer

ROUNDS = 11
WIDTH, HEIGHT = 640, 480
STILL_QUESTION = 'Describe what you see.'
CLIP_QUESTION = 'What is moving?'
PLAIN = 'plain PIL and ONNX Runtime loop'


def measure() -> Iterator[Figure]:
    """Ask the pipeline and the plain loop in turn."""
    from edge_vlm_ros.core import FrameSource, Question, RawImage, StoredFrame
    from edge_vlm_ros.models import find_model
    from edge_vlm_ros.serving import VlmPipeline
    from tools.bench.plain_loop import PlainLoop
    from tools.bench.timing import Pairs

    stamps = itertools.count(1)
    plain = PlainLoop(find_model('cpu', 'demo').folder)

    def stored(image: NDArray[np.uint8]) -> StoredFrame:
        raw = RawImage('rgb8', WIDTH, HEIGHT, 3 * WIDTH, image.reshape(-1).data)
        return StoredFrame(FrameSource('bench'), next(stamps), raw)

    def ask_both(count: int, words: str, number: int) -> tuple[Answer, PlainAnswer]:
        images = [_picture(1000 * number + i) for i in range(count)]
        question = Question(words, frames=tuple(map(stored, images)))
        if number % 2:
            other = plain.ask(images, words)
            return pipeline.ask(question).answer(60), other
        return pipeline.ask(question).answer(60), plain.ask(images, words)

    with VlmPipeline.open(chip='cpu', model='demo') as pipeline:
        for count, words in ((1, STILL_QUESTION), (8, CLIP_QUESTION)):
            asked = [ask_both(count, words, number) for number in range(-1, ROUNDS)][1:]
            first = Pairs(
                tuple(ours.timings.time_to_first_token_s for ours, _ in asked),
                tuple(theirs.first_token_s for _, theirs in asked),
            )
            name = f'demo_ttft_{count}_frame{"s" if count > 1 else ""}'
            yield Figure(
                name, first.value_s * 1e3, 'ms', first.baseline_s * 1e3, PLAIN, first.cost
            )
            if count == 1:
                yield _speed(asked)


def _speed(asked: Sequence[tuple[Answer, PlainAnswer]]) -> Figure:
    """Compare decode speeds over answers of more than one token."""
    spoken = [(o, t) for o, t in asked if o.timings.answer_tokens > 1 and t.tokens > 1]
    ours = [o.timings.tokens_per_second for o, _ in spoken]
    theirs = [t.tokens_per_second for _, t in spoken]
    gain = median(o / t for o, t in zip(ours, theirs, strict=True))
    return Figure(
        'demo_tokens_per_second',
        median(ours),
        'tokens/s',
        median(theirs),
        f'{PLAIN}; ratio = times faster',
        gain,
    )


def _picture(seed: int) -> NDArray[np.uint8]:
    """Make a floor, a wall and two coloured things, never twice the same."""
    rng = np.random.default_rng(seed % 2**32)
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    image[: HEIGHT // 3] = rng.integers(150, 220, 3)
    image[HEIGHT // 3 :] = rng.integers(80, 140, 3)
    for colour in rng.permutation(6)[:2]:
        x, y = rng.integers(0, WIDTH - 120), rng.integers(HEIGHT // 3, HEIGHT - 120)
        shade = ((200, 30, 30), (30, 160, 40), (40, 60, 200), (220, 200, 40), (130, 50, 160))
        image[y : y + 120, x : x + 120] = (*shade, (235, 235, 235))[colour]
    return image
