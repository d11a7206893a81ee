"""Find the folder that holds a model's tokenizer and its config.json, which belong together."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

TOKENIZER_WANTED = 'config.json and tokenizer.json'
BELOW = ('tokenizer', 'config')
"""Folders looked into first: our own, and what Sophgo's converter writes beside a model."""

# Any one of them: fast tokenizers, SentencePiece models, byte-level vocabularies.
_TOKENIZER_FILES = ('tokenizer.json', 'tokenizer.model', 'vocab.json')


def is_tokenizer_folder(folder: Path) -> bool:
    """Return whether a folder holds a tokenizer and config.json."""
    return _has_tokenizer(folder) and (folder / 'config.json').is_file()


def find_tokenizer(folder: Path, others: Iterable[Path] = ()) -> Path | None:
    """Find a tokenizer's folder: `folder`, `tokenizer/` or `config/` in it, `others`, then below.

    Below means any folder in `folder`, those named after a tokenizer first: the published
    repositories keep `internvl3_2b_tokenizer/` beside their weights.
    """
    named = (folder, *(folder / name for name in BELOW), *others)
    return next(
        (place for place in (*named, *_folders_in(folder)) if is_tokenizer_folder(place)), None
    )


def tokenizers_without_config(folder: Path, others: Iterable[Path] = ()) -> list[Path]:
    """List the folders with a tokenizer and no config.json, in the order of `find_tokenizer`."""
    named = (folder, *(folder / name for name in BELOW), *others)
    places = dict.fromkeys((*named, *_folders_in(folder)))
    return [place for place in places if _has_tokenizer(place) and not is_tokenizer_folder(place)]


def missing_tokenizer(folder: Path) -> str:
    """Say what is missing; where a tokenizer lies below its config.json, what to copy."""
    places = [place for place in _folders_in(folder) if _has_tokenizer(place)]
    if places and (folder / 'config.json').is_file():
        return (
            f'config.json beside the tokenizer: the tokenizer is in {places[0]}, config.json in '
            f'{folder}: copy config.json into {places[0]}'
        )
    return TOKENIZER_WANTED


def tokenizer_beside(folder: Path) -> Path | None:
    """Find a tokenizer's folder beside one of weights; it is named after a tokenizer."""
    beside = _folders_in(folder.resolve().parent)
    found = [place for place in beside if _is_named_so(place) and is_tokenizer_folder(place)]
    return found[0] if len(found) == 1 else None


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _TOKENIZER_FILES)


def _folders_in(folder: Path) -> list[Path]:
    try:
        found = [place for place in folder.iterdir() if place.is_dir()]
    except OSError:
        return []
    visible = (place for place in found if not place.name.startswith('.'))
    return sorted(visible, key=lambda place: (not _is_named_so(place), place.name))


def _is_named_so(folder: Path) -> bool:
    return 'token' in folder.name or 'config' in folder.name
