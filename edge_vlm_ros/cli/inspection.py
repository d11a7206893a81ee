"""`edge-vlm inspect`: what a model's files say of themselves, read as the engine reads them."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from edge_vlm_ros.cli.ending import undisturbed
from edge_vlm_ros.cli.exits import ExitCode
from edge_vlm_ros.cli.output import stream
from edge_vlm_ros.core import (
    BadRequestError,
    ErrorCode,
    ModelFileError,
    ModelReport,
    ReportTable,
    chip_named,
    chip_names,
)
from edge_vlm_ros.engines import inspect_model
from edge_vlm_ros.engines.sophgo.bmodel_file import read_bmodel
from edge_vlm_ros.models import catalogue_of, find_model, is_path, model_folders
from edge_vlm_ros.models.by_path import chips_for, files_in


def run(args: Namespace) -> int:
    """Print one model's report.

    Returns:
        0.

    Raises:
        EdgeVlmError: The chip has to be named, the model is not found, its files are not as they
            should be, or the chip's engine cannot read them here.
    """
    chip = args.chip or guess_chip(args.name, args.model_dir)
    files = find_model(chip, args.name, args.model_dir)
    report = undisturbed(lambda: inspect_model(chip, files, tuple(args.device_id)))
    if args.json:
        fields = {'model': args.name, 'chip': chip, 'folder': str(files.folder)}
        json.dump({**fields, **as_fields(report)}, stream(), ensure_ascii=False, indent=2)
        stream().write('\n')
    else:
        facts = {
            'model': args.name,
            'folder': str(files.folder),
            'chip': chip,
            **dict(report.facts),
        }
        stream().write(as_text(ModelReport(tuple(facts.items()), report.tables)))
    return ExitCode.DONE


def guess_chip(name: str, model_dirs: Iterable[Path]) -> str:
    """Say which chip a model is for: by the catalogue, or by the kind of its files.

    Raises:
        BadRequestError: The model exists for several chips and none was named.
        ModelFileError: There is no such model.
    """
    if is_path(name):
        return _chip_of_path(Path(os.path.expanduser(name)))  # noqa: PTH111 (no error for an unknown user)
    chips = catalogue_of(model_folders(model_dirs)).chips_of(name)
    if not chips:
        raise ModelFileError(
            f"no model named {name!r}; 'edge-vlm models' lists them; a path has a / in it"
        )
    return _only(chips, name)


def _chip_of_path(path: Path) -> str:
    if not os.path.exists(path):  # noqa: PTH110 (nor for a name that is too long)
        raise ModelFileError(f'{path}: no such file or folder')
    chips = chips_for(path)
    if chips and all(chip_named(chip).vendor == 'Sophgo' for chip in chips):
        # The file itself says which. Axera's do not: both chips' files look alike.
        files = [path] if path.is_file() else files_in(path, chip_named(chips[0]).suffix)
        if len(files) == 1:
            return read_bmodel(files[0]).chip.lower()
    return _only(chips or chip_names(), str(path))


def _only(chips: tuple[str, ...], name: str) -> str:
    if len(chips) == 1:
        return chips[0]
    raise BadRequestError(
        f'{name} may be for {" or ".join(chips)}: say --chip', ErrorCode.UNSUPPORTED_OPTION
    )


def as_fields(report: ModelReport) -> dict[str, object]:
    """Return a report as plain data: facts by name, each table as a list of objects."""
    tables = [
        {
            'title': table.title,
            'rows': [dict(zip(table.columns, row, strict=True)) for row in table.rows],
        }
        for table in report.tables
    ]
    return {'facts': dict(report.facts), 'tables': tables}


def as_text(report: ModelReport) -> str:
    """Lay a report out: facts first, then the tables in columns."""
    width = max((len(name) for name, _ in report.facts), default=0)
    facts = ''.join(f'{name:<{width}}  {value}\n' for name, value in report.facts)
    return facts + ''.join(f'\n{table.title}\n{_columns(table)}' for table in report.tables)


def _columns(table: ReportTable) -> str:
    rows = [tuple(column.upper() for column in table.columns), *table.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ('  '.join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
    return ''.join(f'  {line.rstrip()}\n' for line in lines)
