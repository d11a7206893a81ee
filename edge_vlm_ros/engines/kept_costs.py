"""Costs of runs that were measured when a model was loaded, kept beside it for the next time.

A prompt is cut by what runs cost, and where two cuts cost about the same, the noise of a
measurement would choose: a prompt that went in as a chunk today may go in as single steps
tomorrow, and a chip that computes both with rounded numbers of its own answers with other bits. So
what was measured first is kept and taken again as long as what is measured now has about the same
proportions. A chip that is as much slower in all of its runs, with a lower clock, plans alike.

Where nothing can be kept, costs are only rounded: then two loads plan alike but for costs that
lie near the edge of a rounding.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Final

from edge_vlm_ros.core import ModelFiles

_log = logging.getLogger(__name__)

FILE: Final = '.edge_vlm_costs.json'
"""Beside the weights; its keys are what was driven how."""
_ALIKE: Final = 1.3
"""How many times more or less than its share a run may cost, to be what was kept."""
_DIGITS: Final = 2
_LARGEST_FILE: Final = 1 << 20


def settle(measured: Mapping[str, float], files: ModelFiles, how: str) -> dict[str, float]:
    """Take the costs that were kept of a model, or keep what was measured now.

    Args:
        measured: By run, above 0; in any one unit.
        files: Of the model; costs of other files of the same names are not taken.
        how: What else costs depend on: the way the chip is driven.

    Returns:
        Costs of the same runs, rounded.
    """
    rounded = {run: _rounded(cost) for run, cost in measured.items()}
    key = _key(files, how)
    for folder in _folders(files):
        kept = _read(folder / FILE)
        if key in kept and _is_alike(rounded, kept[key]):
            return kept[key]
    for folder in _folders(files):
        if _keep(folder / FILE, key, rounded):
            break
    return rounded


def _folders(files: ModelFiles) -> Iterable[Path]:
    """List where costs may lie: beside the weights, or where programs of this user keep things."""
    yield files.folder
    home = os.environ.get('XDG_CACHE_HOME', '')
    with suppress(RuntimeError):  # this user has no home
        yield (Path(home) if home else Path.home() / '.cache') / 'edge_vlm_ros'


def _key(files: ModelFiles, how: str) -> str:
    """Name files by part, name, size and time, and how they are driven."""
    said = [files.chip, how]
    for part, path in sorted(files.weights.items()):
        stat = path.stat()
        said.append(f'{part} {path.name} {stat.st_size} {stat.st_mtime_ns}')
    return f'{files.chip} {how} {hashlib.sha256(chr(10).join(said).encode()).hexdigest()[:16]}'


def _rounded(cost: float) -> float:
    """Round to a few digits; what is not above 0 stays."""
    if not (cost > 0 and math.isfinite(cost)):
        return cost
    return round(cost, _DIGITS - 1 - math.floor(math.log10(cost)))


def _is_alike(now: Mapping[str, float], kept: Mapping[str, float]) -> bool:
    """Say whether runs cost what they did, all of them as many times more or less."""
    if now.keys() != kept.keys() or not all(cost > 0 for cost in now.values()):
        return False
    ratios = [now[run] / kept[run] for run in now]
    middle = median(ratios)
    return all(1 / _ALIKE <= ratio / middle <= _ALIKE for ratio in ratios)


def _read(path: Path) -> dict[str, dict[str, float]]:
    """Read a file of costs; what is not as it was written counts as not kept."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            return {}
        found = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError):
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {key: dict(costs) for key, costs in entries if _are_costs(costs)}


def _are_costs(costs: object) -> bool:
    return isinstance(costs, dict) and all(
        isinstance(cost, float) and cost > 0 and math.isfinite(cost) for cost in costs.values()
    )


def _keep(path: Path, key: str, costs: Mapping[str, float]) -> bool:
    """Write costs beside others, in one step; return whether that worked."""
    kept = _read(path) | {key: dict(costs)}
    made = path.with_name(f'{path.name}.{os.getpid()}')
    try:
        if path.parent.name == 'edge_vlm_ros':
            path.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(json.dumps(kept, indent=1), encoding='utf-8')
        made.replace(path)
    except OSError as error:
        _log.debug('costs are not kept in %s: %s', path, error)
        with suppress(OSError):
            made.unlink(missing_ok=True)
        return False
    return True
