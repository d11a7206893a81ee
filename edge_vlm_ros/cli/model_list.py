"""The catalogue as the command line shows it: each model, and what of it is on this disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edge_vlm_ros.cli.cpu_estimate import CpuEstimate, estimate, measure_speed
from edge_vlm_ros.core import EdgeVlmError, ModelFileError, ModelFiles, chip_named, chip_names
from edge_vlm_ros.models import Catalogue, catalogue_of, find_model, model_folders
from edge_vlm_ros.models.by_name import home_of, where_by_hand
from edge_vlm_ros.models.catalogue import ModelEntry


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One model of the catalogue on this machine.

    Attributes:
        name: What `--model` takes.
        chip: What `--chip` takes.
        family: 'internvl', ...
        parameters: What the publisher says; '' = nothing.
        is_default: Whether it is the chip's model when none is named.
        folder: Where its files lie; '' = not all of them are on this disk.
        nbytes: Bytes of its weights on this disk, with those that lie beside a graph.
        problem: What is missing; '' = nothing.
        remedy: What to do about it: the commands that fetch it, one a line; '' = nothing is
            missing.
        source: Who publishes it.
        context_tokens: Prompt and answer together; 0 = not published.
        sdk: Oldest driver or runtime that loads it; '' = none is needed.
        device_memory_mb: Memory of the chip that it takes, MiB; 0 = not published.
        host_memory_mb: Memory of the host that it takes, MiB; 0 = not published.
        cost: What it is expected to take on this machine's CPU; None = nothing is known.
        note: Anything else worth knowing.
    """

    name: str
    chip: str
    family: str
    parameters: str
    is_default: bool
    folder: str
    nbytes: int
    problem: str
    remedy: str
    source: str
    context_tokens: int
    sdk: str
    device_memory_mb: int
    host_memory_mb: int
    cost: CpuEstimate | None
    note: str

    def fields(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def list_models(
    model_dirs: Iterable[Path], chip: str = '', *, with_costs: bool = False
) -> list[ListedModel]:
    """List the catalogue, a user's own catalogues included.

    Args:
        model_dirs: Folders to look in before the usual ones.
        chip: Only models for this chip; '' = all.
        with_costs: Whether to measure this machine and say what those of the CPU take.

    Raises:
        BadRequestError: There is no such chip.
        ModelFileError: A user's catalogue is not what it should be.
    """
    dirs = [Path(folder).expanduser() for folder in model_dirs]
    folders = model_folders(dirs)
    catalogue = catalogue_of(folders)
    if chip:
        chip_named(chip)
    entries = catalogue.models_for(chip) if chip else catalogue.entries
    order = chip_names()
    listed = [
        _listed(entry, dirs, folders[0], is_default=_is_default(catalogue, entry))
        for entry in sorted(entries, key=lambda entry: order.index(entry.chip))
    ]
    if not with_costs:
        return listed
    works = {(entry.chip, entry.name): entry.work for entry in entries if entry.work}
    return [
        replace(model, cost=estimate(works[key], measure_speed()))
        if (key := (model.chip, model.name)) in works
        else model
        for model in listed
    ]


def _is_default(catalogue: Catalogue, entry: ModelEntry) -> bool:
    try:
        return catalogue.default_model(entry.chip) == entry.name
    except EdgeVlmError:  # a chip that has none, or of a broken package
        return False


def _listed(entry: ModelEntry, dirs: list[Path], home: Path, *, is_default: bool) -> ListedModel:
    files: ModelFiles | None = None
    problem = remedy = ''
    try:
        files = find_model(entry.chip, entry.name, dirs)
    except ModelFileError as error:
        problem = error.message.splitlines()[0].partition(': ')[2] or error.message
        place = home_of(entry, home)
        remedy = '\n'.join(entry.fetch_commands(place)) or where_by_hand(entry, place)
    weights = files.weights.values() if files else ()
    return ListedModel(
        name=entry.name,
        chip=entry.chip,
        family=entry.family,
        parameters=entry.parameters,
        is_default=is_default,
        folder=str(files.folder) if files else '',
        nbytes=sum(path.stat().st_size for path in with_data(weights)),
        problem=problem,
        remedy=remedy,
        source=entry.source,
        context_tokens=entry.context_tokens,
        sdk=entry.sdk,
        device_memory_mb=entry.device_memory_mb,
        host_memory_mb=entry.host_memory_mb,
        cost=None,
        note=' '.join(filter(None, (str(entry.speed or ''), entry.note))),
    )


def with_data(weights: Iterable[Path]) -> list[Path]:
    """Add the files of weights that lie beside ONNX graphs, as large ones have them."""
    return [
        file
        for path in weights
        for file in (path, *sorted(path.parent.glob(f'{path.name}_data*')))
    ]
