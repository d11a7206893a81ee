"""Packages of others, as pip lays them out: modules, and metadata with entry points."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest

CHIPS = 'edge_vlm_ros.chips'
FAMILIES = 'edge_vlm_ros.families'


def write_package(
    folder: Path,
    name: str,
    files: Mapping[str, str],
    entry_points: Mapping[str, Mapping[str, str]],
) -> Path:
    """Write a package as it lies in a folder of the path once it is installed.

    Args:
        folder: Where.
        name: Of the package; its version is 1.0.
        files: Text by path.
        entry_points: By group: value by name.

    Returns:
        The folder.
    """
    groups = [
        f'[{group}]\n' + ''.join(f'{name} = {value}\n' for name, value in points.items())
        for group, points in entry_points.items()
    ]
    info = f'{name}-1.0.dist-info'
    metadata = {
        f'{info}/METADATA': f'Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n',
        f'{info}/entry_points.txt': '\n'.join(groups),
    }
    for path, text in {**files, **metadata}.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding='utf-8')
    return folder


def install_package(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    name: str,
    files: Mapping[str, str],
    entry_points: Mapping[str, Mapping[str, str]],
) -> None:
    """Write a package and put it into this process's path, for one test.

    Model processes that the test starts see it, too: they get the path of who starts them.
    """
    for path in files:
        module = path.removesuffix('.py').removesuffix('/__init__').replace('/', '.')
        sys.modules.pop(module, None)  # that of an earlier test
    monkeypatch.syspath_prepend(str(write_package(folder, name, files, entry_points)))
