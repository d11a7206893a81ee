"""What came of a replay: each look, question and event as a line, and their sums."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from edge_vlm_ros.core import NS_PER_S, Answer
from edge_vlm_ros.core.request_limits import plain_text
from edge_vlm_ros.replay.files import TimedQuestion
from edge_vlm_ros.replay.labels import Episode, Span
from edge_vlm_ros.watch import EventKind, WatchEvent, WatchFacts, WatchSpec

Record = dict[str, Any]


@dataclass(slots=True)
class Played:
    """All that came of a replay.

    Attributes:
        source: The recording.
        cameras: Its cameras.
        seconds: Its length.
        frames: How many it had.
        model: That answered.
        chip: Likewise.
        records: Lines, in the order in which they came to be.
        episodes: Events of each watch.
        facts: How each watch did, at the end.
        costs_s: What each answer took of the chip.
        ages_s: How old the newest frame of each answer was when it was there.
        unasked: Questions whose moment lies after the recording.
    """

    source: str
    cameras: tuple[str, ...]
    seconds: float = 0.0
    frames: int = 0
    model: str = ''
    chip: str = ''
    records: list[Record] = field(default_factory=list)
    episodes: dict[str, list[Episode]] = field(default_factory=dict)
    facts: list[WatchFacts] = field(default_factory=list)
    costs_s: list[float] = field(default_factory=list)
    ages_s: list[float] = field(default_factory=list)
    unasked: int = 0

    def add_answer(self, record: Record, cost_s: float, age_s: float) -> None:
        """Take note of a look."""
        self.records.append(record)
        self.costs_s.append(cost_s)
        self.ages_s.append(age_s)

    def add_question(self, record: Record, cost_s: float, age_s: float | None) -> None:
        """Take note of a question; one that had no frame has no age."""
        self.records.append(record)
        if age_s is not None:
            self.costs_s.append(cost_s)
            self.ages_s.append(age_s)

    def note(self, event: WatchEvent) -> None:
        """Take note of what a watch says."""
        episodes = self.episodes.setdefault(event.watch, [])
        decided_s = event.decided_ns / NS_PER_S
        evidence_s = event.verdict.evidence_ns / NS_PER_S if event.verdict else decided_s
        if event.kind is EventKind.BEGIN:
            episodes.append(Episode(event.event_id, Span(evidence_s, math.inf), decided_s))
        elif event.kind is EventKind.END:
            episode = episodes[-1]
            episode.span = Span(episode.span.begin_s, evidence_s)
            episode.ended_s = decided_s if event.verdict else math.nan


def look_record(
    spec: WatchSpec, answer: Answer, begun_ns: int, done_ns: int, newest_ns: int
) -> Record:
    """Return the line of one look."""
    return {
        'kind': 'look',
        'watch': spec.name,
        'begun_s': _seconds(begun_ns),
        'done_s': _seconds(done_ns),
        'evidence_s': _seconds(newest_ns),
        'answer': answer.choice or answer.text,
        'is_choice': bool(answer.choice),
        'probability': answer.choice_probability,
        'means_event': spec.means_event(answer.choice),
        **_cost(answer),
    }


def question_record(
    timed: TimedQuestion, answer: Answer | None, begun_ns: int, done_ns: int
) -> Record:
    """Return the line of one question; None = there was no frame yet."""
    said = '' if answer is None else answer.choice or answer.text
    is_right = None
    if timed.expect:
        is_right = plain_text(said).rstrip('.') == plain_text(timed.expect).rstrip('.')
    return {
        'kind': 'question',
        'at_s': timed.at_s,
        'begun_s': _seconds(begun_ns),
        'done_s': _seconds(done_ns),
        'question': timed.question,
        'answer': said,
        'expect': timed.expect,
        'is_right': is_right,
        'probability': None if answer is None else answer.choice_probability,
        **({'error': 'no frame yet'} if answer is None else _cost(answer)),
    }


def event_record(event: WatchEvent) -> Record:
    """Return the line of one event."""
    verdict = event.verdict
    return {
        'kind': 'event',
        'watch': event.watch,
        'event': event.kind.name.lower(),
        'event_id': event.event_id,
        'decided_s': _seconds(event.decided_ns),
        'evidence_s': None if verdict is None else _seconds(verdict.evidence_ns),
        'verdict': None if verdict is None else verdict.answer,
        'probability': None if verdict is None else verdict.probability,
        'duration_s': round(event.duration_s, 3),
        'text': event.text,
    }


def _cost(answer: Answer) -> Record:
    timings = answer.timings
    return {
        'error': answer.message if not answer.success else '',
        'took_s': round(timings.total_s, 4),
        'encode_s': round(timings.encode_s, 4),
        'prefill_s': round(timings.prefill_s, 4),
        'prompt_tokens': timings.prompt_tokens,
        'cached_prompt_tokens': timings.cached_prompt_tokens,
    }


def _seconds(time_ns: int) -> float:
    return round(time_ns / NS_PER_S, 4)
