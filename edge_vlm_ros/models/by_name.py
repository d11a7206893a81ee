"""Find a catalogue model: in each folder it may lie in, what of it is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_vlm_ros.core import FileForm, ModelFileError, ModelFiles, chip_named
from edge_vlm_ros.models.axmodel_folder import search_with_package
from edge_vlm_ros.models.axmodel_set import wanted_set
from edge_vlm_ros.models.catalogue import ModelEntry, RemoteFile
from edge_vlm_ros.models.completions import complete, completion_of
from edge_vlm_ros.models.shipped import SHIPPED_FOLDERS
from edge_vlm_ros.models.tokenizer_folder import TOKENIZER_WANTED, find_tokenizer

REINSTALL = 'reinstall the package'
_SHOWN = 4


def find_by_name(entry: ModelEntry, folders: Sequence[Path]) -> ModelFiles:
    """Find a catalogue model.

    Args:
        entry: The model.
        folders: Folders to look in, in their order.

    Raises:
        ModelFileError: Files are missing or do not belong together.
    """
    candidates = _candidates(entry, folders)
    tries = [_Search(entry, folder, folders) for folder in candidates]
    best = min(tries, key=lambda found: len(found.problems))
    if best.problems:
        raise ModelFileError(_what_is_wrong(entry, best, candidates))
    assert best.tokenizer is not None
    return ModelFiles(
        name=entry.name,
        chip=entry.chip,
        folder=best.folder,
        tokenizer_folder=best.tokenizer,
        weights=best.weights,
        completion=best.completion,
        device_memory_mb=entry.device_memory_mb,
    )


def home_of(entry: ModelEntry, folder: Path) -> Path:
    """Return where a model's files go in one of the folders that models are looked for in."""
    return folder / entry.chip / entry.name


def where_by_hand(entry: ModelEntry, home: Path) -> str:
    """Say what to do about a model that cannot be fetched: the package's own or a user's own."""
    if (entry.chip, entry.name) in SHIPPED_FOLDERS:
        return REINSTALL
    return f'copy its files into {home}'


def find_entry_tokenizer(entry: ModelEntry, folder: Path, folders: Sequence[Path]) -> Path | None:
    """Find a model's tokenizer and config.json, given the folder of its weights."""
    return find_tokenizer(folder, _named_like_its_repository(entry, folder, folders))


def _named_like_its_repository(
    entry: ModelEntry, folder: Path, folders: Sequence[Path]
) -> list[Path]:
    if not entry.tokenizer:
        return []
    repository = entry.tokenizer.rpartition('/')[2]
    return [folder / repository, *(place / repository for place in folders)]


def _candidates(entry: ModelEntry, folders: Sequence[Path]) -> list[Path]:
    listed = [
        place for folder in folders for place in (home_of(entry, folder), folder / entry.name)
    ]
    shipped = SHIPPED_FOLDERS.get((entry.chip, entry.name))
    return [*listed, shipped] if shipped else listed


class _Search:
    """What one folder holds of a catalogue model."""

    def __init__(self, entry: ModelEntry, folder: Path, folders: Sequence[Path]) -> None:
        self.folder = folder
        self.weights: dict[str, Path] = {}
        self.missing: list[str] = []
        self.conflicts: list[str] = []
        if chip_named(entry.chip).file_form is FileForm.AXMODELS:
            self._look_for_set(entry)
        else:
            for part, file in entry.files.items():
                for key, pattern in _expanded(part, file, entry.layers):
                    self._look_for(key, pattern)
        self.tokenizer = find_entry_tokenizer(entry, folder, folders)
        self.completion = completion_of(entry.tokenizer)
        if self.tokenizer is None:
            self._complete_tokenizer(entry, folders)

    def _complete_tokenizer(self, entry: ModelEntry, folders: Sequence[Path]) -> None:
        """Take a tokenizer without config.json where the model's is known."""
        others = _named_like_its_repository(entry, self.folder, folders)
        completed, lacking = complete(entry.tokenizer, self.folder, others)
        if completed is None:
            self.missing.append(lacking or TOKENIZER_WANTED)
        else:
            self.tokenizer = completed.folder

    @property
    def problems(self) -> list[str]:
        """All that is not as it should be."""
        return [*self.conflicts, *self.missing]

    def _look_for_set(self, entry: ModelEntry) -> None:
        paths = {part: file.path for part, file in entry.files.items()}
        wanted = wanted_set(paths, entry.layers, entry.chip)
        found, _ = search_with_package(self.folder, wanted)
        self.weights, self.missing = found.weights, found.missing
        self.conflicts = found.conflicts

    def _look_for(self, key: str, pattern: str) -> None:
        found = self._glob(pattern) or self._glob(f'*/{pattern}')
        if len(found) == 1:
            self.weights[key] = found[0]
        elif found:
            names = ', '.join(path.name for path in found)
            self.conflicts.append(f'one {pattern} wanted, found {names}')
        else:
            self.missing.append(pattern)

    def _glob(self, pattern: str) -> list[Path]:
        return sorted(self.folder.glob(pattern)) if self.folder.is_dir() else []


def _expanded(part: str, file: RemoteFile, layers: int) -> list[tuple[str, str]]:
    if '{layer}' not in file.path:
        return [(part, file.path)]
    return [(f'{part}.{i}', file.path.format(layer=i)) for i in range(layers)]


def _what_is_wrong(entry: ModelEntry, best: _Search, candidates: Sequence[Path]) -> str:
    problems = [*best.conflicts]
    if best.missing:
        more = len(best.missing) - _SHOWN
        listed = ', '.join(best.missing[:_SHOWN]) + (f' and {more} more' if more > 0 else '')
        problems.append(f'missing {listed}')
    looked = '\n  '.join(map(str, candidates))
    return (
        f'model {entry.name} for {entry.chip}: {"; ".join(problems)}\n'
        f'looked in:\n  {looked}\n'
        f'to get it:\n  {_how_to_get(entry, best, candidates)}'
    )


def _how_to_get(entry: ModelEntry, best: _Search, candidates: Sequence[Path]) -> str:
    # Where something of it lies already, or else where the user's own models go by default.
    home = best.folder if best.weights else candidates[0]
    commands = entry.fetch_commands(home)
    if not commands:
        return where_by_hand(entry, home)
    fetch = f'edge-vlm models fetch {entry.name} --chip {entry.chip}'
    return '\n  '.join((fetch, 'or by hand:', *commands))
