"""Qwen3-VL's positions as the published model counts them."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLModel


def rope_positions(made: Mapping[str, Any]) -> NDArray[np.int64]:
    """Count positions of one prompt as the model does.

    Args:
        made: What the published processor gave: ids, kinds of tokens, grids.

    Returns:
        (3, tokens).
    """
    vision = SimpleNamespace(spatial_merge_size=2)
    model: Any = SimpleNamespace(config=SimpleNamespace(vision_config=vision))
    model.get_vision_position_ids = lambda *args, **kwargs: Qwen3VLModel.get_vision_position_ids(
        model, *args, **kwargs
    )
    positions, _ = Qwen3VLModel.get_rope_index(
        model,
        made['input_ids'],
        made['mm_token_type_ids'],
        made.get('image_grid_thw'),
        made.get('video_grid_thw'),
    )
    rows: NDArray[np.int64] = positions[:, 0].numpy()
    return rows
