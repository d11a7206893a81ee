"""The report of a replay, and whether it is worse than an older one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from edge_vlm_ros.replay.labels import Span, score
from edge_vlm_ros.replay.records import Played
from edge_vlm_ros.watch import Blindness, WatchFacts

Report = dict[str, Any]

PERCENTILES: Final = (50, 90, 99)
SLACK_S: Final = 0.5
"""An event that comes later than in the baseline by more is worse."""

_NO_MORE: Final = ('misses', 'false_alarms', 'repeated')
"""Of a watch: what there may not be more of than in a baseline."""


def report_of(played: Played, labels: Mapping[str, Sequence[Span]]) -> Report:
    """Return the report of a replay, in plain types.

    Args:
        played: What came of it.
        labels: What is true, by watch; a watch without labels is not scored.
    """
    seconds = played.seconds
    return {
        'source': played.source,
        'cameras': list(played.cameras),
        'seconds': round(seconds, 3),
        'frames': played.frames,
        'model': played.model,
        'chip': played.chip,
        'chip_share': round(sum(played.costs_s) / seconds, 4) if seconds else 0.0,
        'latency_s': _percentiles(played.costs_s),
        'age_s': _percentiles(played.ages_s),
        'watches': {
            facts.spec.name: _watch(facts, played, labels.get(facts.spec.name))
            for facts in played.facts
        },
        'questions': _questions(played),
    }


def worse_than(report: Report, baseline: Report) -> list[str]:
    """Say what is worse than in a baseline; times of the machine are not compared.

    Args:
        report: Of this replay.
        baseline: Of an older one of the same recording.
    """
    found = []
    for name, before in baseline.get('watches', {}).items():
        now = report['watches'].get(name)
        if now is None:
            found.append(f'{name}: the baseline has this watch, the replay has not')
            continue
        found += _more(name, now, before, [what for what in _NO_MORE if what in before])
        delays = (now.get('longest_delay_s'), before.get('longest_delay_s'))
        if None not in delays and delays[0] > delays[1] + SLACK_S:
            found.append(f'{name}: an event {delays[0]:.2f} s late, {delays[1]:.2f} s before')
    before = baseline.get('questions', {})
    return found + _more('questions', report['questions'], before, ('wrong', 'failed'))


def as_text(report: Report) -> str:
    """Return a report for a terminal."""
    played = f'{report["seconds"]:.1f} s, {report["frames"]} frames'
    lines = [f'{report["source"]}: {played}; {report["model"]} on {report["chip"]}']
    if report['latency_s']:
        share, took, age = report['chip_share'], report['latency_s'], report['age_s']
        cost = f'an answer took {_spread(took)} s, its newest frame was {_spread(age)} s old'
        lines.append(f'the chip was busy {share:.1%}; {cost} (median, 90 %, 99 %)')
    for name, watch in report['watches'].items():
        missed = sum(watch['missed'].values())
        lines.append(
            f'{name}: {watch["events"]} events; {watch["looks"]} looks, {watch["unchanged"]} '
            f'unchanged, {missed} missed, {watch["unsure"]} unsure'
        )
        if 'labelled' in watch:
            delay = watch['delay_s']
            lines.append(
                f'{name}: {watch["hits"]} of {watch["labelled"]} labelled events, '
                f'{watch["misses_per_hour"]:.1f} misses and {watch["false_alarms_per_hour"]:.1f} '
                f'false alarms an hour, {watch["repeated"]} repeated; '
                f'{"no" if delay is None else f"{delay:.2f} s"} delay'
            )
    questions = report['questions']
    if questions['asked']:
        lines.append(
            f'questions: {questions["asked"]} asked, {questions["right"]} right, '
            f'{questions["wrong"]} wrong, {questions["failed"]} failed'
        )
    return '\n'.join(lines)


def _more(name: str, now: Report, before: Report, names: Sequence[str]) -> list[str]:
    """Say of which counts there are more than before."""
    return [
        f'{name}: {now.get(what, 0)} {what}, {before.get(what, 0)} in the baseline'
        for what in names
        if now.get(what, 0) > before.get(what, 0)
    ]


def _watch(facts: WatchFacts, played: Played, labels: Sequence[Span] | None) -> Report:
    counts, name = facts.counts, facts.spec.name
    found: Report = {
        'events': counts.events,
        'looks': counts.looks,
        'unchanged': counts.unchanged,
        'unsure': counts.unsure,
        'still_on': counts.still_on,
        'cooled_down': counts.cooled_down,
        'missed': {why.name.lower(): counts.missed[why] for why in Blindness if why},
    }
    if labels is not None:
        found |= score(played.episodes.get(name, []), labels).fields(played.seconds)
    return found


def _questions(played: Played) -> Report:
    records = [record for record in played.records if record['kind'] == 'question']
    failed = [record for record in records if record['error']]
    rights = [record['is_right'] for record in records if not record['error']]
    return {
        'asked': len(records),
        'right': rights.count(True),
        'wrong': rights.count(False),
        'failed': len(failed),
        'after_the_end': played.unasked,
    }


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    found = np.percentile(values, PERCENTILES)
    return {f'p{p}': round(float(v), 4) for p, v in zip(PERCENTILES, found, strict=True)}


def _spread(percentiles: Mapping[str, float]) -> str:
    return ', '.join(f'{value:.2f}' for value in percentiles.values())
