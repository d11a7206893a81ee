"""From the name of a model to its engine and its family."""

from __future__ import annotations

from dataclasses import dataclass

from edge_vlm_ros.engines import open_engine, require_engine
from edge_vlm_ros.engines.base import Engine
from edge_vlm_ros.families import load_family
from edge_vlm_ros.families.base import ModelFamily
from edge_vlm_ros.models import find_model
from edge_vlm_ros.serving.model_info import ModelSpec


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


def load_model(spec: ModelSpec) -> LoadedModel:
    """Find a model's files, load them onto the chip.

    Raises:
        ModelFileError: Files are missing, damaged or of another kind.
        DeviceError: There is no engine for the chip, or the chip does not work.
        BadRequestError: An option that the engine does not have.
    """
    require_engine(spec.chip)
    files = find_model(spec.chip, spec.model, spec.model_dirs)
    family = load_family(files.tokenizer_folder)
    engine = open_engine(spec.chip, files, spec.device_ids, spec.options)
    return LoadedModel(engine, family, files.name, spec.chip, files.family)
