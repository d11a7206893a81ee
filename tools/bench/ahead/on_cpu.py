"""The demo model on this CPU, for real: what a question waits for, ready, cold and without frames.

Two pipelines with the same model: to one it is said what will be asked about, to the other
nothing. Both are asked the same about the same frames, which neither has seen before.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import Readiness, StoredFrame
from edge_vlm_ros.serving import VlmPipeline
from tools.bench.ahead.watched import Watched, camera_frame
from tools.bench.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUNDS = 21
WARM_UP = 3
COUNTS = (1, 2, 4, 8, 16)
FULL = 8
WORDS = 'What is moving?'
PLAIN = 'the plain schedule: the same pipeline, told nothing'
_ANSWER_TOKENS = 16
_WIDTH, _HEIGHT = 640, 480


class _Times:
    """Seconds to the first token: by frames, cold and ready; without frames."""

    def __init__(self) -> None:
        self.cold: dict[int, list[float]] = {}
        self.ready: dict[int, list[float]] = {}
        self.bare: list[float] = []
        self.differing = 0

    def curve(self) -> dict[str, Any]:
        """Return medians in milliseconds, for the plots."""
        return {
            'frames': sorted(self.cold),
            'cold_ms': [1e3 * median(self.cold[n]) for n in sorted(self.cold)],
            'ready_ms': [1e3 * median(self.ready[n]) for n in sorted(self.ready)],
            'no_frame_ms': 1e3 * median(self.bare),
        }


def measure(rounds: int = ROUNDS) -> tuple[list[Figure], dict[str, Any]]:
    """Ask both in turn.

    Returns:
        Figures, and what the plots need.
    """
    times = _Times()
    rng = np.random.default_rng(7)
    with (
        VlmPipeline.open(chip='cpu', model='demo') as one,
        VlmPipeline.open(chip='cpu', model='demo') as other,
    ):
        told, plain = Watched(one), Watched(other)
        counts = [count for count in COUNTS if _fits(plain, _frames(rng, count))]
        for number in range(-WARM_UP, rounds):
            found = _Times() if number < 0 else times
            _ask_round(told, plain, counts[:: 1 if number % 2 else -1], found, rng)
    return _figures(times), times.curve()


def _ask_round(
    told: Watched,
    plain: Watched,
    counts: Sequence[int],
    times: _Times,
    rng: np.random.Generator,
) -> None:
    # Without frames: the other one, so that nothing is ready.
    times.bare.append(plain.ask(WORDS).first_s)
    for count in counts:
        frames = _frames(rng, count)
        cold = plain.ask(WORDS, frames, max_tokens=_ANSWER_TOKENS)
        told.ready(frames)
        ready = told.ask(WORDS, frames, max_tokens=_ANSWER_TOKENS)
        assert cold.answer.readiness is Readiness.NONE
        assert ready.answer.readiness is Readiness.PREFIX
        times.cold.setdefault(count, []).append(cold.first_s)
        times.ready.setdefault(count, []).append(ready.first_s)
        times.differing += cold.answer.text != ready.answer.text


def _figures(times: _Times) -> list[Figure]:
    ready = {count: median(found) for count, found in times.ready.items()}
    bare_s = median(times.bare)
    figures = [
        Figure(
            f'ahead_cpu_ttft_{count}_frame{"s" if count > 1 else ""}',
            1e3 * ready[count],
            'ms',
            1e3 * median(times.cold[count]),
            PLAIN,
            median(r / c for r, c in zip(times.ready[count], times.cold[count], strict=True)),
            'ratio <= 0.2' if count == FULL else '',
        )
        for count in sorted(ready)
    ]
    return [
        *figures,
        *(_flat(ready, most) for most in sorted({FULL, max(ready)})),
        Figure(
            'ahead_cpu_ttft_against_no_frame',
            1e3 * ready[FULL],
            'ms',
            1e3 * bare_s,
            'a question without a frame, told nothing',
            median(r / b for r, b in zip(times.ready[FULL], times.bare, strict=True)),
            'ratio <= 1.3',
        ),
        Figure(
            'ahead_cpu_answers_that_differ',
            times.differing,
            f'of {sum(map(len, times.ready.values()))} answers',
            goal='value == 0',
        ),
    ]


def _flat(ready: dict[int, float], most: int) -> Figure:
    """Compare the longest with the shortest time up to a number of frames."""
    times_s = [seconds for count, seconds in ready.items() if count <= most]
    return Figure(
        f'ahead_cpu_ttft_flat_to_{most}_frames',
        1e3 * max(times_s),
        'ms',
        1e3 * min(times_s),
        f'least of {len(times_s)} numbers of frames from {min(ready)} to {most}',
        max(times_s) / min(times_s),
        'ratio <= 1.15',
    )


def _fits(plain: Watched, frames: tuple[StoredFrame, ...]) -> bool:
    """Find out whether a prompt with these frames is shown whole."""
    answer = plain.ask(WORDS, frames).answer
    return len(answer.frames) == len(frames)


def _frames(rng: np.random.Generator, count: int) -> tuple[StoredFrame, ...]:
    return tuple(camera_frame(_picture(rng)) for _ in range(count))


def _picture(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Make a floor, a wall and a coloured thing, never twice the same."""
    image = np.empty((_HEIGHT, _WIDTH, 3), np.uint8)
    image[: _HEIGHT // 3] = rng.integers(150, 220, 3)
    image[_HEIGHT // 3 :] = rng.integers(80, 140, 3)
    x, y = rng.integers(0, _WIDTH - 120), rng.integers(_HEIGHT // 3, _HEIGHT - 120)
    image[y : y + 120, x : x + 120] = rng.integers(0, 256, 3)
    return image
