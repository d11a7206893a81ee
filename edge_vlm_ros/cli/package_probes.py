"""Looking for what other packages bring: chips and model families."""

from __future__ import annotations

from collections.abc import Iterator

from edge_vlm_ros.cli.findings import Finding, State
from edge_vlm_ros.cli.probes import import_error
from edge_vlm_ros.core import (
    CHIPS,
    FAMILIES,
    broken_chips,
    broken_families,
    known_chips,
    known_families,
)

TOPIC = 'Chips and families of other packages'


def find_packages() -> Iterator[Finding]:
    """Look at each of them: is it there, and can its module be imported?"""
    for chip in known_chips():
        if chip not in CHIPS:
            yield _module_finding(f'chip {chip.name}', chip.engine or chip.backend.split(':')[0])
    for family in known_families():
        if family not in FAMILIES:
            yield _module_finding(f'family {family.name}', family.module)
    for kind, broken in (('chip', broken_chips()), ('family', broken_families())):
        for row in broken:
            remedy = f'update or remove {row.package}'
            yield Finding(TOPIC, f'{kind} {row.name}', State.WARNING, row.problem, remedy)


def _module_finding(name: str, module: str) -> Finding:
    error = import_error(f'import {module}')
    if error is None:
        return Finding(TOPIC, name, State.OK, module)
    return Finding(TOPIC, name, State.WARNING, error, f'install what {module} needs')
