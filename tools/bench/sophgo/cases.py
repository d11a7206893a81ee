"""What is measured, and the vendor's figures that it is compared with. Imports no chip library."""

from __future__ import annotations

from dataclasses import dataclass

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
class PublishedModel:
    """A real model whose speed the vendor publishes (SE7-32, BM1684X).

    Attributes:
        case: The tiny one in its place.
        name: The publisher's.
        layers: How many of each kind.
        tokens_per_s: The vendor's; the highest where there are several.
    """

    case: str
    name: str
    layers: dict[str, int]
    tokens_per_s: float


# Source of the speeds: README of sophon-demo's samples. Of the layers: the models' config.json.
PUBLISHED = (
    PublishedModel('internvl2', 'InternVL2-4B', {'self': 32}, 27.1),
    PublishedModel('qwen2vl_2024', 'Qwen2-VL-7B', {'self': 28}, 9.7),
    PublishedModel('mllama_2024', 'Llama-3.2-11B-Vision', {'self': 32, 'cross': 8}, 7.5),
)
_OTHER_LAUNCHES = 2  # embedding and head
_LAUNCH_S = {
    model.case: 1 / model.tokens_per_s / (sum(model.layers.values()) + _OTHER_LAUNCHES)
    for model in PUBLISHED
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
    Case('qwen2_5vl', 'qwen2_5vl_static_bf16_bm1684x'),
    Case('qwen3vl', 'qwen3vl_static_bf16_bm1684x'),
    Case(
        'mllama_2024',
        'mllama_2024_bf16_bm1684x',
        sample='in place',
        launch_s=_LAUNCH_S['mllama_2024'],
    ),
    Case('mllama_convert', 'mllama_convert_bf16_bm1684x'),
)
