"""Find a model's files on this machine.

A name with a '/' in it, or starting with '.' or '~', is a path: a model's folder, or its one file.
Any other name is looked up in the catalogue, and its files are looked for in these folders, in
this order:

1. `model_dirs` (the node's parameter, the command line's option),
2. the folders in the environment variable EDGE_VLM_MODELS, separated by ':',
3. $XDG_DATA_HOME/edge_vlm_ros/models, by default ~/.local/share/edge_vlm_ros/models,
4. the package itself (the demo model and the default script).

In each of the first three, `<folder>/<chip>/<name>` is looked at before `<folder>/<name>`. A
model's tokenizer and config.json may lie in its folder, in any folder below (`tokenizer/` and
`config/` first), or in a folder that is named like their repository, below or beside it. A file
catalogue.yaml in one of the folders adds to the catalogue; the first folder's has the last word.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from edge_vlm_ros.core import ModelFiles
from edge_vlm_ros.models.by_name import find_by_name
from edge_vlm_ros.models.by_path import find_by_path
from edge_vlm_ros.models.catalogue import CATALOGUE_NAME, Catalogue, load_catalogue

MODELS_VARIABLE = 'EDGE_VLM_MODELS'


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
    folders = model_folders(model_dirs)
    catalogue = catalogue_of(folders)
    name = name_or_path or catalogue.default_model(chip)
    if is_path(name):
        return find_by_path(chip, name)
    return find_by_name(catalogue.find(chip, name), folders)


def model_folders(model_dirs: Iterable[str | Path] = ()) -> list[Path]:
    """List the folders that models are looked for in, `model_dirs` first."""
    return [*(Path(folder).expanduser() for folder in model_dirs), *default_model_dirs()]


def catalogue_of(folders: Iterable[Path]) -> Catalogue:
    """Read the catalogue with what these folders add to it; the first one has the last word.

    Raises:
        ModelFileError: A catalogue file is not what it should be.
    """
    return load_catalogue(folder / CATALOGUE_NAME for folder in reversed([*folders]))


def default_model_dirs() -> list[Path]:
    """List the folders that models are looked for in, the package's own aside."""
    named = os.environ.get(MODELS_VARIABLE, '').split(os.pathsep)
    data_home = os.environ.get('XDG_DATA_HOME') or '~/.local/share'
    folders = [*filter(None, named), f'{data_home}/edge_vlm_ros/models']
    return [Path(folder).expanduser() for folder in folders]


def is_path(name: str) -> bool:
    """Return whether a model is named by path and not by catalogue name."""
    return '/' in name or name.startswith(('.', '~'))
