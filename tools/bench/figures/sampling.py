"""Choosing a token among 151,674 logits, against sorting all of them in numpy.

The logits have the shape that language models give: most tokens in a bell far below, a few dozen
that might follow well above it. Where a model knows nothing (all tokens in the bell) top-p alone
has to weigh them all; that is measured, too, without a goal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import SamplingOptions
from tools.bench.figure import Figure
from tools.bench.timing import pairs_of

VOCABULARY = 151_674
"""Of InternVL3 and Qwen2-VL 2B."""

ROUNDS = 41
CALLS = 10
WARM = SamplingOptions(temperature=0.7, seed=1)
CHOICES = {
    'greedy': SamplingOptions(),
    'top_k': replace(WARM, top_k=20),
    'top_p': replace(WARM, top_p=0.8),
    'top_k_top_p': replace(WARM, top_k=20, top_p=0.8),
}
Logits = NDArray[np.float32]


def measure() -> Iterator[Figure]:
    """Time each way of choosing, one call a token."""
    logits = _as_models_give()
    for name, options in CHOICES.items():
        yield _figure(f'sample_{name}', logits, options, 'value <= 0.1')
    yield _figure('sample_top_p_of_a_bell', _bell(), CHOICES['top_p'], '')


def _figure(name: str, logits: Logits, options: SamplingOptions, goal: str) -> Figure:
    from edge_vlm_ros.text import TokenSampler

    sampler = TokenSampler(options)
    pairs = pairs_of(
        partial(_repeat, partial(sampler.choose, logits)),
        partial(_repeat, partial(_plain, logits, options, np.random.default_rng(1))),
        rounds=ROUNDS if goal else ROUNDS // 4,
    )
    return Figure(
        name,
        pairs.value_s * 1e3 / CALLS,
        'ms',
        pairs.baseline_s * 1e3 / CALLS,
        'sort all, numpy; ratio = times faster',
        pairs.gain,
        goal,
    )


def _repeat(work: Callable[[], int]) -> None:
    for _ in range(CALLS):
        work()


def _bell() -> Logits:
    return (np.random.default_rng(1).standard_normal(VOCABULARY) * 2.2 - 2).astype(np.float32)


def _as_models_give() -> Logits:
    logits = _bell()
    chosen = np.random.default_rng(2).choice(VOCABULARY, 40, replace=False)
    logits[chosen] = np.linspace(22, 10, 40)
    return logits


def _plain(logits: Logits, options: SamplingOptions, rng: np.random.Generator) -> int:
    """Do it the way it is written down: sort, softmax, cut, draw."""
    order = np.argsort(-logits)
    if not options.temperature:
        return int(order[0])
    if options.top_k:
        order = order[: options.top_k]
    weights = np.exp((logits[order].astype(np.float64) - logits[order[0]]) / options.temperature)
    sums = np.cumsum(weights)
    if options.top_p < 1:
        sums = sums[: int(np.searchsorted(sums, options.top_p * sums[-1])) + 1]
    return int(order[int(np.searchsorted(sums, rng.random() * sums[-1], side='right'))])
