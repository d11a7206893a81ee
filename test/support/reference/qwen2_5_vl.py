"""Qwen2.5-VL's positions as the published model counts them, and a tokenizer for its template."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

_TOKENS = ('<|vision_start|>', '<|vision_end|>', '<|image_pad|>', '<|video_pad|>')


def template_tokenizer() -> Tokenizer:
    """Make the tokenizer of the families' tests, with the template's tokens alone."""
    path = Path(__file__).parents[2] / 'text' / 'made_tokenizers.py'
    spec = importlib.util.spec_from_file_location('made_tokenizers', path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tokenizer: Tokenizer = module.qwen_like()
    tokenizer.add_special_tokens([*_TOKENS])
    return tokenizer


def rope_positions(
    made: Mapping[str, Any], tokens_per_second: int
) -> tuple[NDArray[np.int64], int]:
    """Count positions of one prompt as the model does.

    Args:
        made: What the published processor gave: ids, kinds of tokens, grids, seconds.
        tokens_per_second: Of the model.

    Returns:
        (3, tokens), and the position of the next token.
    """
    vision = SimpleNamespace(spatial_merge_size=2, tokens_per_second=tokens_per_second)
    model: Any = SimpleNamespace(config=SimpleNamespace(vision_config=vision))
    model.get_vision_position_ids = lambda *args, **kwargs: (
        Qwen2_5_VLModel.get_vision_position_ids(model, *args, **kwargs)
    )
    seconds = made.get('second_per_grid_ts')
    positions, delta = Qwen2_5_VLModel.get_rope_index(
        model,
        made['input_ids'],
        made['mm_token_type_ids'],
        made.get('image_grid_thw'),
        made.get('video_grid_thw'),
        None if seconds is None else torch.as_tensor(seconds, dtype=torch.float64),
    )
    rows: NDArray[np.int64] = positions[:, 0].numpy()
    return rows, int(delta[0, 0]) + rows.shape[1]
