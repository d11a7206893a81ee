"""Draws the plots of doc/ahead.md: `python -m tools.bench.ahead.plots` reads build/ahead.json.

Needs matplotlib (tools/setup/requirements/plots.txt).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib as mpl
from matplotlib import pyplot as plt

from tools.bench.ahead import designs

_INK, _FAINT, _GRID = '#1f2933', '#7b8794', '#e4e7eb'
_SLOW, _PLAIN, _READY, _OTHER = '#c2410c', '#d9a441', '#0f766e', '#5b8def'
_TOKENS = 20
_DPI = 110

_Content: TypeAlias = 'dict[str, Any]'
_Axes: TypeAlias = Any


def draw_all(content: _Content, folder: Path) -> None:
    """Write the plots as PNG.

    Args:
        content: Of build/ahead.json.
        folder: Where they go.
    """
    mpl.use('Agg')
    mpl.rcParams.update(
        {
            'font.size': 15,
            'font.family': 'DejaVu Sans',
            'text.color': _INK,
            'axes.labelcolor': _INK,
            'axes.edgecolor': _FAINT,
            'axes.spines.top': False,
            'axes.spines.right': False,
            'axes.titlesize': 17,
            'axes.titleweight': 'bold',
            'axes.titlelocation': 'left',
            'xtick.color': _INK,
            'ytick.color': _INK,
            'lines.linewidth': 3,
            'lines.markersize': 9,
        }
    )
    _first_token(content, folder / 'ahead_first_token.png')
    found = {each['name']: each for each in content['axera'] if each['kind'] == 'design'}
    _age(found, folder / 'ahead_age.png')
    _chip_time(found, folder / 'ahead_chip_time.png')
    _waits(found, folder / 'ahead_waits.png')


def _first_token(content: _Content, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 5.6), layout='constrained')
    layouts = [
        each for each in content['axera'] if each['kind'] == 'layout' and each['tokens'] == _TOKENS
    ]
    frames = [each['frames'] for each in layouts]
    vendor = [each['vendor_s'] for each in layouts]
    ready = [each['ready_s'] for each in layouts]
    left.set_title('InternVL3-2B on an AX650N (its latency table)')
    left.plot(frames, vendor, 'o-', color=_SLOW)
    left.plot(frames, ready, 'o-', color=_READY)
    left.annotate(
        f"vendor's schedule: {vendor[-1]:.1f} s",
        (frames[-1], vendor[-1]), (-14, -4), textcoords='offset points', ha='right', color=_SLOW,
    )  # fmt: skip
    left.annotate(
        f'ready before you ask: {ready[-1]:.1f} s',
        (frames[-1], ready[-1]), (0, 16), textcoords='offset points', ha='right', color=_READY,
    )  # fmt: skip
    _finish(left, 'frames watched', 'seconds to the first token')
    cpu = content['cpu']
    right.set_title('Demo model on two CPU cores (measured)')
    right.plot(cpu['frames'], cpu['cold_ms'], 'o-', color=_SLOW)
    right.plot(cpu['frames'], cpu['ready_ms'], 'o-', color=_READY)
    right.annotate(
        f'asked cold: {cpu["cold_ms"][-1]:.0f} ms',
        (cpu['frames'][-1], cpu['cold_ms'][-1]),
        (-16, -4), textcoords='offset points', ha='right', color=_SLOW,
    )  # fmt: skip
    right.annotate(
        f'ready: {cpu["ready_ms"][-1]:.1f} ms  (no frame at all: {cpu["no_frame_ms"]:.1f} ms)',
        (cpu['frames'][-1], cpu['ready_ms'][-1]),
        (0, 16), textcoords='offset points', ha='right', color=_READY,
    )  # fmt: skip
    _finish(right, 'frames watched', 'milliseconds to the first token')
    right.set_xticks(cpu['frames'])
    _save(figure, path)


def _age(found: _Content, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(11, 6.4), layout='constrained')
    axes.set_title('How old is the newest frame when the answer begins?')
    shown = (
        (designs.PLAIN_8, _SLOW, "vendor's\nschedule", (-14, 16)),
        (designs.EVERY_30, _OTHER, 'a frame\nevery 30 s', (16, 20)),
        (designs.EVERY_10, _OTHER, 'a frame every 10 s', (16, -5)),
        (designs.FLAT_OUT, _OTHER, 'flat out, 4 to 8 frames', (-16, -5)),
        (designs.FRESH, _READY, 'on change, and a frame taken at the question', (16, -5)),
    )
    for name, colour, label, offset in shown:
        each = found[name]
        x = 100 * each['duty']
        axes.plot([x, x], [each['age_p50_s'], each['age_p95_s']], color=colour, linewidth=4)
        axes.plot([x], [each['age_p95_s']], '_', color=colour, markersize=18, markeredgewidth=4)
        axes.plot([x], [each['age_p50_s']], 'o', color=colour, markersize=12)
        axes.annotate(
            label, (x, each['age_p50_s']), offset, textcoords='offset points', color=colour,
            ha='right' if name == designs.FLAT_OUT else 'left',
        )  # fmt: skip
    changed = found[designs.READY_7]
    axes.annotate(
        'On change alone, an old frame of an unchanged scene counts as new:\n'
        f'{changed["unseen"]} of {changed["questions"]} answers missed a change, '
        f'for {100 * changed["duty"]:.0f} % of the chip.',
        (1, 0.98), xycoords='axes fraction', ha='right', va='top', color=_READY,
    )  # fmt: skip
    _finish(axes, 'share of the chip spent on work ahead, %', 'age in seconds (median to 95 %)')
    axes.set_xlim(-4, 103)
    top = max(found[name]['age_p95_s'] for name, *_ in shown)
    axes.set_ylim(0, top * 1.35)
    _save(figure, path)


def _chip_time(found: _Content, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(11, 5.8), layout='constrained')
    figure.suptitle(
        'Chip seconds per question: one a minute, a change in 30 s',
        x=0.01, ha='left', size=17, weight='bold',
    )  # fmt: skip
    shown = (
        (designs.PLAIN_8, _SLOW),
        (designs.PLAIN_7, _SLOW),
        (designs.READY_4, _READY),
        (designs.READY_7, _READY),
        (designs.FRESH, _READY),
        (designs.HINTED, _READY),
        (designs.EVERY_10, _OTHER),
        (designs.FLAT_OUT, _OTHER),
    )
    names = {
        designs.PLAIN_8: "vendor's schedule, 8 frames",
        designs.PLAIN_7: "vendor's schedule, 7 frames",
        designs.READY_7: 'on change, up to 7 frames',
        designs.READY_4: 'on change, up to 4 frames',
        designs.FRESH: 'with a frame taken at the question',
        designs.HINTED: 'with a hint 3 s before',
        designs.EVERY_10: 'a frame every 10 s',
        designs.FLAT_OUT: 'flat out, 4 to 8 frames',
    }
    for place, (name, colour) in enumerate(reversed(shown)):
        value = found[name]['chip_s_per_question']
        axes.barh(place, value, color=colour, height=0.7)
        axes.annotate(
            f'{value:.1f}', (value, place), (8, 0), textcoords='offset points', va='center'
        )
    axes.set_yticks(range(len(shown)), [names[name] for name, _ in reversed(shown)])
    axes.tick_params(axis='y', length=0)
    axes.spines['left'].set_visible(False)
    axes.set_xlabel('seconds, with a 40-token answer')
    axes.set_xlim(0, 1.1 * max(found[name]['chip_s_per_question'] for name, _ in shown))
    _save(figure, path)


def _waits(found: _Content, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(11, 5), layout='constrained')
    axes.set_title('How long does a question wait for work ahead?')
    waits = [1e3 * wait for wait in found[designs.FLAT_OUT]['waits_s']]
    axes.hist(waits, bins=range(0, 400, 20), color=_OTHER, edgecolor='white')
    longest = max(waits)
    axes.axvline(365, color=_SLOW, linestyle=':', linewidth=3)
    axes.annotate(
        'the longest piece: one run\nof the vision tower, 365 ms', (365, 0.95), (-10, 0),
        xycoords=('data', 'axes fraction'), textcoords='offset points', ha='right', va='top',
        color=_SLOW,
    )  # fmt: skip
    _finish(
        axes,
        f'milliseconds ({len(waits)} questions, chip flat out; longest wait {longest:.0f} ms)',
        'questions',
    )
    _save(figure, path)


def _finish(axes: _Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(axis='y', color=_GRID)
    axes.set_axisbelow(True)
    axes.set_ylim(bottom=0)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)


if __name__ == '__main__':
    draw_all(json.loads(Path('build/ahead.json').read_text(encoding='utf-8')), Path('doc'))
