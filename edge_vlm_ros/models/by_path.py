"""Find a model that is named by the path of its folder or file: one way for each `FileForm`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from edge_vlm_ros.core import (
    BadRequestError,
    Chip,
    ErrorCode,
    FileForm,
    ModelFileError,
    ModelFiles,
    chip_named,
    known_chips,
)
from edge_vlm_ros.core.bounded_yaml import read_yaml_file
from edge_vlm_ros.models.axmodel_folder import find_axmodel_folder
from edge_vlm_ros.models.axmodel_set import holds_axmodels
from edge_vlm_ros.models.catalogue import repository_of
from edge_vlm_ros.models.completions import complete, completion_of
from edge_vlm_ros.models.shipped import SHIPPED_FOLDERS
from edge_vlm_ros.models.tokenizer_folder import (
    TOKENIZER_WANTED,
    find_tokenizer,
    is_tokenizer_folder,
)

# Order in which the variants of one ONNX file are taken on a CPU: as exported first, then 8 bit
# (fast on any CPU), then 4 bit, then half precision (slow where the CPU has no such arithmetic).
# Source of the names: transformers.js, `dtype` of the onnx-community repositories.
ONNX_SUFFIXES = ('', '_quantized', '_int8', '_uint8', '_q4', '_bnb4', '_fp16', '_q4f16')
ONNX_PARTS = ('vision_encoder', 'embed_tokens', 'decoder_model_merged')


def find_by_path(chip: str, name: str) -> ModelFiles:
    """Find a model's files in a folder, or beside its one file.

    Args:
        chip: What is to run it.
        name: The path; '~' stands for the user's home.

    Raises:
        BadRequestError: There is no such chip, or its models are no files.
        ModelFileError: Nothing is there, or files are missing or do not belong together.
    """
    row = chip_named(chip)
    find = _FINDERS.get(row.file_form)
    if find is None:
        raise BadRequestError(
            f'models for chip {chip} are no files; {name!r} names one',
            ErrorCode.UNSUPPORTED_OPTION,
        )
    path = Path(os.path.expanduser(name))  # noqa: PTH111 (raises for no user of that name)
    if not os.path.exists(path):  # noqa: PTH110 (raises for a name that is too long)
        raise ModelFileError(f'{path}: no such file or folder')
    return find(row, path, name)


def chips_for(path: Path) -> tuple[str, ...]:
    """Name the chips that what lies at a path looks like a model for; () = for none."""
    return tuple(chip.name for chip in known_chips() if _looks_like_one_of(chip, path))


def files_in(folder: Path, suffix: str) -> list[Path]:
    """List a folder's files of a suffix; where it has none, those one folder below."""
    pattern = f'*{suffix}'
    return sorted(folder.glob(pattern)) or sorted(folder.glob(f'*/{pattern}'))


def _looks_like_one_of(chip: Chip, path: Path) -> bool:
    if path.is_file():
        return path.suffix == chip.suffix and chip.file_form in _NAMED_BY_A_FILE
    match chip.file_form:
        case FileForm.ONE_FILE:
            return bool(files_in(path, chip.suffix))
        case FileForm.AXMODELS:
            return holds_axmodels(path)
        case FileForm.ONNX:
            return (path / 'onnx').is_dir()
        case FileForm.SCRIPT:
            return (path / _SCRIPT).is_file()
        case FileForm.NO_FILES:
            return False


def _from_one_file(chip: Chip, path: Path, name: str) -> ModelFiles:
    """Take a file of the chip's suffix, or a folder's only one, with the tokenizer beside it."""
    file = _only_file(path, chip.suffix) if path.is_dir() else path
    if file.suffix != chip.suffix:
        raise ModelFileError(f'{file}: a model for chip {chip.name} is a {chip.suffix} file')
    folder = path if path.is_dir() else path.parent
    tokenizer = find_tokenizer(file.parent, () if file.parent == folder else (folder,))
    tokenizer = tokenizer or find_tokenizer(folder)
    known = repository_of(chip.name, file.name)
    if tokenizer is not None:
        found = completion_of(known)
        return ModelFiles(name, chip.name, file.parent, tokenizer, {'model': file}, found)
    completed, lacking = complete(known, folder, [file.parent])
    if completed is None:
        places = '' if lacking else ', in it, in tokenizer/, in config/ or in another folder there'
        raise ModelFileError(f'{folder}: missing {lacking or TOKENIZER_WANTED}{places}')
    place, rest = completed.folder, completed.completion
    return ModelFiles(name, chip.name, file.parent, place, {'model': file}, rest)


def _only_file(folder: Path, suffix: str) -> Path:
    found = files_in(folder, suffix)
    if not found:
        raise ModelFileError(f'{folder}: missing a {suffix} file, here or one folder below')
    if len(found) > 1:
        names = ', '.join(file.relative_to(folder).as_posix() for file in found)
        raise ModelFileError(f'{folder}: several {suffix} files, name one: {names}')
    return found[0]


def _from_onnx_folder(chip: Chip, folder: Path, name: str) -> ModelFiles:
    """Find the split ONNX layout in `folder`, or in `onnx/` below it."""
    if not folder.is_dir():
        raise ModelFileError(f'{folder}: a model for chip {chip.name} is a folder, this is a file')
    found = {part: _onnx_variant(folder, part) for part in ONNX_PARTS}
    missing = [f'onnx/{part}.onnx' for part, file in found.items() if file is None]
    tokenizer = find_tokenizer(folder)
    if tokenizer is None:
        missing.append(TOKENIZER_WANTED)
    if missing or tokenizer is None:
        variants = ', '.join(filter(None, ONNX_SUFFIXES))
        raise ModelFileError(
            f'{folder}: missing {", ".join(missing)} of the split ONNX layout '
            f'(variants of an ONNX file that are taken too: {variants})'
        )
    weights = {part: file for part, file in found.items() if file is not None}
    return ModelFiles(name, chip.name, folder, tokenizer, weights)


def _onnx_variant(folder: Path, part: str) -> Path | None:
    places = (folder / 'onnx', folder)
    files = (place / f'{part}{suffix}.onnx' for suffix in ONNX_SUFFIXES for place in places)
    return next((file for file in files if file.is_file()), None)


def _from_script(chip: Chip, path: Path, name: str) -> ModelFiles:
    """Take a script, with the tokenizer it names, the one beside it or the shipped one."""
    script = path / _SCRIPT if path.is_dir() else path
    content = read_yaml_file(script) or {}
    named = content.get('tokenizer') if isinstance(content, dict) else None
    if named:
        tokenizer = script.parent / Path(str(named)).expanduser()
        if not is_tokenizer_folder(tokenizer):
            raise ModelFileError(
                f'{tokenizer} (tokenizer of {script}): missing {TOKENIZER_WANTED}'
            )
    else:
        tokenizer = _tokenizer_of_script(script.parent)
    return ModelFiles(name, chip.name, script.parent, tokenizer, {'script': script})


def _tokenizer_of_script(folder: Path) -> Path:
    """Take the tokenizer beside a script, else the shipped one.

    Not from any folder below: a script may lie anywhere, beside models that are not its own.
    """
    places = (folder, folder / 'tokenizer')
    shipped = SHIPPED_FOLDERS['scripted', 'scripted']
    return next((place for place in places if is_tokenizer_folder(place)), shipped)


_SCRIPT = 'script.yaml'
_NAMED_BY_A_FILE = (FileForm.ONE_FILE, FileForm.SCRIPT)
_FINDERS: Mapping[FileForm, Callable[[Chip, Path, str], ModelFiles]] = {
    FileForm.AXMODELS: find_axmodel_folder,
    FileForm.ONE_FILE: _from_one_file,
    FileForm.ONNX: _from_onnx_folder,
    FileForm.SCRIPT: _from_script,
}
