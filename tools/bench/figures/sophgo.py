"""Sophgo contracts: bytes, copies and launches a token, and the host's share of a decode step.

Tiny bmodels of each contract on the vendor's runtime and chip emulator; for some of them a loop
written as the vendor's sample is takes turns with ours. The host's share is that of the real
model: what was measured of a step, its layers put at their real number, against the step that the
vendor publishes. The host is this machine, where the vendor's was a Cortex-A53.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any, TypeAlias

from tools.bench.figure import Figure, NotHereError
from tools.bench.sophgo.cases import CASES, CHIP, PUBLISHED, PublishedModel
from tools.bench.sophgo.process import run_cases

TIME_LIMIT_S = 500
SAMPLE = "a loop as the vendor's sample has it"
_REAL_LAYERS = 28
_REAL_CACHE_MIB = 84  # Qwen2-VL-7B, 1536 tokens: 2 * 28 * 1536 * 4 * 128 * 2 bytes

_Results: TypeAlias = 'dict[str, dict[str, Any]]'


def measure() -> Iterator[Figure]:
    """Run the measuring process, make figures of what it found.

    Raises:
        NotHereError: There is no chip emulator.
    """
    from support.sophgo import emulator

    lacking = emulator.missing()
    if lacking:
        raise NotHereError(lacking)
    names = tuple(case.name for case in CASES)
    with tempfile.TemporaryDirectory(prefix='edge_vlm_bench_') as folder:
        found = emulator.call(CHIP, run_cases, names, folder, time_limit_s=TIME_LIMIT_S)
    results: _Results = {result['name']: result for result in found}
    yield from map(_bytes, results.values())
    for result in results.values():
        if 'sample' in result['moved']:
            yield from _against_sample(result)
    yield from _copies(results)
    for model in PUBLISHED:
        yield _host_share(model, results[model.case])


def _bytes(result: dict[str, Any]) -> Figure:
    moved = _transferred(result['moved']['ours'])
    return Figure(
        f'sophgo_bytes_per_token_{result["name"]}',
        moved,
        'bytes',
        result['least'],
        'the fewest: position, mask element, what tells the token',
        moved / result['least'],
        'ratio <= 1.1',
    )


def _transferred(moved: dict[str, float]) -> float:
    return moved['up'] + moved['down']


def _on_device(moved: dict[str, float]) -> float:
    return moved['device_bytes'] + moved['inner_bytes']


def _against_sample(result: dict[str, Any]) -> Iterator[Figure]:
    name, layers = result['name'], len(result['kinds'])
    ours, sample = result['moved']['ours'], result['moved']['sample']
    against = f'{SAMPLE}, {layers} layers'
    yield Figure(
        f'sophgo_bytes_per_token_{name}_sample',
        _transferred(ours),
        'bytes',
        _transferred(sample),
        f'{against}; ratio = times fewer',
        _transferred(sample) / _transferred(ours),
    )
    yield Figure(
        f'sophgo_copied_on_chip_{name}',
        _on_device(ours),
        'bytes',
        _on_device(sample),
        f'{against}; launches copy what lies elsewhere',
        _on_device(ours) / _on_device(sample),
        'ratio <= 1',
    )
    yield Figure(
        f'sophgo_launches_per_token_{name}',
        ours['launches'],
        'launches',
        sample['launches'],
        against,
        ours['launches'] / sample['launches'],
        'ratio <= 1',
    )


def _copies(results: _Results) -> Iterator[Figure]:
    """Give the worst of all contracts, beside the sample that copies most."""
    ours = [result['moved']['ours'] for result in results.values()]
    worst = results['qwen2vl_2024']['moved']['sample']
    copies = max(moved['device_copies'] for moved in ours)
    yield Figure(
        'sophgo_device_copies_per_token',
        copies,
        'copies',
        worst['device_copies'],
        f'Qwen2-VL sample, 2 layers; 3 a layer and 2: {3 * _REAL_LAYERS + 2} in the real one',
        copies / worst['device_copies'],
        'value == 0',
    )
    kv_bytes = max(moved['kv_bytes'] for moved in ours)
    yield Figure(
        'sophgo_kv_copied_per_token',
        kv_bytes,
        'bytes',
        worst['kv_bytes'],
        f'Qwen2-VL sample, 2 layers, 64 tokens; {_REAL_CACHE_MIB} MiB in the real one',
        kv_bytes / worst['kv_bytes'],
        'value == 0',
    )


def _host_share(model: PublishedModel, result: dict[str, Any]) -> Figure:
    """Put the layers at their real number; each kind was measured apart."""
    shares = {
        driver: 100 * model.tokens_per_s * _step_s(model, host)
        for driver, host in result['host'].items()
    }
    return Figure(
        f'sophgo_decode_host_share_{model.case}',
        shares['ours'],
        '% of a step',
        shares['sample'],
        f'{SAMPLE}; of {1000 / model.tokens_per_s:.1f} ms, {model.name}, '
        f'{sum(model.layers.values())} layers',
        shares['ours'] / shares['sample'],
        'value <= 1',
    )


def _step_s(model: PublishedModel, host: dict[str, Any]) -> float:
    return float(
        host['fixed'] + sum(count * host['layers'][kind] for kind, count in model.layers.items())
    )
