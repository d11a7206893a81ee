"""Looking for axengine: what it needs, what its wheel can do, and which way to the chip it takes.

Wheels since the first 0.1.3 all say that they are 0.1.3: their code is read, not their number.

Source: AXERA-TECH/pyaxengine, tags 0.1.3rc0 to 0.1.3.rc3.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from edge_vlm_ros.cli.findings import Finding, State
from edge_vlm_ros.cli.machine import Machine
from edge_vlm_ros.cli.probes import find_vendor_module, import_error

OLDEST_AXENGINE: Final = (0, 1, 3)
"""Older ones lack shape groups, or give wrong results on cards."""
_NEWEST: Final = '0.1.3.rc3'
_REMEDY: Final = (
    'install the wheel from github.com/AXERA-TECH/pyaxengine; not needed for other chips'
)
_NEEDS: Final = (('cffi', 'cffi'), ('ml_dtypes', 'ml-dtypes'))
_ABILITIES: Final = (
    ('_axe.py', 'mmap', 'keeps every model file in host memory, too'),
    ('_axe.py', '.copy()', 'gives out results that the next run overwrites (copied here)'),
    ('_providers.py', 'axcl_host', 'names a card first even where there is none (chosen here)'),
)
"""File of the package, what stands in it, what a package without that does."""


def find_axengine(topic: str, machine: Machine) -> Iterator[Finding]:
    """Look for the package, and if it is there for what it needs and can do."""
    found = find_vendor_module(topic, 'axengine', 'axengine', _REMEDY, OLDEST_AXENGINE)
    folder = package_folder()
    lacking = lacks(folder) if folder is not None and found.state is State.OK else []
    if lacking:
        told = f'{found.found}, a wheel that {"; ".join(lacking)}'
        # Only the first costs anything; from the others we are guarded.
        is_costly = _ABILITIES[0][2] in lacking
        state = State.WARNING if is_costly else State.OK
        remedy = f'{_NEWEST}: {_REMEDY}' if is_costly else ''
        found = replace(found, state=state, found=told, remedy=remedy)
    yield found
    if found.state is State.ABSENT:
        return
    for module, package in _NEEDS:
        error = import_error(f'import {module}')
        if error is not None:
            remedy = f'{sys.executable} -m pip install --force-reinstall {package}'
            yield Finding(topic, package, State.WARNING, f'axengine needs it: {error}', remedy)
    yield from _find_provider(topic, machine)


def package_folder() -> Path | None:
    """Return where the package lies, without importing it; None = it is not here."""
    try:
        spec = importlib.util.find_spec('axengine')
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def lacks(folder: Path) -> list[str]:
    """Say what a wheel lacks, read off its code; a file that is not there says nothing."""
    told = []
    for name, ability, what in _ABILITIES:
        try:
            text = (folder / name).read_text(encoding='utf-8', errors='replace')
        except OSError:
            continue
        if ability not in text:
            told.append(what)
    return told


def _find_provider(topic: str, machine: Machine) -> Iterator[Finding]:
    """Say which way is taken where both libraries are here."""
    if not all(map(ctypes.util.find_library, ('ax_engine', 'axcl_rt'))):
        return
    try:
        from edge_vlm_ros.engines.axera.providers import has_card
    except ImportError:  # The doctor works without numpy, too.
        return
    way = 'card' if has_card(machine.root) else 'chip'
    found = f'libraries for chip and card are here; {way} is taken'
    yield Finding(topic, 'provider', State.OK, found, 'engine option provider says otherwise')
