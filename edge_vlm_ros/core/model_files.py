"""Where the files of one model lie; found by `models`, opened by `engines` and `families`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """One model for one chip, found on disk.

    Attributes:
        name: Catalogue name, or the path that was asked for.
        chip: 'cpu', 'bm1684x', ...
        family: 'internvl', ...; '' where only config.json says it.
        folder: Where the weights lie.
        tokenizer_folder: Where config.json and the tokenizer lie; often the same folder.
        weights: Path by part: 'vision_encoder', 'embed_tokens' and 'decoder_model_merged' for the
            split ONNX layout, 'model' for a single file, 'script' for the scripted engine.
    """

    name: str
    chip: str
    family: str
    folder: Path
    tokenizer_folder: Path
    weights: Mapping[str, Path] = field(default_factory=dict)
