"""Chips that break when told to: real engines in a real model process, one fault at a time.

Each is a chip of another package (`doc/adding_a_chip.md`), found by an entry point that
`install` writes, whose engine is this package's own with `support.broken.engine` around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edge_vlm_ros.core import Chip, FileForm
from support.broken.order import ORDER_FILE
from support.packages import CHIPS as GROUP
from support.packages import write_package

_ENGINE: Final = 'support.broken.engine'


def _row(name: str, form: FileForm, suffix: str) -> Chip:
    return Chip(f'broken-{name}', 'none', form, suffix, _ENGINE, is_launchable=False)


SCRIPTED = _row('scripted', FileForm.SCRIPT, '.yaml')
CPU = _row('cpu', FileForm.ONNX, '.onnx')
AX650 = _row('ax650', FileForm.AXMODELS, '.axmodel')


def install(folder: Path) -> Path:
    """Write the package that brings the chips; return the folder to put into the path."""
    rows = {'scripted': 'SCRIPTED', 'cpu': 'CPU', 'ax650': 'AX650'}
    points = {f'broken-{name}': f'support.broken:{row}' for name, row in rows.items()}
    return write_package(folder, 'support_broken', {}, {GROUP: points})


def environment(order: Path) -> Mapping[str, str]:
    """Return what a model process has to know to find its orders."""
    return {ORDER_FILE: str(order)}
