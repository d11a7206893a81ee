"""Watches that were set by service, kept in a file over a restart.

The file is JSON, written whole beside its place and moved there: what a power cut leaves is the
old one or the new one. A damaged file ends nothing: it is reported, what can be read of it holds,
and it is moved aside before the next one is written.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_vlm_ros.core import EdgeVlmError, ModelFileError, read_json_file
from edge_vlm_ros.watch import MAX_WATCHES, WatchSpec, fields_of, spec_of

FORMAT = 1
MOST_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class KeptWatches:
    """What a file holds.

    Attributes:
        watches: Set by service, in their order.
        removed: Names of watches that parameters name and that were removed by service.
        problem: What of it cannot be used, for people; '' = all can.
    """

    watches: tuple[WatchSpec, ...] = ()
    removed: tuple[str, ...] = ()
    problem: str = ''


class WatchStore:
    """The file.

    Args:
        path: Its place; None = nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._is_damaged = False
        self.problem = ''
        """Why the last write or the reading failed, for people; '' = it did not."""

    def load(self) -> KeptWatches:
        """Read the file; a missing one holds nothing."""
        if self._path is None or not self._path.exists():
            return KeptWatches()
        try:
            kept = _kept(self._path, read_json_file(self._path, MOST_BYTES))
        except ModelFileError as error:
            kept = KeptWatches(problem=error.message)
        self._is_damaged = bool(kept.problem)
        self.problem = kept.problem
        return kept

    def save(self, watches: list[WatchSpec], removed: list[str]) -> str:
        """Write the file; return why that failed, for people; '' = it did not."""
        if self._path is None:
            return ''
        data = {
            'format': FORMAT,
            'watches': [fields_of(spec) for spec in watches],
            'removed': removed,
        }
        try:
            if self._is_damaged:
                self._path.replace(self._path.with_name(f'{self._path.name}.damaged'))
                self._is_damaged = False
            _write(self._path, json.dumps(data, ensure_ascii=False, indent=1) + '\n')
        except OSError as error:
            self.problem = f'watch_file: cannot write {self._path}: {error.strerror}'
        else:
            self.problem = ''
        return self.problem


def _kept(path: Path, data: Any) -> KeptWatches:
    """Return what the values of a file mean; a watch that makes no sense is left out.

    Raises:
        ModelFileError: They mean nothing.
    """
    if not isinstance(data, dict) or data.get('format') != FORMAT:
        raise ModelFileError(f'{path} is damaged: no file of watches of format {FORMAT}')
    listed, removed = data.get('watches', []), data.get('removed', [])
    if not isinstance(listed, list) or not isinstance(removed, list):
        raise ModelFileError(f'{path} is damaged: watches and removed are lists')
    read = [_spec_or_problem(fields) for fields in listed[:MAX_WATCHES]]
    watches = tuple(each for each in read if isinstance(each, WatchSpec))
    problems = [each for each in read if isinstance(each, str)]
    names = tuple(name for name in removed if isinstance(name, str))
    problem = f'{path} is damaged: {"; ".join(problems)}' if problems else ''
    return KeptWatches(watches, names, problem)


def _spec_or_problem(fields: object) -> WatchSpec | str:
    try:
        return spec_of(fields if isinstance(fields, dict) else {})
    except EdgeVlmError as error:
        return error.message


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f'.{path.name}.new')
    with beside.open('w', encoding='utf-8') as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
