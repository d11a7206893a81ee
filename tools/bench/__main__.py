"""`python -m tools.bench`: measure, print a table, write build/bench.json."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from pathlib import Path

from tools.bench.figure import Figure, NotHereError, as_table
from tools.bench.registry import MODULES, choose, measure, title_of

_PRIORITY = 5  # of 99; the kernel's own threads stand at 50
OUTPUT = Path('build/bench.json')


def main() -> int:
    """Run the benchmark.

    Returns:
        0 when everything was measured that can be on this machine, whether or not goals were
        met; 1 when measuring something failed; 2 on bad usage.
    """
    parser = argparse.ArgumentParser(
        prog='python -m tools.bench',
        description='Measure side by side, print a table, write a JSON file.',
        epilog='A goal that is not met is no failure: times depend on what else the machine does.',
    )
    parser.add_argument(
        '--only',
        action='append',
        default=[],
        metavar='NAME',
        help=f'one of {", ".join(MODULES)}, or the beginning of one; may be repeated',
    )
    parser.add_argument(
        '--output', type=Path, default=OUTPUT, metavar='FILE', help=f'default: {OUTPUT}'
    )
    parser.add_argument(
        '--plain-priority',
        action='store_true',
        help='do not ask Linux to let the benchmark go before other work on this machine',
    )
    args = parser.parse_args()
    try:
        modules = choose(args.only)
    except ValueError as error:
        parser.error(str(error))
    if not args.plain_priority and not _go_first():
        print('other work on this machine may disturb (no right to real-time priority)')
    figures, failed = _measure_all(modules)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    content = {'figures': [figure.fields() for figure in figures]}
    args.output.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')
    if figures:
        print(f'\n{as_table(figures)}')
    print(f'\nwritten to {args.output}')
    if failed:
        print(f'could not be measured: {", ".join(failed)}', file=sys.stderr)
    return 1 if failed else 0


def _go_first() -> bool:
    """Ask Linux to run this process and those it starts before all others; return whether it does.

    On a busy machine every wake-up of a process waits for its turn, so what passes through more
    processes seems slower than it is. Linux leaves other work a twentieth of the time.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(_PRIORITY))
    except (AttributeError, OSError):
        return False
    return True


def _measure_all(modules: tuple[str, ...]) -> tuple[list[Figure], list[str]]:
    """Run the modules one after the other; one that fails does not stop the others."""
    figures: list[Figure] = []
    failed: list[str] = []
    for module in modules:
        print(f'{module}: {title_of(module)} ', end='', flush=True)
        started_s = time.monotonic()
        try:
            figures += measure(module)
        except NotHereError as reason:
            print(f'not measured: {reason} ', end='')
        except Exception:  # noqa: BLE001 (the other figures are still worth having)
            traceback.print_exc()
            failed.append(module)
        print(f'({time.monotonic() - started_s:.0f} s)', flush=True)
    return figures, failed


if __name__ == '__main__':
    sys.exit(main())
