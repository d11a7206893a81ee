"""`edge-vlm models`: the catalogue, and which of it is on this disk."""

from __future__ import annotations

import json
import textwrap
from argparse import Namespace
from collections.abc import Sequence

from edge_vlm_ros.cli.cpu_estimate import HOW
from edge_vlm_ros.cli.exits import ExitCode
from edge_vlm_ros.cli.model_list import ListedModel, list_models
from edge_vlm_ros.cli.output import stream

_HEADINGS = ('CHIP', 'MODEL', 'PARAMETERS', 'ON DISK', 'WHERE')
_HINT = '`edge-vlm models --chip CHIP` shows the commands that fetch them\n'


def run(args: Namespace) -> int:
    """Print the catalogue.

    Returns:
        0.

    Raises:
        BadRequestError: There is no such chip.
        ModelFileError: A catalogue file is not what it should be.
    """
    models = list_models(args.model_dir, args.chip, with_costs=True)
    if args.json:
        json.dump([model.fields() for model in models], stream(), ensure_ascii=False, indent=2)
        stream().write('\n')
    else:
        stream().write(as_table(models))
        stream().write(what_they_take(models))
        stream().write(how_to_get(models) if args.chip else _HINT)
    return ExitCode.DONE


def as_table(models: Sequence[ListedModel]) -> str:
    """Lay the models out in columns; a star marks each chip's default."""
    rows = [_HEADINGS, *map(_row, models)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ('  '.join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
    table = '\n'.join(line.rstrip() for line in lines)
    return f'{table}\n\n* the model of its chip when none is named\n'


def what_they_take(models: Sequence[ListedModel]) -> str:
    """Say what the models of the CPU are expected to take on this machine."""
    lines = [
        f'  {model.name}: {f"{model.host_memory_mb} MiB, " if model.host_memory_mb else ""}'
        f'{model.cost}\n'
        for model in models
        if model.cost
    ]
    return f'\non the CPU of this machine, {HOW}:\n{"".join(lines)}' if lines else ''


def how_to_get(models: Sequence[ListedModel]) -> str:
    """Give the commands that fetch what is not on this disk."""
    return ''.join(
        f'\nto get {model.name}:\n{textwrap.indent(model.remedy, "  ")}\n'
        for model in models
        if model.remedy
    )


def _row(model: ListedModel) -> tuple[str, ...]:
    name = f'{model.name} *' if model.is_default else model.name
    if model.folder:
        size = f'{model.nbytes / 1e6:,.1f} MB'
        return model.chip, name, model.parameters, size, model.folder
    return model.chip, name, model.parameters, 'no', f'{model.source}'
