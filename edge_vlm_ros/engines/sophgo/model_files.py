"""Which file is the bmodel, and what the model's config.json adds to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_vlm_ros.core import ModelFileError, ModelFiles
from edge_vlm_ros.engines.sophgo.bmodel_file import BmodelFile, read_bmodel
from edge_vlm_ros.engines.sophgo.contract import Contract, read_contract

_IMAGE_ROWS = 8
"""Rows that Llama 3.2 Vision's embedding has after its vocabulary, for the image token."""

_FAMILY_OF_TYPE = {'internvl_chat': 'internvl', 'internvl': 'internvl'}


def find_bmodel(files: ModelFiles) -> Path:
    """Return the model's one bmodel.

    Raises:
        ModelFileError: There is none, or several.
    """
    if 'model' in files.weights:
        return files.weights['model']
    found = sorted(files.folder.glob('*.bmodel'))
    if len(found) != 1:
        names = ', '.join(path.name for path in found) or 'none'
        raise ModelFileError(f'{files.folder}: one .bmodel file wanted, found {names}')
    return found[0]


def read_for_chip(files: ModelFiles) -> BmodelFile:
    """Read the bmodel's description and check that it was compiled for the chip.

    Raises:
        ModelFileError: Missing, truncated, no bmodel, or of another chip.
    """
    bmodel = read_bmodel(find_bmodel(files))
    if bmodel.chip != files.chip:
        raise ModelFileError(
            f'{bmodel.path}: compiled for {bmodel.chip.upper()}, this is chip {files.chip.upper()}'
        )
    return bmodel


def contract_of(bmodel: BmodelFile) -> Contract:
    """Tell which contract a file keeps.

    Raises:
        ModelFileError: Its nets keep none that is known; names the file, the net and the tensor.
    """
    try:
        return read_contract(bmodel.nets)
    except ModelFileError as error:
        raise ModelFileError(f'{bmodel.path}: {error.message}') from error
    except IndexError as error:
        raise ModelFileError(f'{bmodel.path}: a net has a tensor without sizes') from error


def find_embedding_table(files: ModelFiles) -> Path:
    """Return where the table of a build without embedding nets should be."""
    if 'embed_tokens' in files.weights:
        return files.weights['embed_tokens']
    name = 'embedding.bin'
    places = (files.folder, files.folder / 'config', files.tokenizer_folder)
    return next((p / name for p in places if (p / name).is_file()), files.folder / name)


def read_config(files: ModelFiles) -> Mapping[str, Any]:
    """Read config.json.

    Raises:
        ModelFileError: Missing, or no JSON object.
    """
    path = files.tokenizer_folder / 'config.json'
    try:
        config = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise ModelFileError(f'{path}: no such file; it belongs to the model') from None
    except (OSError, ValueError) as error:
        raise ModelFileError(f'{path}: cannot be read as JSON: {error}') from error
    if not isinstance(config, dict):
        raise ModelFileError(f'{path}: expected an object, found {type(config).__name__}')
    return config


def check_config(files: ModelFiles, bmodel: Path, contract: Contract) -> int:
    """Check that config.json is this bmodel's; return the vocabulary's size.

    A bmodel whose head gives the token itself does not tell how many ids its embedding knows.

    Raises:
        ModelFileError: It is of another family, depth, width or vocabulary.
    """
    path, config = files.tokenizer_folder / 'config.json', read_config(files)
    named = str(config.get('model_type', ''))
    family = _FAMILY_OF_TYPE.get(named, named)
    if family and contract.family and family != contract.family:
        raise ModelFileError(
            f'{bmodel}: its nets are of family {contract.family}, {path} is of {named}'
        )
    language = config.get('llm_config') or config.get('text_config') or config
    decoder = contract.decoder
    for key, found in (
        ('num_hidden_layers', len(decoder.kinds)),
        ('hidden_size', decoder.hidden),
    ):
        expected = language.get(key)
        if isinstance(expected, int) and expected != found:
            raise ModelFileError(f'{bmodel}: {key}: expected {expected} ({path}), found {found}')
    vocab = language.get('vocab_size')
    scores = contract.head.vocab
    if not isinstance(vocab, int):
        if scores is None:
            raise ModelFileError(f'{path}: vocab_size: expected a number, found {vocab!r}')
        vocab = scores
    return vocab + _IMAGE_ROWS if decoder.cross is not None else vocab
