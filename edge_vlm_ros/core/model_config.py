"""What the JSON files that describe a model say: each is read once, whoever asks.

config.json             the model: its `model_type`, its parts and their sizes
generation_config.json  how answers end; not every folder has one
preprocessor_config.json  how pixels are normalised and cut; folders that transformers 5 saved
have it as the object `image_processor` of processor_config.json
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from edge_vlm_ros.core.config_file import ConfigFile
from edge_vlm_ros.core.errors import ModelFileError
from edge_vlm_ros.core.model_families import family_of_type

CONFIG_NAME = 'config.json'
GENERATION_NAME = 'generation_config.json'
PREPROCESSOR_NAME = 'preprocessor_config.json'
PROCESSOR_NAME = 'processor_config.json'
_IMAGE_PROCESSOR = 'image_processor'
_DEEPSTACK = 'deepstack_visual_indexes'


@dataclass(frozen=True, slots=True)
class Completion:
    """What stands in for files that a model's folder lacks; a file that is there counts.

    Attributes:
        source: Where it is from, for messages.
        files: Content by file name.
    """

    source: str
    files: Mapping[str, Mapping[str, Any]] = field(repr=False)


class ModelConfig:
    """The JSON files of one model's folder, each read when it is first asked for, and once.

    May be made for any folder: what is missing or damaged is said where it is asked for.

    Args:
        folder: Where config.json and the tokenizer lie.
        completion: What is known of files that are not there.
    """

    def __init__(self, folder: Path, completion: Completion | None = None) -> None:
        self.folder = folder
        self._completion = completion

    @cached_property
    def model(self) -> ConfigFile:
        """config.json.

        Raises:
            ModelFileError: Missing, damaged, or no JSON object; so in all that follows.
        """
        return self._read(CONFIG_NAME)

    @cached_property
    def language(self) -> ConfigFile:
        """What config.json says of the language model: an object of its own, or all of it.

        OpenGVLab's folders call the object `llm_config`, transformers' `text_config`; Qwen2-VL's
        have none.
        """
        sections = map(self.model.section, ('llm_config', 'text_config'))
        return next((section for section in sections if section.values), self.model)

    @cached_property
    def vision(self) -> ConfigFile:
        """What config.json says of the vision tower; empty where it says nothing."""
        return self.model.section('vision_config')

    @cached_property
    def generation(self) -> ConfigFile:
        """generation_config.json; empty where there is none."""
        return self._read(GENERATION_NAME, may_be_missing=True)

    @cached_property
    def preprocessor(self) -> ConfigFile:
        """How pixels are prepared, from whichever file has it.

        Where both do, processor_config.json counts. Source: huggingface/transformers,
        image_processing_base.py, get_image_processor_dict.
        """
        processor = self._read(PROCESSOR_NAME, may_be_missing=True)
        nested = processor.section(_IMAGE_PROCESSOR)
        return nested if nested.values else self._read(PREPROCESSOR_NAME)

    @property
    def has_preprocessor(self) -> bool:
        """Whether there is a file that may say how pixels are prepared."""
        names = (PREPROCESSOR_NAME, PROCESSOR_NAME)
        known = self._completion.files if self._completion is not None else {}
        return any(name in known or (self.folder / name).exists() for name in names)

    @property
    def deepstack_layers(self) -> int:
        """Decoder layers that the vision tower gives features of their own (Qwen3-VL); 0 = none.

        Raises:
            ModelFileError: Something else than a list of layers stands there.
        """
        return len(self.vision.numbers(_DEEPSTACK))

    @property
    def model_type(self) -> str:
        """`model_type` of config.json; '' where it has none."""
        return self.model.text('model_type') or ''

    @property
    def family(self) -> str:
        """The family's name; '' where no family knows the model, or config.json cannot be read."""
        try:
            row = family_of_type(self.model_type)
        except ModelFileError:
            return ''
        return '' if row is None else row.name

    def _read(self, name: str, *, may_be_missing: bool = False) -> ConfigFile:
        path = self.folder / name
        completion = self._completion
        if completion is not None and name in completion.files and not path.exists():
            return ConfigFile(Path(f'{name} ({completion.source})'), completion.files[name])
        return ConfigFile.read(path, may_be_missing=may_be_missing)
