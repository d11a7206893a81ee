"""What is measured, and the vendor's figures that it is compared with. Imports no chip library."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_vlm_ros.core import SamplingOptions

_GREEDY = SamplingOptions()


@dataclass(frozen=True, slots=True)
class Case:
    """One compiled model and a way to choose tokens.

    Attributes:
        name: Of the contract, in the figures' names.
        fixture: The tiny bmodel.
        sampling: How tokens are chosen.
        sample: The vendor's loop beside ours: 'in place', 'copying' or '' (none).
        compared: Tokens that the chip really computes, by both loops where there are two.
        launch_s: What one launch of the real model takes on the real chip, seconds, the mean of a
            decode step; the host is timed where it is known.
    """

    name: str
    fixture: str
    sampling: SamplingOptions = _GREEDY
    sample: str = ''
    compared: int = 0
    launch_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Seed:
    """A real model whose speed the vendor publishes (SE7-32, BM1684X).

    Attributes:
        case: The tiny one in its place.
        model: Its name.
        layers: How many of each kind.
        tokens_per_s: The vendor's; the highest where there are several.
    """

    case: str
    model: str
    layers: dict[str, int]
    tokens_per_s: float


# Source of the speeds: README of sophon-demo's samples. Of the layers: the models' config.json.
SEEDS = (
    Seed('internvl2', 'InternVL2-4B', {'self': 32}, 27.1),
    Seed('qwen2vl_2024', 'Qwen2-VL-7B', {'self': 28}, 9.7),
    Seed('mllama_2024', 'Llama-3.2-11B-Vision', {'self': 32, 'cross': 8}, 7.5),
)
_OTHER_LAUNCHES = 2  # embedding and head
_LAUNCH_S = {
    seed.case: 1 / seed.tokens_per_s / (sum(seed.layers.values()) + _OTHER_LAUNCHES)
    for seed in SEEDS
}

CHIP = 'bm1684x'
CASES = (
    Case('internvl3_static', 'internvl3_static_bf16_bm1684x', sample='in place', compared=2),
    Case('internvl3_history', 'internvl3_history_sample_bf16_bm1684x'),
    Case('internvl3_old_history', 'internvl3_oldhistory_bf16_bm1684x'),
    Case('internvl3_dynamic', 'internvl3_dynamic_bf16_bm1684x'),
    Case('internvl3_greedy_head', 'internvl3_sample_bf16_bm1684x'),
    Case(
        'internvl3_sample_head',
        'internvl3_sample_bf16_bm1684x',
        SamplingOptions(temperature=1.0),
        compared=1,
    ),
    Case(
        'internvl3_logits',
        'internvl3_sample_bf16_bm1684x',
        SamplingOptions(temperature=1.0, top_k=1000),
    ),
    Case(
        'internvl2',
        'internvl2_bf16_bm1684x',
        sample='in place',
        launch_s=_LAUNCH_S['internvl2'],
    ),
    Case(
        'qwen2vl_2024',
        'qwen2vl_v2_bf16_bm1684x',
        sample='copying',
        compared=2,
        launch_s=_LAUNCH_S['qwen2vl_2024'],
    ),
    Case('qwen2vl_convert', 'qwen2vl_convert_bf16_bm1684x'),
    Case(
        'mllama_2024',
        'mllama_2024_bf16_bm1684x',
        sample='in place',
        launch_s=_LAUNCH_S['mllama_2024'],
    ),
    Case('mllama_convert', 'mllama_convert_bf16_bm1684x'),
)


def run_cases(names: tuple[str, ...], folder: str) -> list[dict[str, Any]]:
    """Measure cases, in the process with the emulated chip; `Result`s as plain data."""
    # The emulator`s threads never rest: with real-time priority, which children of the benchmark
    # inherit, they would leave nobody a core, this process included.
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    from tools.bench.sophgo.measure import measure_case

    return [measure_case(case, Path(folder)) for case in CASES if case.name in names]
