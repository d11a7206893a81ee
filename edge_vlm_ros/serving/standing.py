"""Who would answer the next question, where that can change while a backend is open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from edge_vlm_ros.serving.model_info import ModelInfo


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether what should answer does, and who would answer the next question.

    Attributes:
        info: Who would.
        outage: Why what should answer does not; '' = it does.
        since_ns: The time of day when that began, nanoseconds since 1970 (UTC); 0 = it does.
        is_spare: Another one answers in its place.
    """

    info: ModelInfo | None = None
    outage: str = ''
    since_ns: int = 0
    is_spare: bool = False


OnStanding: TypeAlias = Callable[[Standing], None]
"""Given each new standing, on a thread of the backend's; must be quick."""


@runtime_checkable
class TellsStanding(Protocol):
    """A backend that can lose what answers its questions, and find it again."""

    @property
    def standing(self) -> Standing:
        """How it is now."""
        ...

    def listen_standing(self, on_standing: OnStanding) -> None:
        """Have every change given to `on_standing` from now on, and to nobody else."""
        ...
