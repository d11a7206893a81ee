"""Find a model that is named by the path of its folder or file."""

from __future__ import annotations

from pathlib import Path

import yaml

from edge_vlm_ros.core import ModelFileError, ModelFiles
from edge_vlm_ros.models.axmodel_set import search_axmodel_set
from edge_vlm_ros.models.catalogue import AXERA_CHIPS
from edge_vlm_ros.models.shipped import SHIPPED_FOLDERS
from edge_vlm_ros.models.texts import (
    TEXTS_WANTED,
    family_of,
    find_texts,
    has_texts,
    missing_texts,
    texts_beside,
)

# Order in which the variants of one ONNX file are taken on a CPU: as exported first, then 8 bit
# (fast on any CPU), then 4 bit, then half precision (slow where the CPU has no such arithmetic).
# Source of the names: transformers.js, `dtype` of the onnx-community repositories.
ONNX_SUFFIXES = ('', '_quantized', '_int8', '_uint8', '_q4', '_bnb4', '_fp16', '_q4f16')
ONNX_PARTS = ('vision_encoder', 'embed_tokens', 'decoder_model_merged')
BMODEL_SUFFIX = '.bmodel'


def find_by_path(chip: str, name: str) -> ModelFiles:
    """Find a model's files in a folder, or beside its one file.

    Args:
        chip: What is to run it; one of the catalogue's chips.
        name: The path; '~' stands for the user's home.

    Raises:
        ModelFileError: Nothing is there, or files are missing or do not belong together.
    """
    path = Path(name).expanduser()
    if not path.exists():
        raise ModelFileError(f'{path}: no such file or folder')
    if chip == 'scripted':
        return _from_script(path, name)
    if chip == 'cpu':
        return _from_onnx_folder(path, name)
    if chip in AXERA_CHIPS:
        return _from_axmodel_folder(chip, path, name)
    return _from_bmodel(chip, path, name)


def _from_axmodel_folder(chip: str, folder: Path, name: str) -> ModelFiles:
    """Find an axmodel set in a folder or below."""
    if not folder.is_dir():
        raise ModelFileError(f'{folder}: a model for chip {chip} is a folder, this is a file')
    search = search_axmodel_set(folder)
    texts = find_texts(folder) or texts_beside(folder)
    missing = list(search.missing)
    if texts is None:
        missing.append(missing_texts(folder))
    problems = [*search.conflicts, *([f'missing {", ".join(missing)}'] if missing else [])]
    if problems or texts is None:
        raise ModelFileError(f'{folder}: {"; ".join(problems)}')
    return ModelFiles(name, chip, family_of(texts), folder, texts, search.weights)


def _from_bmodel(chip: str, path: Path, name: str) -> ModelFiles:
    """Take a bmodel, or the only one of a folder, with the texts beside it."""
    file = _only_bmodel(path) if path.is_dir() else path
    if file.suffix != BMODEL_SUFFIX:
        raise ModelFileError(f'{file}: a model for chip {chip} is a {BMODEL_SUFFIX} file')
    folder = path if path.is_dir() else path.parent
    texts = find_texts(file.parent, () if file.parent == folder else (folder,))
    texts = texts or find_texts(folder)
    if texts is None:
        places = 'in it, in tokenizer/, in config/ or in another folder there'
        raise ModelFileError(f'{folder}: missing {TEXTS_WANTED}, {places}')
    return ModelFiles(name, chip, family_of(texts), file.parent, texts, {'model': file})


def _only_bmodel(folder: Path) -> Path:
    pattern = f'*{BMODEL_SUFFIX}'
    found = sorted(folder.glob(pattern)) or sorted(folder.glob(f'*/{pattern}'))
    if not found:
        raise ModelFileError(f'{folder}: missing a {BMODEL_SUFFIX} file, here or one folder below')
    if len(found) > 1:
        names = ', '.join(file.relative_to(folder).as_posix() for file in found)
        raise ModelFileError(f'{folder}: several {BMODEL_SUFFIX} files, name one: {names}')
    return found[0]


def _from_onnx_folder(folder: Path, name: str) -> ModelFiles:
    """Find the split ONNX layout in `folder`, or in `onnx/` below it."""
    if not folder.is_dir():
        raise ModelFileError(f'{folder}: a model for chip cpu is a folder, this is a file')
    found = {part: _onnx_variant(folder, part) for part in ONNX_PARTS}
    missing = [f'onnx/{part}.onnx' for part, file in found.items() if file is None]
    texts = find_texts(folder)
    if texts is None:
        missing.append(TEXTS_WANTED)
    if missing or texts is None:
        variants = ', '.join(filter(None, ONNX_SUFFIXES))
        raise ModelFileError(
            f'{folder}: missing {", ".join(missing)} of the split ONNX layout '
            f'(variants of an ONNX file that are taken too: {variants})'
        )
    weights = {part: file for part, file in found.items() if file is not None}
    return ModelFiles(name, 'cpu', family_of(texts), folder, texts, weights)


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
        texts = script.parent / Path(str(named)).expanduser()
        if not has_texts(texts):
            raise ModelFileError(f'{texts} (tokenizer of {script}): missing {TEXTS_WANTED}')
    else:
        texts = _script_texts(script.parent)
    return ModelFiles(name, 'scripted', family_of(texts), script.parent, texts, {'script': script})


def _script_texts(folder: Path) -> Path:
    """Take the texts beside a script, else the shipped ones.

    Not from any folder below: a script may lie anywhere, beside models that are not its own.
    """
    places = (folder, folder / 'tokenizer')
    shipped = SHIPPED_FOLDERS['scripted', 'scripted']
    return next((place for place in places if has_texts(place)), shipped)
