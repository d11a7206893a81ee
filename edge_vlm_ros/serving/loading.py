"""From the name of a model to its engine and its family."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from edge_vlm_ros.core import ModelFileError, ModelFiles, takes, unsupported
from edge_vlm_ros.engines import (
    OnLoaded,
    engine_options,
    ignore_progress,
    known_tokens,
    open_engine,
)
from edge_vlm_ros.engines.base import Engine
from edge_vlm_ros.families import FamilySettings, ModelFamily, family_options, read_family
from edge_vlm_ros.models import find_model
from edge_vlm_ros.serving.model_info import ChipModelInfo, ModelSpec, StageCosts
from edge_vlm_ros.text import Tokenizer

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model on a chip, and the words and pixels it wants.

    Attributes:
        engine: Belongs to the thread that loaded it.
        family: The model's, made for this engine.
        model: Catalogue name or path.
        chip: 'cpu', 'bm1684x', ...
        family_name: 'internvl', ...
    """

    engine: Engine
    family: ModelFamily
    model: str
    chip: str
    family_name: str

    def info(self, load_s: float, costs: StageCosts) -> ChipModelInfo:
        """Describe it.

        Args:
            load_s: What it took to load and to warm up.
            costs: Of its stages.
        """
        limits = self.engine.limits
        return ChipModelInfo(
            model=self.model,
            chip=self.chip,
            max_images=limits.max_images,
            usual_frames=limits.frames_per_question,
            load_s=round(load_s, 3),
            limits=limits,
            costs=costs,
            way=getattr(self.engine, 'backend_name', ''),
        )

    def close(self) -> None:
        """Free the chip, whatever the engine raises; on the thread that loaded it."""
        try:
            self.engine.close()
        except BaseException as error:  # noqa: BLE001 (vendor libraries raise anything)
            _log.error('the engine cannot be closed', exc_info=error)


@dataclass(frozen=True, slots=True)
class ChosenOptions:
    """A user's options, by whom they are for.

    Attributes:
        family: Of the model's family.
        engine: Of the chip's engine.
    """

    family: Mapping[str, object]
    engine: Mapping[str, object]


def load_model(spec: ModelSpec, on_loaded: OnLoaded = ignore_progress) -> LoadedModel:
    """Find a model's files, load them onto the chip.

    Args:
        spec: Which model on which chip.
        on_loaded: Called after each part, where a model loads in parts: parts loaded, parts in
            all.

    Raises:
        ModelFileError: Files are missing, damaged or of another kind.
        DeviceError: The chip does not work.
        BadRequestError: There is no such chip, an option is unknown to family and engine, or it
            asks for more than the engine takes.
    """
    files = find_model(spec.chip, spec.model, spec.model_dirs)
    options = sort_options(spec.options, files)
    # Before the engine, which may take minutes: what is wrong with these files is said at once.
    settings = read_family(files.config, options.family)
    check_tokens(files, settings)
    engine = open_engine(spec.chip, files, spec.device_ids, options.engine, on_loaded)
    try:
        family = settings.bound_by(engine.limits)
    except BaseException:
        engine.close()
        raise
    return LoadedModel(engine, family, files.name, spec.chip, files.family)


def check_tokens(files: ModelFiles, settings: FamilySettings) -> None:
    """Refuse a tokenizer with ids that the embedding has no row for, before anything is loaded.

    Raises:
        ModelFileError: There are some: tokenizer and weights are not of one model.
    """
    tokenizer = getattr(settings, 'tokenizer', None)
    rows = known_tokens(files.chip, files)
    if rows is not None and isinstance(tokenizer, Tokenizer) and tokenizer.largest_id >= rows:
        raise ModelFileError(
            f'{files.folder}: the embedding table has {rows} rows, the tokenizer in '
            f'{files.tokenizer_folder} has ids up to {tokenizer.largest_id}: they are not of one '
            'model, or the table is cut short'
        )


def sort_options(options: Mapping[str, object], files: ModelFiles) -> ChosenOptions:
    """Say whom each option is for: the model's family, or else the chip's engine.

    Raises:
        BadRequestError: One is for neither; lists what both take.
    """
    of_family = family_options(files.config).names()
    of_engine = engine_options(files.chip).names()
    for name in options:
        if name not in {*of_family, *of_engine}:
            family = takes(f'family {files.family}', of_family)
            chip = takes(f'chip {files.chip}', of_engine)
            raise unsupported(f'there is no option {name!r} here: {family}; {chip}')
    return ChosenOptions(
        {name: value for name, value in options.items() if name in of_family},
        {name: value for name, value in options.items() if name not in of_family},
    )
