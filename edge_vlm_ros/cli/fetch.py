"""`edge-vlm models fetch`: bring a model to this disk, or say what to copy where."""

from __future__ import annotations

import sys
from argparse import Namespace

from edge_vlm_ros.cli.exits import ExitCode
from edge_vlm_ros.cli.output import stream
from edge_vlm_ros.core import BadRequestError, ErrorCode, ModelFileError, ModelFiles
from edge_vlm_ros.models import Catalogue, ModelEntry, catalogue_of, model_folders
from edge_vlm_ros.models.fetch import fetch_model


def run(args: Namespace) -> int:
    """Fetch a model and find it.

    Returns:
        0.

    Raises:
        BadRequestError: There is no such chip, or the model's chip has to be named.
        ModelFileError: No model of that name, or something could not be fetched.
    """
    to = [] if args.to is None else [args.to]
    folders = model_folders([*to, *args.model_dir])
    entry = _entry(catalogue_of(folders), args.name, args.chip)
    files = fetch_model(entry, folders[0], folders[1:], _say)
    stream().write(f'found {entry.name} for {entry.chip}: {_size(files)} in {files.folder}\n')
    if not entry.is_shipped and folders[0] not in model_folders():
        _say(f'name the folder where it is used: model_dirs:="[{folders[0]}]" for the node, ')
        _say(f'--model-dir {folders[0]} here, or EDGE_VLM_MODELS={folders[0]} for both')
    return ExitCode.DONE


def _entry(catalogue: Catalogue, name: str, chip: str) -> ModelEntry:
    if chip:
        return catalogue.find(chip, name)
    chips = catalogue.chips_of(name)
    if not chips:
        raise ModelFileError(f"no model named {name!r}; 'edge-vlm models' lists them")
    if len(chips) > 1:
        raise BadRequestError(
            f'{name} is there for {", ".join(chips)}: say --chip', ErrorCode.UNSUPPORTED_OPTION
        )
    return catalogue.find(chips[0], name)


def _size(files: ModelFiles) -> str:
    nbytes = sum(path.stat().st_size for path in files.weights.values())
    count = len(files.weights)
    return f'{count} file{"" if count == 1 else "s"} of weights, {nbytes / 1e6:,.1f} MB,'


def _say(line: str) -> None:
    sys.stderr.write(f'{line}\n')
    sys.stderr.flush()
