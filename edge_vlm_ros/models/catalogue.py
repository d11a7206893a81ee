"""The catalogue: published models by name and chip, read from catalogue.yaml and a user's own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from edge_vlm_ros.core import (
    BadRequestError,
    ErrorCode,
    FileForm,
    ModelFileError,
    chip_named,
    chip_names,
    family_names,
    is_chip,
    is_family,
)
from edge_vlm_ros.core.bounded_yaml import read_yaml_file
from edge_vlm_ros.core.foreign_names import (
    require_plain,
    require_relative,
    require_repository,
    require_revision,
)
from edge_vlm_ros.models.published_speed import PublishedSpeed

CATALOGUE_NAME = 'catalogue.yaml'
TOKENIZER_PATTERNS = ('*.json', '*.txt', '*.model')
"""What is fetched of a tokenizer's repository; no weights, no code."""
TOKENIZER_FOLDER = 'tokenizer'
_LAYER = '{layer}'
_MOST_LAYERS = 1000
_LARGEST_WORK = 1_000_000
_SHIPPED = Path(__file__).with_name(CATALOGUE_NAME)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file, or one run of files, of a published model.

    Attributes:
        path: Relative to the model's folder; may hold '{layer}' or '*'.
        url: Where it comes from, in the form the vendor's `dfss` takes; '' = nowhere by itself.
        nbytes: Its size; 0 when unknown.
        sha256: Its hash, in hexadecimal; '' when unknown.
    """

    path: str
    url: str = ''
    nbytes: int = 0
    sha256: str = ''

    @property
    def is_packed(self) -> bool:
        """Whether the address is that of a zip that holds the file."""
        return self.url.endswith('.zip') and not self.path.endswith('.zip')


@dataclass(frozen=True, slots=True)
class HubFiles:
    """What of a Hugging Face repository belongs to a model.

    Attributes:
        repository: 'owner/name'.
        revision: Commit that the row was checked with; '' = the newest.
        patterns: Files wanted; empty = all.
    """

    repository: str
    revision: str = ''
    patterns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SocMemory:
    """How a Sophgo SoC's memory has to be shared out, MiB; all three count as the model's room."""

    npu_mb: int
    vpu_mb: int
    vpp_mb: int

    @property
    def total_mb(self) -> int:
        """Memory that a model may use."""
        return self.npu_mb + self.vpu_mb + self.vpp_mb

    @property
    def command(self) -> str:
        """The vendor's command that writes it; a reboot must follow."""
        return f'./memory_edit.sh -c -npu {self.npu_mb} -vpu {self.vpu_mb} -vpp {self.vpp_mb}'


@dataclass(frozen=True, slots=True)
class ModelWork:
    """What a model of the CPU has to compute, for an estimate of what it takes here.

    Attributes:
        tower_weights: Of the vision tower, millions.
        tower_width: Of its hidden states.
        tower_layers: Its depth.
        patches: Of one tile; each goes through all weights of the tower.
        tile_tokens: Placeholders of one tile.
        language_weights: Of the language model with its head, without the embedding table,
            millions; each token goes through all of them.
    """

    tower_weights: int
    tower_width: int
    tower_layers: int
    patches: int
    tile_tokens: int
    language_weights: int

    def __post_init__(self) -> None:
        for field_ in fields(self):
            value = getattr(self, field_.name)
            if type(value) is not int or not 0 < value <= _LARGEST_WORK:
                raise ValueError(
                    f'work: {field_.name} is from 1 to {_LARGEST_WORK}, not {value!r}'
                )


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One published model for one chip; catalogue.yaml explains the fields."""

    name: str
    chip: str
    family: str
    files: Mapping[str, RemoteFile]
    parameters: str = ''
    tokenizer: str = ''
    tokenizer_archive: RemoteFile | None = None
    context_tokens: int = 0
    prompt_tokens: int = 0
    max_images: int = 0
    max_frames: int = 0
    layers: int = 0
    source: str = ''
    hub: HubFiles | None = None
    manual: str = ''
    sdk: str = ''
    sdk_version: str = ''
    host_memory_mb: int = 0
    device_memory_mb: int = 0
    soc_memory: SocMemory | None = None
    work: ModelWork | None = None
    speed: PublishedSpeed | None = None
    note: str = ''

    @property
    def is_shipped(self) -> bool:
        """Whether the package brings it along."""
        return not (self.hub or self.manual or any(file.url for file in self.files.values()))

    def fetch_commands(self, folder: Path) -> tuple[str, ...]:
        """Give the commands that bring weights, then tokenizer, into `folder`; () = shipped."""
        if self.is_shipped:
            return ()
        commands = [f'mkdir -p {folder}']
        for file in self.files.values():
            if file.url:
                commands.append(_dfss_command(file.url, folder))
            if file.is_packed:
                archive = file.url.rpartition('/')[2]
                commands.append(f"cd {folder} && unzip -j {archive} '*{file.path}'")
        if self.hub:
            commands.append(_hf_command(self.hub, folder))
        if self.manual:
            commands.append(f'# {self.manual}; copy the files into {folder}')
        if self.tokenizer:
            wanted = HubFiles(self.tokenizer, patterns=TOKENIZER_PATTERNS)
            commands.append(_hf_command(wanted, folder / TOKENIZER_FOLDER))
        return tuple(commands)


def _dfss_command(url: str, folder: Path) -> str:
    return f'cd {folder} && python3 -m dfss --url={url}'


def _hf_command(wanted: HubFiles, folder: Path) -> str:
    revision = f' --revision {wanted.revision}' if wanted.revision else ''
    # One --include for each: the `hf` of huggingface_hub 1 and later takes one pattern an option.
    patterns = ''.join(f" --include '{pattern}'" for pattern in wanted.patterns)
    return f'hf download {wanted.repository}{revision}{patterns} --local-dir {folder}'


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All models known by name.

    Attributes:
        entries: One for each model and chip.
        defaults: Model by chip, where a user wants another one than the chip's own.
    """

    entries: tuple[ModelEntry, ...]
    defaults: Mapping[str, str] = field(default_factory=dict)

    def models_for(self, chip: str) -> tuple[ModelEntry, ...]:
        """List one chip's models."""
        return tuple(entry for entry in self.entries if entry.chip == chip)

    def default_model(self, chip: str) -> str:
        """Name the model of a chip when none is asked for: a user's own choice, or the chip's.

        Raises:
            BadRequestError: There is no such chip, or it has none.
        """
        row = chip_named(chip)
        name = self.defaults.get(chip) or row.default_model
        if not name:
            raise BadRequestError(
                f'chip {chip} has no default model: name one', ErrorCode.UNSUPPORTED_OPTION
            )
        return name

    def find(self, chip: str, name: str) -> ModelEntry:
        """Find a model by chip and name.

        Raises:
            BadRequestError: There is no such chip.
            ModelFileError: The chip has no model of that name.
        """
        chip_named(chip)
        for entry in self.models_for(chip):
            if entry.name == name:
                return entry
        names = ', '.join(entry.name for entry in self.models_for(chip))
        chips = ', '.join(self.chips_of(name))
        other = f' (there is one for {chips})' if chips else ''
        if chip_named(chip).file_form is FileForm.NO_FILES:
            raise ModelFileError(
                f'chip {chip} has no models as files{other}: what answers there has its own, as '
                '`edge-vlm doctor --server URL` shows of a server'
            )
        raise ModelFileError(
            f'no model named {name!r} for chip {chip}{other}; '
            f'there are: {names}. A path with a / in it names a folder or file instead'
        )

    def chips_of(self, name: str) -> tuple[str, ...]:
        """List the chips that have a model of this name."""
        return tuple(entry.chip for entry in self.entries if entry.name == name)

    def overlaid(self, other: Catalogue) -> Catalogue:
        """Join two catalogues; where both know a model of a chip, the other one wins."""
        by_key = {(entry.chip, entry.name): entry for entry in (*self.entries, *other.entries)}
        return Catalogue(tuple(by_key.values()), {**self.defaults, **other.defaults})


def repository_of(chip: str, file_name: str) -> str:
    """Return the tokenizer repository of the shipped row with a file of this name; '' = none."""
    entries = (entry for entry in load_catalogue().entries if entry.chip == chip)
    named = (e for e in entries for file in e.files.values() if file.path == file_name)
    return next((entry.tokenizer for entry in named), '')


def load_catalogue(overlays: Iterable[Path] = ()) -> Catalogue:
    """Read the shipped catalogue, then the overlays on top; those that do not exist are skipped.

    Raises:
        ModelFileError: A catalogue file is not what it should be.
    """
    catalogue = _read(_SHIPPED)
    for path in overlays:
        if os.path.isfile(path):  # noqa: PTH113 (no error for a name that is too long)
            catalogue = catalogue.overlaid(_read(path))
    return catalogue


def _read(path: Path) -> Catalogue:
    try:
        content: Any = (_shipped() if path == _SHIPPED else read_yaml_file(path)) or {}
        entries = tuple(_entry(row) for row in content.get('models') or ())
        defaults = {str(chip): str(name) for chip, name in (content.get('defaults') or {}).items()}
    except ModelFileError as error:
        raise ModelFileError(f'{path}: no model catalogue: {error.message}') from error
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise ModelFileError(f'{path}: no model catalogue: {error}') from error
    return Catalogue(entries, defaults)


@cache
def _shipped() -> object:
    """Read the shipped file once: it takes 50 ms, and `edge-vlm doctor` looks up every model."""
    return read_yaml_file(_SHIPPED)


def _entry(row: Mapping[str, Any]) -> ModelEntry:
    """Make an entry of one YAML row; a wrong row raises TypeError, KeyError or ValueError."""
    typed: dict[str, Any] = {
        'files': {part: _remote_file(file) for part, file in row['files'].items()}
    }
    if row.get('tokenizer_archive'):
        typed['tokenizer_archive'] = _remote_file(row['tokenizer_archive'])
    if row.get('hub'):
        hub = row['hub']
        typed['hub'] = HubFiles(**{**hub, 'patterns': tuple(hub.get('patterns', ()))})
    if row.get('soc_memory'):
        sizes = {f'{heap}_mb': size for heap, size in row['soc_memory'].items()}
        typed['soc_memory'] = SocMemory(**sizes)
    if row.get('work'):
        typed['work'] = ModelWork(**row['work'])
    if row.get('speed'):
        typed['speed'] = PublishedSpeed(**row['speed'])
    entry = ModelEntry(**{**row, **typed})
    if not is_chip(entry.chip):
        raise _unknown(entry, 'chip', entry.chip, chip_names())
    if not is_family(entry.family):
        raise _unknown(entry, 'family', entry.family, family_names())
    if not entry.files:
        raise ValueError(f'model {entry.name}: no files')
    _check_names(entry)
    return entry


def _check_names(entry: ModelEntry) -> None:
    """Refuse a row whose names would lead out of the model's folder, or into a shell.

    Raises:
        ModelFileError: A name is not what it should be.
        ValueError: A number is not.
    """
    origin = f'model {entry.name}'
    require_plain(entry.name, 'the catalogue')
    archive = (entry.tokenizer_archive,) if entry.tokenizer_archive else ()
    for file in (*entry.files.values(), *archive):
        _check_file(file, origin)
    if entry.hub:
        _check_hub(entry.hub, origin)
    if entry.tokenizer:
        require_repository(entry.tokenizer, origin)
    if type(entry.layers) is not int or not 0 <= entry.layers <= _MOST_LAYERS:
        raise ValueError(f'{origin}: layers is from 0 to {_MOST_LAYERS}, not {entry.layers!r}')


def _check_file(file: RemoteFile, origin: str) -> None:
    # A file that is only read may lie elsewhere: a vision tower that two models share.
    if file.url:
        require_relative(file.path, origin)
    pattern = file.path.replace(_LAYER, '0')
    if '{' in pattern or '}' in pattern or '**' in pattern:
        raise ValueError(f'{origin}: {file.path!r}: only {_LAYER} and * stand for others')
    url: object = file.url
    if not isinstance(url, str) or type(file.nbytes) is not int or file.nbytes < 0:
        raise ValueError(f'{origin}: {file.path!r}: url is a text, bytes a number from 0 on')


def _check_hub(hub: HubFiles, origin: str) -> None:
    require_repository(hub.repository, origin)
    if hub.revision:
        require_revision(hub.revision, origin)
    for pattern in hub.patterns:
        if "'" in require_relative(pattern, origin):
            raise ValueError(f'{origin}: pattern {pattern!r} has a quotation mark in it')


def _unknown(entry: ModelEntry, key: str, value: str, known: tuple[str, ...]) -> ValueError:
    return ValueError(f'model {entry.name}: {key} {value!r} is none of {", ".join(known)}')


def _remote_file(row: Mapping[str, Any]) -> RemoteFile:
    path = str(row['path'])
    return RemoteFile(path, row.get('url', ''), row.get('bytes', 0), row.get('sha256', ''))
