"""Where the files of one model lie; found by `models`, opened by `engines` and `families`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_vlm_ros.core.model_config import Completion, ModelConfig


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """One model for one chip, found on disk.

    Attributes:
        name: Catalogue name, or the path that was asked for.
        chip: 'cpu', 'bm1684x', ...
        folder: Where the weights lie.
        tokenizer_folder: Where config.json and the tokenizer lie; often the same folder.
        weights: Path by part. 'model' for a single file; 'vision_encoder', 'embed_tokens' and
            'decoder_model_merged' for the split ONNX layout; 'layers.0' and so on, 'post',
            'embed_tokens' and 'vision_encoder' for an axmodel set; 'script' for the scripted
            engine. Of a catalogue model, the parts that its row names.
        completion: What is known of files that the tokenizer's folder lacks.
        device_memory_mb: Memory of the chip that loading it was measured to take, MiB; 0 = the
            catalogue has no figure.
        config: What config.json and its neighbours say.
    """

    name: str
    chip: str
    folder: Path
    tokenizer_folder: Path
    weights: Mapping[str, Path] = field(default_factory=dict)
    completion: Completion | None = field(default=None, repr=False)
    device_memory_mb: int = 0
    config: ModelConfig = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, 'config', ModelConfig(self.tokenizer_folder, self.completion))

    @property
    def family(self) -> str:
        """'internvl', ...; '' where config.json names none that is known."""
        return self.config.family
