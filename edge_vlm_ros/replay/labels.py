"""What is true of a recording, and how the events of a replay compare with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from edge_vlm_ros.core import BadRequestError
from edge_vlm_ros.replay.files import read_values

TOLERANCE_S = 0.5
"""So far from a label's edges an event still belongs to it: nobody labels to the frame."""

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Span:
    """A time from the recording's beginning, seconds."""

    begin_s: float
    end_s: float

    def meets(self, other: Span, tolerance_s: float = 0.0) -> bool:
        """Return whether two spans have a moment in common, nearly."""
        begins = self.begin_s <= other.end_s + tolerance_s
        return begins and other.begin_s <= self.end_s + tolerance_s


@dataclass(slots=True)
class Episode:
    """One event of a replay.

    Attributes:
        event_id: Of it.
        span: By the frames that it is based on; an open end is the recording's.
        begun_s: When the watch decided that it begins.
        ended_s: When it decided that it ends; NaN = it had not when the recording ended.
    """

    event_id: str
    span: Span
    begun_s: float
    ended_s: float = math.nan


@dataclass(slots=True)
class Score:
    """How the events of one watch compare with its labels.

    Attributes:
        labelled: Spans that were labelled.
        hits: Those that an event meets.
        misses: Those that none does.
        false_alarms: Events that meet no label.
        repeated: Further events of a label that one has met already.
        delays_s: Of each hit: from the label's begin to the decision; below 0: within tolerance.
        end_delays_s: Likewise of its end.
    """

    labelled: int = 0
    hits: int = 0
    misses: int = 0
    false_alarms: int = 0
    repeated: int = 0
    delays_s: list[float] = field(default_factory=list)
    end_delays_s: list[float] = field(default_factory=list)

    def fields(self, seconds: float) -> dict[str, Any]:
        """Return it for the report of a recording of so many seconds."""
        hours = max(seconds, 1e-9) / HOUR_S
        return {
            'labelled': self.labelled,
            'hits': self.hits,
            'misses': self.misses,
            'misses_per_hour': self.misses / hours,
            'false_alarms': self.false_alarms,
            'false_alarms_per_hour': self.false_alarms / hours,
            'repeated': self.repeated,
            'delay_s': _middle(self.delays_s),
            'longest_delay_s': max(self.delays_s, default=None),
            'end_delay_s': _middle(self.end_delays_s),
        }


def score(episodes: Sequence[Episode], labels: Sequence[Span]) -> Score:
    """Compare the events of a watch with its labels."""
    found = Score(labelled=len(labels))
    met: dict[int, Episode] = {}
    for episode in episodes:
        numbers = [n for n, s in enumerate(labels) if s.meets(episode.span, TOLERANCE_S)]
        found.false_alarms += not numbers
        found.repeated += bool(numbers) and all(number in met for number in numbers)
        for number in numbers:
            met.setdefault(number, episode)
    for number, episode in met.items():
        found.delays_s.append(episode.begun_s - labels[number].begin_s)
        if not math.isnan(episode.ended_s):
            found.end_delays_s.append(episode.ended_s - labels[number].end_s)
    found.hits = len(met)
    found.misses = len(labels) - len(met)
    return found


def read_labels(path: Path) -> dict[str, list[Span]]:
    """Read a labels file: `watches:` with a list of `{begin_s, end_s}` for each watch.

    Raises:
        BadRequestError: It cannot be read, or says something else.
    """
    values = read_values(path)
    watches = values.get('watches') if isinstance(values, dict) else None
    if not isinstance(watches, dict):
        raise BadRequestError(f'{path}: no labels: a mapping `watches` is missing')
    return {str(name): _spans(path, str(name), spans) for name, spans in watches.items()}


def _spans(path: Path, name: str, values: Any) -> list[Span]:
    """Return the labels of a watch, in order."""
    try:
        spans = [Span(float(each['begin_s']), float(each['end_s'])) for each in values]
    except (KeyError, TypeError, ValueError) as error:
        raise BadRequestError(
            f'{path}: labels of {name} are a list of {{begin_s, end_s}} ({error})'
        ) from error
    for span in spans:
        if not 0 <= span.begin_s <= span.end_s < math.inf:
            raise BadRequestError(f'{path}: a label of {name} is {span}: end_s before begin_s')
    return sorted(spans, key=lambda span: span.begin_s)


def _middle(values: Sequence[float]) -> float | None:
    return median(values) if values else None
