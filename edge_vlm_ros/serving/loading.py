"""From the name of a model to its engine and its family."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from edge_vlm_ros.engines import OnLoaded, open_engine, require_engine
from edge_vlm_ros.engines.base import Engine
from edge_vlm_ros.families import FamilyOptions, load_family
from edge_vlm_ros.families.base import ModelFamily
from edge_vlm_ros.models import find_model
from edge_vlm_ros.serving.model_info import ModelSpec
from edge_vlm_ros.serving.tiles import choose_tiles


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model on a chip, and the words and pixels it wants.

    Attributes:
        engine: Belongs to the thread that loaded it.
        family: The model's.
        model: Catalogue name or path.
        chip: 'cpu', 'bm1684x', ...
        family_name: 'internvl', ...
    """

    engine: Engine
    family: ModelFamily
    model: str
    chip: str
    family_name: str


def unheard(loaded: int, total: int) -> None:
    """Let the progress of a load pass."""


def load_model(spec: ModelSpec, on_loaded: OnLoaded = unheard) -> LoadedModel:
    """Find a model's files, load them onto the chip.

    Args:
        spec: Which model on which chip.
        on_loaded: Called after each part, where a model loads in parts: parts loaded, parts in
            all.

    Raises:
        ModelFileError: Files are missing, damaged or of another kind.
        DeviceError: There is no engine for the chip, or the chip does not work.
        BadRequestError: An option that neither family nor engine has, or more tiles than the
            engine takes.
    """
    require_engine(spec.chip)
    files = find_model(spec.chip, spec.model, spec.model_dirs)
    names = {field.name for field in fields(FamilyOptions)}
    chosen: dict[str, Any] = {n: v for n, v in spec.options.items() if n in names}
    options = FamilyOptions(**chosen)
    # Before the engine, which may take minutes: what is wrong with these files is said at once.
    family = load_family(files.tokenizer_folder, options)
    rest = {name: value for name, value in spec.options.items() if name not in names}
    engine = open_engine(spec.chip, files, spec.device_ids, rest, on_loaded)
    try:
        family.fit(engine.limits)
        tiles = choose_tiles(family, options.max_tiles, engine.limits)
        if tiles != options.max_tiles:
            family = load_family(files.tokenizer_folder, replace(options, max_tiles=tiles))
            family.fit(engine.limits)
    except BaseException:
        engine.close()
        raise
    return LoadedModel(engine, family, files.name, spec.chip, files.family)
