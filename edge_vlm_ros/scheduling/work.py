"""What the chip, or the host beside it, is to do: one item at a time, each for somebody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from edge_vlm_ros.core import FeatureKey


@dataclass(frozen=True, slots=True)
class QuestionOwner:
    """Work that a question needs."""

    request_id: str


@dataclass(frozen=True, slots=True)
class FrameOwner:
    """Work ahead of any question: for a frame, or a moment of a video, that was offered."""

    key: FeatureKey


Owner: TypeAlias = 'QuestionOwner | FrameOwner'
"""Whom a work item is for. When the owner is over, so is the work; its failure ends no other."""


@dataclass(frozen=True, slots=True)
class Prepare:
    """Decode the frames under one key, make them ready for the vision tower; host work."""

    owner: Owner
    key: FeatureKey


@dataclass(frozen=True, slots=True)
class Encode:
    """Run vision tower and projector on what is under one key."""

    owner: Owner
    key: FeatureKey


@dataclass(frozen=True, slots=True)
class Render:
    """Write the prompt, check it against the limits, see what the KV cache already holds of it."""

    owner: QuestionOwner


@dataclass(frozen=True, slots=True)
class Prefill:
    """Append one piece of the prompt, its tokens [start, stop), to the KV cache."""

    owner: QuestionOwner
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Decode:
    """Append the last answer token, if there is one, and choose the next."""

    owner: QuestionOwner


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to do until the next event."""


Work: TypeAlias = 'Prepare | Render | Encode | Prefill | Decode'
