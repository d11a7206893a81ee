"""Find a model's files on this machine.

A name with a '/' in it, or starting with '.' or '~', is a path: a model's folder, or its one file.
Any other name is looked up in the catalogue, and its files are looked for in these folders, in
this order:

1. `model_dirs` (the node's parameter, the command line's option),
2. the folders in the environment variable EDGE_VLM_MODELS, separated by ':',
3. $XDG_DATA_HOME/edge_vlm_ros/models, by default ~/.local/share/edge_vlm_ros/models,
4. the package itself (the demo model and the default script).

In each of the first three, `<folder>/<chip>/<name>` is looked at before `<folder>/<name>`. A
model's tokenizer and config.json may lie in its folder, in `tokenizer/` below, or in a folder that
is named like their repository, below or beside it. A file catalogue.yaml in one of the folders
adds to the catalogue; the first folder's has the last word.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from edge_vlm_ros.core import ModelFileError, ModelFiles
from edge_vlm_ros.models.catalogue import (
    CATALOGUE_NAME,
    ModelEntry,
    RemoteFile,
    load_catalogue,
)

MODELS_VARIABLE = 'EDGE_VLM_MODELS'
_PACKAGE = Path(__file__).resolve().parent.parent
_SHIPPED_FOLDERS = {
    ('cpu', 'demo'): _PACKAGE / 'demo' / 'model',
    ('scripted', 'scripted'): _PACKAGE / 'engines' / 'scripted' / 'model',
}
# `model_type` of config.json -> family.
_FAMILY_OF_TYPE = {
    'internvl': 'internvl',
    'internvl_chat': 'internvl',
    'mllama': 'mllama',
    'qwen2_vl': 'qwen2_vl',
}
# Any one of them: fast tokenizers, SentencePiece models, byte-level vocabularies.
_TOKENIZER_FILES = ('tokenizer.json', 'tokenizer.model', 'vocab.json')
_TEXTS_WANTED = 'config.json and tokenizer.json'

# Order in which the variants of one ONNX file are taken on a CPU: as exported first, then 8 bit
# (fast on any CPU), then 4 bit, then half precision (slow where the CPU has no such arithmetic).
# Source of the names: transformers.js, `dtype` of the onnx-community repositories.
ONNX_SUFFIXES = ('', '_quantized', '_int8', '_uint8', '_q4', '_bnb4', '_fp16', '_q4f16')
ONNX_PARTS = ('vision_encoder', 'embed_tokens', 'decoder_model_merged')


def find_model(
    chip: str, name_or_path: str = '', model_dirs: Iterable[str | Path] = ()
) -> ModelFiles:
    """Find a model's files.

    Args:
        chip: 'cpu', 'scripted', 'bm1684x', ...
        name_or_path: Catalogue name, or path of a model's folder or file; '' = the chip's default.
        model_dirs: Folders to look in first.

    Raises:
        BadRequestError: There is no such chip.
        ModelFileError: No model of that name, or files are missing; says which, where they were
            looked for and how to get them.
    """
    folders = [*(Path(folder).expanduser() for folder in model_dirs), *default_model_dirs()]
    catalogue = load_catalogue(folder / CATALOGUE_NAME for folder in reversed(folders))
    name = name_or_path or catalogue.default_model(chip)
    if is_path(name):
        catalogue.default_model(chip)
        return _from_path(chip, name)
    return _from_catalogue(catalogue.find(chip, name), folders)


def default_model_dirs() -> list[Path]:
    """List the folders that models are looked for in, the package's own aside."""
    named = os.environ.get(MODELS_VARIABLE, '').split(os.pathsep)
    data_home = os.environ.get('XDG_DATA_HOME') or '~/.local/share'
    folders = [*filter(None, named), f'{data_home}/edge_vlm_ros/models']
    return [Path(folder).expanduser() for folder in folders]


def is_path(name: str) -> bool:
    """Tell whether a model is named by path and not by catalogue name."""
    return '/' in name or name.startswith(('.', '~'))


def _from_catalogue(entry: ModelEntry, folders: Sequence[Path]) -> ModelFiles:
    candidates = _candidates(entry, folders)
    tries = [_Search(entry, folder, folders) for folder in candidates]
    best = min(tries, key=lambda found: len(found.missing))
    if best.missing:
        raise ModelFileError(_what_is_missing(entry, best, candidates))
    assert best.tokenizer_folder is not None
    return ModelFiles(
        name=entry.name,
        chip=entry.chip,
        family=entry.family,
        folder=best.folder,
        tokenizer_folder=best.tokenizer_folder,
        weights=best.weights,
    )


def _candidates(entry: ModelEntry, folders: Sequence[Path]) -> list[Path]:
    listed = [
        folder / place
        for folder in folders
        for place in (Path(entry.chip, entry.name), entry.name)
    ]
    shipped = _SHIPPED_FOLDERS.get((entry.chip, entry.name))
    return [*listed, shipped] if shipped else listed


class _Search:
    """What one folder holds of a catalogue model."""

    def __init__(self, entry: ModelEntry, folder: Path, folders: Sequence[Path]) -> None:
        self.folder = folder
        self.weights: dict[str, Path] = {}
        self.missing: list[str] = []
        for part, file in entry.files.items():
            for key, pattern in _expanded(part, file, entry.layers):
                self._look_for(key, pattern)
        self.tokenizer_folder = _tokenizer_folder(entry, folder, folders)
        if self.tokenizer_folder is None:
            self.missing.append(_TEXTS_WANTED)

    def _look_for(self, key: str, pattern: str) -> None:
        found = sorted(self.folder.glob(pattern)) if self.folder.is_dir() else []
        if len(found) == 1:
            self.weights[key] = found[0]
        elif found:
            names = ', '.join(path.name for path in found)
            self.missing.append(f'{pattern} (one wanted, found {names})')
        else:
            self.missing.append(pattern)


def _expanded(part: str, file: RemoteFile, layers: int) -> list[tuple[str, str]]:
    if '{layer}' not in file.path:
        return [(part, file.path)]
    return [(f'{part}.{i}', file.path.format(layer=i)) for i in range(layers)]


def _tokenizer_folder(entry: ModelEntry, folder: Path, folders: Sequence[Path]) -> Path | None:
    places = [folder, folder / 'tokenizer']
    if entry.tokenizer:
        repository = entry.tokenizer.rpartition('/')[2]
        places += [folder / repository, *(place / repository for place in folders)]
    return next((place for place in places if _has_texts(place)), None)


def _what_is_missing(entry: ModelEntry, best: _Search, candidates: Sequence[Path]) -> str:
    shown = best.missing[:4]
    more = len(best.missing) - len(shown)
    missing = ', '.join(shown) + (f' and {more} more' if more else '')
    looked = '\n  '.join(map(str, candidates))
    # Where something of it lies already, or else where the user's own models go by default.
    home = best.folder if best.weights else candidates[0]
    commands = entry.fetch_commands(home)
    how = '\n  '.join((f'mkdir -p {home}', *commands)) if commands else 'reinstall the package'
    return (
        f'model {entry.name} for {entry.chip}: missing {missing}\n'
        f'looked in:\n  {looked}\n'
        f'to get it:\n  {how}'
    )


def _from_path(chip: str, name: str) -> ModelFiles:
    path = Path(name).expanduser()
    if not path.exists():
        raise ModelFileError(f'{path}: no such file or folder')
    if chip == 'scripted':
        return _from_script(path, name)
    if chip == 'cpu':
        return _from_onnx_folder(path, name)
    folder = path if path.is_dir() else path.parent
    tokenizer = _tokenizer_beside(folder)
    if tokenizer is None:
        raise ModelFileError(f'{folder}: missing {_TEXTS_WANTED}, here or in tokenizer/')
    weights = {'model': path} if path.is_file() else {}
    return ModelFiles(name, chip, _family(tokenizer), folder, tokenizer, weights)


def _from_onnx_folder(folder: Path, name: str) -> ModelFiles:
    """Find the split ONNX layout in `folder`, or in `onnx/` below it."""
    if not folder.is_dir():
        raise ModelFileError(f'{folder}: a model for chip cpu is a folder, this is a file')
    found = {part: _onnx_variant(folder, part) for part in ONNX_PARTS}
    missing = [f'onnx/{part}.onnx' for part, file in found.items() if file is None]
    tokenizer = _tokenizer_beside(folder)
    if tokenizer is None:
        missing.append(_TEXTS_WANTED)
    if missing or tokenizer is None:
        variants = ', '.join(filter(None, ONNX_SUFFIXES))
        raise ModelFileError(
            f'{folder}: missing {", ".join(missing)} of the split ONNX layout '
            f'(variants of an ONNX file that are taken too: {variants})'
        )
    weights = {part: file for part, file in found.items() if file is not None}
    return ModelFiles(name, 'cpu', _family(tokenizer), folder, tokenizer, weights)


def _onnx_variant(folder: Path, part: str) -> Path | None:
    places = (folder / 'onnx', folder)
    files = (place / f'{part}{suffix}.onnx' for suffix in ONNX_SUFFIXES for place in places)
    return next((file for file in files if file.is_file()), None)


def _from_script(path: Path, name: str) -> ModelFiles:
    """Take a script, with the tokenizer it names, the one beside it or the shipped one."""
    script = path / 'script.yaml' if path.is_dir() else path
    try:
        content = yaml.safe_load(script.read_text(encoding='utf-8')) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ModelFileError(f'{script}: cannot be read as YAML: {error}') from error
    named = content.get('tokenizer') if isinstance(content, dict) else None
    if named:
        tokenizer = script.parent / Path(str(named)).expanduser()
        if not _has_texts(tokenizer):
            raise ModelFileError(f'{tokenizer} (tokenizer of {script}): missing {_TEXTS_WANTED}')
    else:
        shipped = _SHIPPED_FOLDERS['scripted', 'scripted']
        tokenizer = _tokenizer_beside(script.parent) or shipped
    weights = {'script': script}
    return ModelFiles(name, 'scripted', _family(tokenizer), script.parent, tokenizer, weights)


def _tokenizer_beside(folder: Path) -> Path | None:
    return next((place for place in (folder, folder / 'tokenizer') if _has_texts(place)), None)


def _has_texts(folder: Path) -> bool:
    has_tokenizer = any((folder / name).is_file() for name in _TOKENIZER_FILES)
    return has_tokenizer and (folder / 'config.json').is_file()


def _family(folder: Path) -> str:
    """Read the family's name from config.json; '' where it is another one or cannot be read."""
    try:
        config = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
        return _FAMILY_OF_TYPE.get(config.get('model_type', ''), '')
    except (OSError, ValueError, AttributeError):
        return ''
