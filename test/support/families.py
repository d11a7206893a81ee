"""Families made without an engine, for tests of what they do with pixels and words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edge_vlm_ros.core import EngineLimits, ModelConfig
from edge_vlm_ros.families import ModelFamily, read_family

if TYPE_CHECKING:
    from pathlib import Path

ANY_ENGINE = EngineLimits(
    context_tokens=10**9,
    longest_prompt=10**9,
    prefill_chunk=0,
    max_images=0,
    can_extend_prefix=True,
    samples_on_chip=False,
    has_logits=True,
    vocab_size=1000,
    hidden_size=8,
)
"""The limits of an engine that takes whatever the model was trained with."""


def limits(**bounds: Any) -> EngineLimits:
    """Return the limits of an engine that is bounded by these alone."""
    return replace(ANY_ENGINE, **bounds)


def load_family(folder: Path, limits: EngineLimits = ANY_ENGINE, **options: object) -> ModelFamily:
    """Read a model folder and make its family for an engine."""
    return read_family(ModelConfig(folder), options).bound_by(limits)
