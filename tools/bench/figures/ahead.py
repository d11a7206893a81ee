"""Ready before you ask: time to first token with everything up to the question made ahead.

Against the plain schedule on the same engine: a frames-first prompt, computed when the question
has come. The demo model on this CPU for real; InternVL3-2B on the C stub of Axera's libraries,
which sleeps by the vendor's latency table or counts it, against the vendor's loop; hours of
watching in virtual time; a static Sophgo build on the scripted engine. What the plots of
doc/ahead.md are drawn from goes to build/ahead.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from tools.bench.figure import Figure, NotHereError

ROOT = Path(__file__).resolve().parents[3]
DATA = Path('build/ahead.json')
TIME_LIMIT_S = 3000
VENDOR = "the vendor's schedule"
_ROW_GOALS = {(1, 32): 1 / 3, (4, 32): 1 / 7, (8, 5): 1 / 10, (8, 10): 1 / 10, (8, 20): 1 / 10}

_Rows: TypeAlias = 'list[dict[str, Any]]'


def measure() -> Iterator[Figure]:
    """Measure everything, keep what the plots need, draw them where matplotlib is.

    Raises:
        NotHereError: There is no C compiler for the stub.
    """
    from tools.bench.ahead import on_cpu, scripted

    figures, data = on_cpu.measure()
    yield from figures
    yield scripted.measure_static()
    figure, waits = scripted.measure_waits()
    yield figure
    found = _on_axera()
    for kind in ('layout', 'row', 'turn', 'design'):
        of_kind = [result for result in found if result['kind'] == kind]
        yield from _FIGURES[kind](of_kind)
    DATA.parent.mkdir(parents=True, exist_ok=True)
    content = {'cpu': data, 'waits': waits, 'axera': found}
    DATA.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    _draw(content)


def _draw(content: dict[str, Any]) -> None:
    try:
        from tools.bench.ahead.plots import draw_all
    except ImportError as error:
        print(f'no plots: {error}; tools/setup/requirements/plots.txt has what they need ', end='')
        return
    draw_all(content, ROOT / 'doc')


def _layouts(found: _Rows) -> Iterator[Figure]:
    worst = max(found, key=lambda each: each['ready_s'] / each['least_s'])
    yield Figure(
        'ahead_axera_layouts_worst',
        worst['ready_s'],
        's',
        worst['least_s'],
        f'the least by the latency table; the worst of {len(found)} layouts: '
        f'{worst["frames"]} frames, {worst["tokens"]} tokens',
        worst['ready_s'] / worst['least_s'],
        'ratio <= 1.1',
    )


def _rows(found: _Rows) -> Iterator[Figure]:
    for row in found:
        frames, tokens = row['frames'], row['tokens']
        goal = _ROW_GOALS.get((frames, tokens))
        yield Figure(
            f'ahead_axera_ttft_{frames}_frames_{tokens}_tokens',
            row['ready_s'],
            's',
            row['vendor_s'],
            f'{VENDOR}; the plain schedule: {row["cold_s"]:.2f} s',
            row['ready_s'] / row['vendor_s'],
            f'ratio <= {goal:.4f}' if goal else '',
        )


def _turns(found: _Rows) -> Iterator[Figure]:
    for turn in found:
        yield Figure(
            'ahead_axera_ttft_second_turn_4_frames',
            turn['ready_s'],
            's',
            turn['vendor_s'],
            f'{VENDOR}, which keeps nothing: {turn["tokens"]} tokens',
            turn['ready_s'] / turn['vendor_s'],
            'ratio <= 0.1667',
        )


def _designs(found: _Rows) -> Iterator[Figure]:
    from tools.bench.ahead import designs

    by_name = {each['name']: each for each in found}
    eight, seven = by_name[designs.PLAIN_8], by_name[designs.PLAIN_7]
    flat, ready = by_name[designs.FLAT_OUT], by_name[designs.READY_7]
    fresh, hinted = by_name[designs.FRESH], by_name[designs.HINTED]
    yield _first_token('window_of_8_p95', flat, eight, 'ttft_p95_s', 0.1)
    yield Figure(
        'ahead_sim_age_of_newest_frame_p95',
        flat['age_p95_s'],
        's',
        eight['age_p95_s'],
        f'{VENDOR}, 8 frames; ours 4 to 8, flat out',
        flat['age_p95_s'] / eight['age_p95_s'],
        'value <= 16.8',
    )
    yield _first_token('frame_taken_at_question_p50', fresh, seven, 'ttft_p50_s', 1 / 3)
    yield _first_token('hinted_3_s_before_p50', hinted, seven, 'ttft_p50_s', 1 / 8)
    yield _first_token('gated_p50', ready, seven, 'ttft_p50_s', 0)
    yield Figure(
        'ahead_sim_chip_time_per_question',
        ready['chip_s_per_question'],
        's',
        seven['chip_s_per_question'],
        f'{VENDOR}, 7 frames; a question a minute, a change in 30 s',
        ready['chip_s_per_question'] / seven['chip_s_per_question'],
        'ratio <= 0.75',
    )
    yield Figure(
        'ahead_sim_answers_with_unseen_change',
        ready['unseen'],
        f'of {ready["questions"]}',
        goal='value == 0',
    )
    watched = [each for each in found if each['duty']]
    most = max(watched, key=lambda each: each['wait_max_s'])
    yield Figure(
        'ahead_sim_wait_for_work_under_way_most',
        1e3 * most['wait_max_s'],
        'ms',
        1e3 * max(each['wait_mean_s'] for each in watched),
        f'the longest mean of {len(watched)} ways of watching',
        goal='value <= 366',
    )


def _first_token(
    name: str, ours: dict[str, Any], theirs: dict[str, Any], key: str, goal: float
) -> Figure:
    return Figure(
        f'ahead_sim_ttft_{name}',
        ours[key],
        's',
        theirs[key],
        f'{VENDOR}, {theirs["frames"]:.0f} frames; ours {ours["frames"]:.1f} on average',
        ours[key] / theirs[key],
        f'ratio <= {goal:.4f}' if goal else '',
    )


_FIGURES = {'layout': _layouts, 'row': _rows, 'turn': _turns, 'design': _designs}


def _on_axera() -> _Rows:
    from support.axera.stub.build import build_stub
    from support.c_library import CompilerError

    try:
        library = build_stub('ax650')
    except CompilerError as error:
        raise NotHereError(str(error)) from error
    paths = [ROOT / 'test' / 'support' / 'axera' / 'standin', ROOT, ROOT / 'test']
    env = {
        **os.environ,
        'PYTHONPATH': os.pathsep.join(map(str, paths)),
        'EDGE_VLM_AX_LIBRARY': str(library),
    }
    done = subprocess.run(
        [sys.executable, '-m', 'tools.bench.ahead.on_axera'],
        env=env,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=TIME_LIMIT_S,
    )
    # axengine prints, too.
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{')]
