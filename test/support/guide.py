"""What a guide in `doc/` says to write: its files, as it shows them."""

from __future__ import annotations

import re
from pathlib import Path

DOC = Path(__file__).resolve().parents[2] / 'doc'
_FILE = re.compile(r'^`([^`\s]+)`[^\n]*:\n\n```\w*\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def files_in(name: str) -> dict[str, str]:
    """Return the files of a guide by path: each block of code after a line that begins with one.

    Args:
        name: Of the guide in `doc/`.
    """
    text = (DOC / name).read_text(encoding='utf-8')
    return {found[1]: found[2] for found in _FILE.finditer(text)}


def write_files(name: str, folder: Path) -> Path:
    """Write the files of a guide into a folder, and return it."""
    for path, text in files_in(name).items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding='utf-8')
    return folder
