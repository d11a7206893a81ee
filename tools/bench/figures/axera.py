"""InternVL3-2B on an AX650N: what the host adds to the chip's time, and bytes moved per token.

The C stub of the vendor's libraries sleeps by the vendor's latency table; three ways to drive the
same set take turns in one process. Chip time is what the table says; what a busy machine lets the
stub oversleep is left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.bench.figure import Figure

ROOT = Path(__file__).resolve().parents[3]
VENDOR = "a loop as the vendor's demo has it"
_ROW_BYTES, _LAYERS, _HIDDEN_BYTES = 512, 28, 3072
_LOGITS_BYTES, _LINE_BYTES = 303348, 64
LEAST_BYTES = 2 * _LAYERS * _ROW_BYTES + _HIDDEN_BYTES + 2 * _LINE_BYTES + _LOGITS_BYTES
"""New K and V rows, one embedding row, position and mask element (a cache line each), logits."""

LEAST_CARD_BYTES = _HIDDEN_BYTES + 4 + 2 + _LOGITS_BYTES
"""An embedding row, its position and one element of the mask; the logits: what a card must get
and give."""
_CALLS_BEFORE = 199


def measure() -> Iterator[Figure]:
    """Run the measuring process, make figures of what it prints."""
    from support.axera.stub.build import build_card_stub, build_stub

    results = list(_results('tools.bench.axera.measure', build_stub('ax650')))
    decoded = {r['driver']: r for r in results if r['kind'] == 'Decoded'}
    ours, portable, vendor = (decoded[n] for n in ('in place', 'portable', 'vendor loop'))
    yield Figure(
        'axera_decode_host_share',
        100 * ours['host_share'],
        '% of chip time',
        100 * vendor['host_share'],
        VENDOR,
        ours['host_share'] / vendor['host_share'],
        'value <= 0.8',
    )
    yield Figure(
        'axera_decode_host_share_portable',
        100 * portable['host_share'],
        '% of chip time',
        100 * vendor['host_share'],
        VENDOR,
        portable['host_share'] / vendor['host_share'],
    )
    yield Figure(
        'axera_bytes_per_token',
        ours['cache_bytes'] / 1e3,
        'kB',
        LEAST_BYTES / 1e3,
        'new K and V rows, hidden state, mask change, logits',
        ours['cache_bytes'] / LEAST_BYTES,
        'ratio <= 1.1',
    )
    yield Figure(
        'axera_bytes_per_token_against_vendor',
        ours['cache_bytes'] / 1e3,
        'kB',
        vendor['cache_bytes'] / 1e3,
        f'{VENDOR}, flushed and invalidated; ratio = times fewer',
        vendor['cache_bytes'] / ours['cache_bytes'],
    )
    calls = next(r['calls'] for r in results if r['kind'] == 'Calls')
    yield Figure(
        'axera_decode_python_calls',
        calls,
        'calls a token',
        _CALLS_BEFORE,
        'before runs were prepared',
        calls / _CALLS_BEFORE,
        'value <= 60',
    )
    yield from _on_card(list(_results('tools.bench.axera.on_card', build_card_stub())))
    yield from _first_tokens([r for r in results if r['kind'] == 'FirstToken'])


def _on_card(results: list[dict[str, Any]]) -> Iterator[Figure]:
    ours, portable = results
    yield Figure(
        'axera_card_bytes_per_token',
        ours['pcie_bytes'] / 1e3,
        'kB',
        LEAST_CARD_BYTES / 1e3,
        'embedding row, position, mask change, logits; over PCIe',
        ours['pcie_bytes'] / LEAST_CARD_BYTES,
        'ratio <= 1.1',
    )
    yield Figure(
        'axera_card_bytes_per_token_against_portable',
        ours['pcie_bytes'] / 1e3,
        'kB',
        portable['pcie_bytes'] / 1e3,
        "axengine's sessions; ratio = times fewer",
        portable['pcie_bytes'] / ours['pcie_bytes'],
    )
    yield Figure(
        'axera_card_decode_host_share',
        100 * ours['host_share'],
        '% of chip time',
        100 * portable['host_share'],
        "axengine's sessions",
        ours['host_share'] / portable['host_share'],
        'value <= 1',
    )


def _first_tokens(asked: list[dict[str, Any]]) -> Iterator[Figure]:
    for images in sorted({r['images'] for r in asked}):
        walls = {r['driver']: r['wall_s'] for r in asked if r['images'] == images}
        vendor = next(r for r in asked if r['images'] == images and r['driver'] == 'vendor loop')
        for driver, goal in (('in place', 'ratio <= 1.05'), ('portable', '')):
            name = f'axera_ttft_{images}_images' + ('_portable' if driver == 'portable' else '')
            yield Figure(
                name,
                walls[driver],
                's',
                vendor['chip_s'],
                f'latency table and vision tower alone; {VENDOR}: {vendor["wall_s"]:.3f} s',
                walls[driver] / vendor['chip_s'],
                goal,
            )


def _results(module: str, library: Path) -> Iterator[dict[str, Any]]:
    paths = [ROOT / 'test' / 'support' / 'axera' / 'standin', ROOT, ROOT / 'test']
    env = {
        **os.environ,
        'PYTHONPATH': os.pathsep.join(map(str, paths)),
        'EDGE_VLM_AX_LIBRARY': str(library),
    }
    done = subprocess.run(
        [sys.executable, '-m', module],
        env=env,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=600,
    )
    for line in done.stdout.splitlines():
        if line.startswith('{'):  # axengine prints too
            yield json.loads(line)
