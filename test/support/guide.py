"""What a guide in `doc/` says to write: its package, installed as pip would."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from support.packages import write_package

DOC: Final = Path(__file__).resolve().parents[2] / 'doc'
_FILE: Final = re.compile(r'^`([^`\s]+)`[^\n]*:\n\n```\w*\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_GROUP: Final = re.compile(
    r"^\[project\.entry-points\.'([\w.]+)'\]\n((?:\w+ = '[\w.:]+'\n)+)", re.MULTILINE
)
_POINT: Final = re.compile(r"^(\w+) = '([\w.:]+)'$", re.MULTILINE)


def files_in(guide: str) -> dict[str, str]:
    """Return the files of a guide by path: each block of code after a line that begins with one.

    Args:
        guide: Its name in `doc/`.
    """
    text = (DOC / guide).read_text(encoding='utf-8')
    return {found[1]: found[2] for found in _FILE.finditer(text)}


def install_guide(guide: str, folder: Path) -> Path:
    """Write the package that a guide shows, as it lies in a folder of the path; return the folder.

    Args:
        guide: Its name in `doc/`.
        folder: Where.
    """
    files = files_in(guide)
    project = files.pop('pyproject.toml')
    points = {group[1]: dict(_POINT.findall(group[2])) for group in _GROUP.finditer(project)}
    assert points, project
    return write_package(folder, Path(guide).stem, files, points)
