"""`python -m tools.soak`: ask and break, print a table, write build/soak.json."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from tools.soak.run import Held, Outcome, Soak
from tools.soak.usage import Sample, slope

OUTPUT: Final = Path('build/soak.json')
_WARM_UP: Final = 0.7
"""Share of the requests after which caches, sessions and buffers are full, and nothing dies."""

_FLAT_MB: Final = 2.0
"""Growth in 1000 requests that is still flat."""

_LEAST_FOR_SLOPE: Final = 1000
_SHOWN: Final = 20
_MORE: Final = 2
"""Descriptors or threads more than at the start that mean nothing."""


def main() -> int:
    """Run a soak.

    Returns:
        0 when all that was promised held, 1 when not.
    """
    parser = argparse.ArgumentParser(prog='python -m tools.soak', description=__doc__)
    parser.add_argument('--requests', type=int, default=2400)
    parser.add_argument('--seconds', type=float, default=600.0, help='at most; default: 600')
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--output', type=Path, default=OUTPUT, metavar='FILE')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='edge_vlm_soak_') as folder:
        outcome = Soak(args.requests, args.seed, args.seconds, Path(folder)).run()
    report = report_of(outcome, args.seed)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(report, indent=2) + '\n', encoding='utf-8')
    print(as_text(report))
    return 1 if report['wrongs'] else 0


def report_of(outcome: Outcome, seed: int) -> dict[str, Any]:
    """Judge a soak; `wrongs` lists what did not hold."""
    ledger = outcome.ledger
    number = len(ledger.asked)
    node, model = (_late(samples, number) for samples in (outcome.node, outcome.model))
    wrongs = list(outcome.wrongs)
    for name, samples in (('node', node), ('model process', model)):
        if number >= _LEAST_FOR_SLOPE and slope(samples) > _FLAT_MB:
            wrongs.append(
                f'memory of the {name} grows by {slope(samples):.2f} MB in 1000 requests'
            )
    if ledger.bystanders() > outcome.deaths:
        wrongs.append(f'{outcome.deaths} deaths cost {ledger.bystanders()} answers of others')
    wrongs += _held_more(outcome.before, outcome.after)
    wrongs += [f'left behind: {each}' for each in outcome.left]
    return {
        'seed': seed,
        'requests': number,
        'seconds': round(outcome.seconds, 1),
        'deaths': outcome.deaths,
        'answers_others_lost': ledger.bystanders(),
        'answers_compared_with_frames': ledger.checked(),
        'node_mb': _range(outcome.node),
        'node_mb_per_1000_requests': round(slope(node), 3),
        'model_mb': _range(outcome.model),
        'model_mb_per_1000_requests': round(slope(model), 3),
        'held_before': asdict(outcome.before) if outcome.before else {},
        'held_after': asdict(outcome.after) if outcome.after else {},
        'left': outcome.left,
        'ends': ledger.ends(),
        'kinds': ledger.kinds(),
        'wrongs': wrongs,
    }


def as_text(report: dict[str, Any]) -> str:
    """Lay a report out for a terminal."""
    rows = {name: value for name, value in report.items() if name != 'wrongs'}
    width = max(map(len, rows))
    lines = [f'{name.ljust(width)}  {_words(value)}' for name, value in rows.items()]
    wrongs = report['wrongs']
    lines.append(f'{"wrong".ljust(width)}  {len(wrongs) or "nothing"}')
    lines += [f'  {wrong}' for wrong in wrongs[:_SHOWN]]
    return '\n'.join(lines)


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ', '.join(f'{name} {number}' for name, number in value.items())
    return str(value)


def _late(samples: list[Sample], requests: int) -> list[Sample]:
    return [each for each in samples if each.requests >= _WARM_UP * requests]


def _range(samples: list[Sample]) -> list[float]:
    found = [round(each.megabytes, 1) for each in samples]
    return [min(found), max(found)] if found else []


def _held_more(before: Held | None, after: Held | None) -> list[str]:
    if before is None or after is None:
        return ['what is held when idle was not counted']
    then, now = asdict(before), asdict(after)
    return [f'{now[n]} {n}, {then[n]} at the start' for n in then if now[n] > then[n] + _MORE]


if __name__ == '__main__':
    sys.exit(main())
