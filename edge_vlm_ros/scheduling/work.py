"""What the chip, or the host beside it, is to do: one item at a time, each for somebody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from edge_vlm_ros.core import NS_PER_S

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


@dataclass(frozen=True, slots=True)
class PrefixOwner:
    """Work ahead of any question: for the prefix that is wanted in the KV cache."""

    number: int


Owner: TypeAlias = 'QuestionOwner | FrameOwner | PrefixOwner'
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

    owner: QuestionOwner | PrefixOwner


@dataclass(frozen=True, slots=True)
class Prefill:
    """Append one piece of the prompt, its tokens [start, stop), to the KV cache."""

    owner: QuestionOwner | PrefixOwner
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Decode:
    """Append the last answer token, if there is one, and choose the next."""

    owner: QuestionOwner


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to do until the next event.

    Attributes:
        until_ns: Steady time when there will be work ahead to do; 0 = only an event brings some.
    """

    until_ns: int = 0

    def wait_s(self, now_ns: int) -> float | None:
        """Return how long to wait, seconds; None = until an event comes."""
        return max(0, self.until_ns - now_ns) / NS_PER_S if self.until_ns else None


Work: TypeAlias = 'Prepare | Render | Encode | Prefill | Decode'
