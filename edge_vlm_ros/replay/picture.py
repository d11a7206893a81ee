"""The picture of a replay: labels, events, looks and costs on the recording's time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge_vlm_ros.core import NS_PER_S, SetupError
from edge_vlm_ros.replay.labels import Span
from edge_vlm_ros.replay.records import Played
from edge_vlm_ros.watch import WatchSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS: Final = {'labels': 2.0, 'event': 1.0, 'looks': 0.0}
"""Where in a watch's plot each is drawn."""

LABEL, EVENT, YES, NO, UNSURE = '#2a9d8f', '#e76f51', '#c1440e', '#457b9d', '#9a9a9a'


def draw(
    played: Played,
    specs: Sequence[WatchSpec],
    labels: Mapping[str, Sequence[Span]],
    path: Path,
) -> None:
    """Draw a replay into a PNG.

    Args:
        played: What came of it.
        specs: Its watches.
        labels: What is true, by watch.
        path: Of the picture.

    Raises:
        SetupError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SetupError(
            f'the picture is drawn by matplotlib, which is not here ({error}): pip install '
            "'edge_vlm_ros[replay]'"
        ) from error
    figure = Figure(figsize=(11, 1.2 + 1.7 * len(specs) + 1.8), layout='constrained')
    heights = [1.0] * len(specs) + [1.1]
    axes = figure.subplots(
        len(heights), 1, sharex=True, squeeze=False, gridspec_kw={'height_ratios': heights}
    )
    share = sum(played.costs_s) / max(played.seconds, 1e-9)
    figure.suptitle(
        f'{Path(played.source).name}: {played.seconds:.0f} s, {played.model} on {played.chip}, '
        f'the chip busy {share:.1%} of the time',
        fontsize=11,
    )
    for spec, axis in zip(specs, axes[:, 0], strict=False):
        _draw_watch(axis, spec, played, labels.get(spec.name))
    if specs:
        _explain(axes[0, 0])
    _draw_costs(axes[-1, 0], played)
    axes[-1, 0].set_xlim(0, played.seconds)
    axes[-1, 0].set_xlabel('seconds of the recording')
    figure.savefig(path, dpi=110)


def _draw_watch(
    axis: Axes, spec: WatchSpec, played: Played, labels: Sequence[Span] | None
) -> None:
    """Draw the labels, the events and the looks of one watch."""
    axis.set_title(
        f'{spec.name}: {spec.question} ({", ".join(spec.when)})', fontsize=9, loc='left'
    )
    for span in labels or ():
        _bar(axis, span, ROWS['labels'], LABEL)
    for episode in played.episodes.get(spec.name, []):
        end_s = min(episode.span.end_s, played.seconds)
        _bar(axis, Span(episode.span.begin_s, end_s), ROWS['event'], EVENT)
        decided = episode.begun_s
        axis.plot([decided], [ROWS['event']], marker='|', color='black', markersize=14)
    looks = [r for r in played.records if r['kind'] == 'look' and r['watch'] == spec.name]
    for record in looks:
        known = record['is_choice'] and not record['error']
        unlikely = (record['probability'] or 1.0) < spec.min_probability
        colour = UNSURE if not known or unlikely else YES if record['means_event'] else NO
        axis.plot([record['evidence_s']], [ROWS['looks']], marker='o', color=colour, markersize=4)
    rows = ['labels', 'event', 'looks'] if labels is not None else ['event', 'looks']
    axis.set_yticks([ROWS[row] for row in rows], rows, fontsize=8)
    axis.set_ylim(-0.6, len(rows) + 0.3)  # Room for the legend.
    counts = next(f.counts for f in played.facts if f.spec.name == spec.name)
    axis.annotate(
        f'{counts.looks} looks, {counts.unchanged} unchanged, {counts.missed.total()} missed, '
        f'{counts.unsure} unsure',
        (1.0, 1.02),
        xycoords='axes fraction',
        ha='right',
        fontsize=8,
    )


def _explain(axis: Axes) -> None:
    """Say what the colours of looks mean."""
    meanings = {'says the event': YES, 'says not': NO, 'unsure': UNSURE}
    for meaning, colour in meanings.items():
        axis.plot([], [], linestyle='', marker='o', color=colour, label=f'a look {meaning}')
    axis.legend(fontsize=7, loc='upper left', ncol=3)


def _draw_costs(axis: Axes, played: Played) -> None:
    """Draw what each answer took, and how old its newest frame was then."""
    asked: list[dict[str, Any]] = [r for r in played.records if r['kind'] != 'event']
    answered = [record for record in asked if record['done_s'] > record['begun_s']]
    times = [record['begun_s'] for record in answered]
    for kind, colour in (('look', NO), ('question', EVENT)):
        own = [record for record in answered if record['kind'] == kind]
        if own:
            axis.plot(
                [record['begun_s'] for record in own],
                [1e3 * (record['done_s'] - record['begun_s']) for record in own],
                linestyle='',
                marker='.',
                color=colour,
                label=f'a {kind} took',
            )
    if times:
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=8, loc='upper right')
    axis.set_ylabel('ms', fontsize=8)
    axis.set_title('what answers took of the chip', fontsize=9, loc='left')


def _bar(axis: Axes, span: Span, row: float, colour: str) -> None:
    width = max(span.end_s - span.begin_s, 1 / NS_PER_S)
    axis.barh(row, width, left=span.begin_s, height=0.6, color=colour, alpha=0.85)
