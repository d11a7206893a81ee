"""A tiny checkpoint, and the folder it is written to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.byte_tokenizer import BYTES, tokenizer_json

from edge_vlm_ros.engines.bf16 import to_bf16
from tools.sophgo.compile.weights import Array, save_checkpoint


def ids_of(tokens: tuple[str, ...]) -> dict[str, int]:
    """Return the ids of special tokens: they follow the bytes."""
    return {token: BYTES + i for i, token in enumerate(tokens)}


class Checkpoint:
    """Weights and configuration files.

    Args:
        config: config.json.
        weights: By the publisher's names.
        tokens: The special tokens, from id 256 on.
        extra: More JSON files by name.
    """

    def __init__(
        self,
        config: dict[str, Any],
        weights: dict[str, Array],
        tokens: tuple[str, ...],
        extra: dict[str, dict[str, Any]],
    ) -> None:
        self.config = config
        self.weights = weights
        self.tokens = tokens
        self.extra = extra

    def write(self, folder: Path, weights: dict[str, NDArray[np.generic]] | None = None) -> None:
        """Write the whole folder anew; `weights` as they are to be stored, or as bfloat16."""
        shutil.rmtree(folder, ignore_errors=True)
        self.write_config(folder)
        if weights is None:
            weights = {name: to_bf16(values) for name, values in self.weights.items()}
        save_checkpoint(weights, folder / 'model.safetensors')

    def write_config(self, folder: Path) -> None:
        """Write configuration and tokenizer."""
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / 'config.json', self.config)
        for name, values in self.extra.items():
            _write_json(folder / name, values)
        _write_json(folder / 'tokenizer.json', tokenizer_json(self.tokens))


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + '\n')


def tokenizer_config(tokens: tuple[str, ...], bos: str, eos: str, pad: str) -> dict[str, Any]:
    """Return tokenizer_config.json; `bos` may be empty."""
    return {
        'tokenizer_class': 'PreTrainedTokenizerFast',
        'bos_token': bos or None,
        'eos_token': eos,
        'pad_token': pad,
        'model_max_length': 4096,
        'clean_up_tokenization_spaces': False,
        'additional_special_tokens': list(tokens),
    }
