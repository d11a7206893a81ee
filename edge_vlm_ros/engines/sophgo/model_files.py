"""Which file is the bmodel, and what the model's config.json adds to it."""

from __future__ import annotations

from pathlib import Path

from edge_vlm_ros.core import ModelFileError, ModelFiles
from edge_vlm_ros.engines.sophgo.bmodel_file import BmodelFile, read_bmodel
from edge_vlm_ros.engines.sophgo.contract import Contract, read_contract
from edge_vlm_ros.engines.sophgo.likely_model import likely_model
from edge_vlm_ros.engines.sophgo.towers.window import WindowTower

_IMAGE_ROWS = 8
"""Rows that Llama 3.2 Vision's embedding has after its vocabulary, for the image token."""


def find_bmodel(files: ModelFiles) -> Path:
    """Return the model's one bmodel.

    Raises:
        ModelFileError: The folder holds no bmodel, or several.
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
        name = likely_model(bmodel.nets)
        whose = f' (its nets look like those of {name})' if name else ''
        raise ModelFileError(f'{bmodel.path}: {error.message}{whose}') from error
    except IndexError as error:
        raise ModelFileError(f'{bmodel.path}: a net has a tensor without sizes') from error


def find_embedding_table(files: ModelFiles) -> Path:
    """Return where the table of a build without embedding nets should be."""
    if 'embed_tokens' in files.weights:
        return files.weights['embed_tokens']
    name = 'embedding.bin'
    places = (files.folder, files.folder / 'config', files.tokenizer_folder)
    return next((p / name for p in places if (p / name).is_file()), files.folder / name)


def check_config(files: ModelFiles, bmodel: Path, contract: Contract) -> int:
    """Check that config.json is this bmodel's; return the vocabulary's size.

    A bmodel whose head gives the token itself does not say how many ids its embedding knows.

    Raises:
        ModelFileError: It is of another family, depth, width or vocabulary, or its windows are.
    """
    path, language = files.config.model.path, files.config.language
    named = files.config.model_type
    family = files.family or named
    if family and contract.family and family != contract.family:
        raise ModelFileError(
            f'{bmodel}: its nets are of family {contract.family}, {path} is of {named}'
        )
    if isinstance(contract.tower, WindowTower):
        contract.tower.check(files.config.vision)
    decoder = contract.decoder
    for key, found in (
        ('num_hidden_layers', len(decoder.kinds)),
        ('hidden_size', decoder.hidden),
    ):
        expected = language.find_count(key)
        if expected not in {None, found}:
            raise ModelFileError(f'{bmodel}: {key}: expected {expected} ({path}), found {found}')
    vocab = language.find_count('vocab_size')
    vocab = contract.head.vocab if vocab is None else vocab
    if vocab is None:
        raise ModelFileError(f'{path}: vocab_size: expected a number, found none')
    return vocab + _IMAGE_ROWS if decoder.cross is not None else vocab
