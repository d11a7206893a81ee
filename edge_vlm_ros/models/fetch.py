"""Fetch a catalogue model: its weights, then its tokenizer, to where `find_model` looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from edge_vlm_ros.core import ModelFileError, ModelFiles
from edge_vlm_ros.models.by_name import find_by_name, find_entry_tokenizer, home_of
from edge_vlm_ros.models.catalogue import (
    TOKENIZER_FOLDER,
    TOKENIZER_PATTERNS,
    HubFiles,
    ModelEntry,
)
from edge_vlm_ros.models.hub import fetch_from_hub
from edge_vlm_ros.models.vendor_files import fetch_file, fetch_tokenizer

HUB = 'https://huggingface.co'


def fetch_model(
    entry: ModelEntry, model_dir: Path, others: Iterable[Path], say: Callable[[str], None]
) -> ModelFiles:
    """Fetch what is missing of a model. What came stays, also where another part fails.

    Args:
        entry: The model.
        model_dir: The folder of models that it goes to, as `<model_dir>/<chip>/<name>`.
        others: Folders of models that may hold its tokenizer already.
        say: Gets a line now and then.

    Returns:
        The model as found on the disk afterwards.

    Raises:
        ModelFileError: Something could not be fetched; says what to copy where by hand.
    """
    folders = [model_dir, *others]
    if entry.is_shipped:
        return find_by_name(entry, folders)
    home = home_of(entry, model_dir)
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelFileError(f'{home}: {error.strerror}') from error
    problems = [*_fetch_weights(entry, home, say), *_fetch_tokenizer(entry, home, folders, say)]
    if problems:
        raise ModelFileError(_by_hand(entry, home, problems))
    return find_by_name(entry, folders)


def _fetch_weights(entry: ModelEntry, home: Path, say: Callable[[str], None]) -> list[str]:
    """Fetch the weights; return what went wrong."""
    problems = []
    for file in entry.files.values():
        if file.url:
            problems += _tried(partial(fetch_file, file, home, say))
    hub = entry.hub
    if hub is not None:
        problems += _tried(partial(fetch_from_hub, hub, home, say))
    if entry.manual:
        problems += _tried(partial(find_by_name, entry, [home.parent.parent]))
        problems = ['its files cannot be fetched by a program'] if problems else []
    return problems


def _fetch_tokenizer(
    entry: ModelEntry, home: Path, folders: list[Path], say: Callable[[str], None]
) -> list[str]:
    """Fetch tokenizer and config.json: from their repository, else from the vendor's zip."""
    if find_entry_tokenizer(entry, home, folders) is not None:
        return []
    to = home / TOKENIZER_FOLDER
    wanted = HubFiles(entry.tokenizer, patterns=TOKENIZER_PATTERNS)
    problems = []
    if entry.tokenizer:
        to.mkdir(exist_ok=True)
        problems = _tried(partial(fetch_from_hub, wanted, to, say))
    archive = entry.tokenizer_archive
    if problems and archive is not None:
        say(f"{problems[0]}; taking the vendor's {archive.path} instead")
        failed = _tried(partial(fetch_tokenizer, archive, home, to, say))
        problems = [*problems, *failed] if failed else []
    return problems


def _tried(action: Callable[[], object]) -> list[str]:
    try:
        action()
    except ModelFileError as error:
        return [error.message]
    except OSError as error:
        return [f'{error.filename}: {error.strerror}']
    return []


def _by_hand(entry: ModelEntry, home: Path, problems: list[str]) -> str:
    reasons = '\n  '.join(dict.fromkeys(problems))
    copies = '\n  '.join(copies_by_hand(entry, home))
    return (
        f'model {entry.name} for {entry.chip} could not be fetched:\n  {reasons}\n'
        f'to copy by hand, from a machine with a network:\n  {copies}'
    )


def copies_by_hand(entry: ModelEntry, home: Path) -> list[str]:
    """Say of each part which files it is, where they come from and where they go."""
    copies = []
    for file in entry.files.values():
        if file.is_packed:
            copies.append(f'{file.path} (in the zip {file.url}) to {home}')
        elif file.url:
            copies.append(f'{file.url} to {home / file.path}')
    if entry.hub:
        tree = f'{HUB}/{entry.hub.repository}/tree/{entry.hub.revision or "main"}'
        copies.append(f'{", ".join(entry.hub.patterns) or "all files"} of {tree} to {home}')
    if entry.manual:
        copies.append(f'{entry.manual}; copy the files into {home}')
    if entry.tokenizer:
        names = f'config.json, tokenizer.json and the other {", ".join(TOKENIZER_PATTERNS)}'
        copies.append(f'{names} of {HUB}/{entry.tokenizer} to {home / TOKENIZER_FOLDER}')
    if entry.tokenizer_archive:
        copies.append(f'  (or what {entry.tokenizer_archive.url} holds, without its folders)')
    return copies
