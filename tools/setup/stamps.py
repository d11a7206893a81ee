"""Remember which inputs a step was done with."""

from __future__ import annotations

import hashlib
from pathlib import Path


class Stamp:
    """A file that holds the key of the last finished run of a step.

    Args:
        path: Where it lies; inside `.venv`, so that it goes with it.
        key: What the step depends on, as `key_of` makes it.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._key = key

    def is_current(self) -> bool:
        """Return whether the step was finished with the same inputs."""
        try:
            return self._path.read_text(encoding='utf-8') == self._key
        except FileNotFoundError:
            return False

    def remove(self) -> None:
        """Forget the last run: an interrupted step leaves no stamp behind."""
        self._path.unlink(missing_ok=True)

    def write(self) -> None:
        """Note that the step was finished."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(self._key, encoding='utf-8')


def key_of(*parts: str | Path) -> str:
    """Return a key over texts and over the names and contents of files and folders."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(f'text {part}\n'.encode())
            continue
        for file in files_of(part):
            digest.update(f'file {file.relative_to(part.parent)}\n'.encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def files_of(path: Path) -> list[Path]:
    """Return the file itself, or the files of a folder in a fixed order."""
    if path.is_file():
        return [path]
    return sorted(f for f in path.rglob('*') if f.is_file() and '__pycache__' not in f.parts)
