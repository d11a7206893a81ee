"""What the chip, or the host beside it, is told to do: one item at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from edge_vlm_ros.core import FrameKey

AHEAD = ''
"""Stands for a request_id in work that no question has asked for yet."""


@dataclass(frozen=True, slots=True)
class Prepare:
    """Decode one frame and make it ready for the vision tower; host work."""

    request_id: str
    frame: FrameKey


@dataclass(frozen=True, slots=True)
class Render:
    """Write the prompt, check it against the limits, see what the KV cache already holds of it."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Encode:
    """Run vision tower and projector on one frame."""

    request_id: str
    frame: FrameKey


@dataclass(frozen=True, slots=True)
class Prefill:
    """Append one piece of the prompt, its tokens [start, stop), to the KV cache."""

    request_id: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Decode:
    """Append the last answer token, if there is one, and choose the next."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to do until the next event."""


Work: TypeAlias = 'Prepare | Render | Encode | Prefill | Decode | Idle'
