"""The catalogue: published models by name and chip, read from catalogue.yaml and a user's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from edge_vlm_ros.core import BadRequestError, ErrorCode, ModelFileError

CATALOGUE_NAME = 'catalogue.yaml'
CHIPS = ('cpu', 'scripted', 'bm1684x', 'bm1688', 'ax650', 'ax630c')
FAMILIES = ('internvl', 'qwen2_vl', 'mllama')
_SHIPPED = Path(__file__).with_name(CATALOGUE_NAME)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file, or one run of files, of a published model.

    Attributes:
        path: Relative to the model's folder; may hold '{layer}' or '*'.
        url: Where it comes from; '' when only the whole repository is named.
        nbytes: Its size; 0 when unknown.
    """

    path: str
    url: str = ''
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One published model for one chip; catalogue.yaml explains the fields."""

    name: str
    chip: str
    family: str
    files: Mapping[str, RemoteFile]
    parameters: str = ''
    tokenizer: str = ''
    context_tokens: int = 0
    max_images: int = 0
    max_frames: int = 0
    layers: int = 0
    source: str = ''
    fetch: str = ''
    sdk: str = ''
    note: str = ''

    def fetch_commands(self, folder: Path) -> tuple[str, ...]:
        """Give the commands that fetch weights, then tokenizer, into `folder`; () = shipped."""
        urls = [file.url for file in self.files.values() if file.url]
        commands = [f'cd {folder} && python3 -m dfss --url={url}' for url in urls]
        if self.fetch:
            commands.append(self.fetch.format(folder=folder))
        if self.tokenizer:
            wanted = "--include '*.json' '*.txt' '*.model' '*.py'"
            commands.append(f'hf download {self.tokenizer} {wanted} --local-dir {folder}')
        return tuple(commands)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All models known by name."""

    entries: tuple[ModelEntry, ...]
    defaults: Mapping[str, str] = field(default_factory=dict)

    def models_for(self, chip: str) -> tuple[ModelEntry, ...]:
        """List one chip's models."""
        return tuple(entry for entry in self.entries if entry.chip == chip)

    def default_model(self, chip: str) -> str:
        """Name the model of a chip when none is asked for.

        Raises:
            BadRequestError: There is no such chip.
        """
        if chip not in self.defaults:
            listed = ', '.join(self.defaults)
            raise BadRequestError(
                f'there is no chip {chip!r}; chips are: {listed}', ErrorCode.UNSUPPORTED_OPTION
            )
        return self.defaults[chip]

    def find(self, chip: str, name: str) -> ModelEntry:
        """Find a model by chip and name.

        Raises:
            BadRequestError: There is no such chip.
            ModelFileError: The chip has no model of that name.
        """
        self.default_model(chip)
        for entry in self.models_for(chip):
            if entry.name == name:
                return entry
        names = ', '.join(entry.name for entry in self.models_for(chip))
        chips = ', '.join(entry.chip for entry in self.entries if entry.name == name)
        other = f' (there is one for {chips})' if chips else ''
        raise ModelFileError(
            f'no model named {name!r} for chip {chip}{other}; '
            f'there are: {names}. A path with a / in it names a folder or file instead'
        )

    def overlaid(self, other: Catalogue) -> Catalogue:
        """Join two catalogues; where both know a model of a chip, the other one wins."""
        by_key = {(entry.chip, entry.name): entry for entry in (*self.entries, *other.entries)}
        return Catalogue(tuple(by_key.values()), {**self.defaults, **other.defaults})


def load_catalogue(overlays: Iterable[Path] = ()) -> Catalogue:
    """Read the shipped catalogue, then the overlays on top; those that do not exist are skipped.

    Raises:
        ModelFileError: A catalogue file is not what it should be.
    """
    catalogue = _read(_SHIPPED)
    for path in overlays:
        if path.is_file():
            catalogue = catalogue.overlaid(_read(path))
    return catalogue


def _read(path: Path) -> Catalogue:
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8')) or {}
        entries = tuple(_entry(row) for row in content.get('models') or ())
        defaults = {str(chip): str(name) for chip, name in (content.get('defaults') or {}).items()}
    except (OSError, yaml.YAMLError, AttributeError, TypeError, KeyError, ValueError) as error:
        raise ModelFileError(f'{path}: no model catalogue: {error}') from error
    return Catalogue(entries, defaults)


def _entry(row: Mapping[str, Any]) -> ModelEntry:
    """Make an entry of one YAML row; a wrong row raises TypeError, KeyError or ValueError."""
    files = {
        part: RemoteFile(file['path'], file.get('url', ''), file.get('bytes', 0))
        for part, file in row['files'].items()
    }
    entry = ModelEntry(**{**row, 'files': files})
    for key, known in (('chip', CHIPS), ('family', FAMILIES)):
        value = getattr(entry, key)
        if value not in known:
            raise ValueError(f'model {entry.name}: {key} {value!r} is none of {", ".join(known)}')
    if not files:
        raise ValueError(f'model {entry.name}: no files')
    return entry
