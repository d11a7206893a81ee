"""Find an axmodel set that is named by its folder, or by one above."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge_vlm_ros.core import Chip, ModelFileError, ModelFiles
from edge_vlm_ros.models.axllm_package import AxllmPackage, read_axllm_package
from edge_vlm_ros.models.axmodel_set import SetSearch, WantedSet, search_axmodel_set
from edge_vlm_ros.models.catalogue import load_catalogue
from edge_vlm_ros.models.tokenizer_folder import (
    BELOW,
    find_tokenizer,
    missing_tokenizer,
    tokenizer_beside,
)

if TYPE_CHECKING:
    from pathlib import Path


def find_axmodel_folder(chip: Chip, folder: Path, name: str) -> ModelFiles:
    """Find an axmodel set in a folder or below.

    Args:
        chip: What is to run it: of several sets, its own is taken.
        folder: The set's, or above.
        name: As the user wrote it.

    Raises:
        ModelFileError: Files are missing or do not belong together; config.json is damaged.
    """
    if not folder.is_dir():
        raise ModelFileError(f'{folder}: a model for chip {chip.name} is a folder, this is a file')
    search, package = search_with_package(folder, WantedSet(chip=chip.name))
    tokenizer = _tokenizer_of(folder, package)
    missing = list(search.missing)
    if tokenizer is None:
        missing.append(_what_is_missing(folder, package))
    if package is not None and not package.vision:
        search.conflicts.append(
            f'{package.folder} is an axllm package of a language model alone: its config.json '
            'names no vision tower (filename_image_encoder_axmodel), and nothing could be shown'
        )
    problems = [*search.conflicts, *([f'missing {", ".join(missing)}'] if missing else [])]
    if problems or tokenizer is None:
        raise ModelFileError(f'{folder}: {"; ".join(problems)}')
    return ModelFiles(name, chip.name, folder, tokenizer, search.weights)


def search_with_package(folder: Path, wanted: WantedSet) -> tuple[SetSearch, AxllmPackage | None]:
    """Look for a set; where it is a package of axllm, its config.json says what belongs to it.

    Raises:
        ModelFileError: config.json is damaged.
    """
    search = search_axmodel_set(folder, wanted)
    first = search.weights.get('layers.0')
    package = read_axllm_package(first.parent) if first is not None else None
    package = package or read_axllm_package(folder)
    if package is None:
        return search, None
    named = replace(
        wanted,
        layers=wanted.layers or package.layers,
        layer_count=package.layer_count or wanted.layer_count,
        vision=package.vision or wanted.vision,
    )
    return search_axmodel_set(folder, named), package


def _tokenizer_of(folder: Path, package: AxllmPackage | None) -> Path | None:
    if package is None:
        return find_tokenizer(folder) or tokenizer_beside(folder)
    # A package's own config.json is none of a model, also where a tokenizer lies beside it.
    above = dict.fromkeys((package.folder, folder))
    places = (*above, *(place / below for place in above for below in BELOW))
    found = (*map(find_tokenizer, places), *map(tokenizer_beside, above))
    whole = (place for place in found if place is not None and not read_axllm_package(place))
    return next(whole, None)


def _what_is_missing(folder: Path, package: AxllmPackage | None) -> str:
    if package is None:
        return missing_tokenizer(folder)
    known = dict.fromkeys(entry.tokenizer for entry in load_catalogue().entries)
    return package.what_is_missing(filter(None, known))
