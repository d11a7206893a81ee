"""What a watch has counted, and how it does."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

from edge_vlm_ros.watch.spec import WatchSpec
from edge_vlm_ros.watch.words import Blindness, Verdict, WatchPhase

SHARE_OF: Final = 60
"""Looks that were due last, of which the share of missed ones is told."""


@dataclass(slots=True)
class WatchCounts:
    """Counters of a watch, since it was set.

    Attributes:
        looks: The model was asked and answered.
        unchanged: The gate saw the scene unchanged.
        missed: By reason.
        unsure: Looks that were no vote.
        events: Events that began.
        still_on: Looks that found the event still on.
        cooled_down: Times that an event would have begun within the cooldown.
        due: Of the last looks that were due, whether each was missed.
    """

    looks: int = 0
    unchanged: int = 0
    missed: Counter[Blindness] = field(default_factory=Counter)
    unsure: int = 0
    events: int = 0
    still_on: int = 0
    cooled_down: int = 0
    due: deque[bool] = field(default_factory=lambda: deque(maxlen=SHARE_OF))

    @property
    def missed_share(self) -> float:
        """Of the last looks that were due, those missed; 0 where none was due."""
        return sum(self.due) / len(self.due) if self.due else 0.0


@dataclass(frozen=True, slots=True)
class WatchFacts:
    """How a watch does, at one moment.

    Attributes:
        spec: What it was told to do.
        phase: What it is doing.
        event_on: Whether the event is on.
        event_id: Of the event that is on, else of the last; '' = there was none.
        verdict: Of the last look; None = none yet.
        blindness: Why the last look that was due was missed.
        message: What is the matter, for people; '' = nothing.
        look_s: What the last look took, seconds; 0 = none yet.
        counts: Live, not a copy.
    """

    spec: WatchSpec
    phase: WatchPhase
    event_on: bool
    event_id: str
    verdict: Verdict | None
    blindness: Blindness
    message: str
    look_s: float
    counts: WatchCounts
