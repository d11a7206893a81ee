"""SmolVLM in float32: transformers' own class with the tiny model's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Idefics3Config, Idefics3ForConditionalGeneration

_NAMES = (('language_model.model.', 'model.text_model.'), ('language_model.lm_head.', 'lm_head.'))


class SmolVlmReference:
    """One SmolVLM model.

    Args:
        config: config.json.
        weights: The tower's by transformers' names, the decoder's as `tiny_smolvlm` has them.
    """

    def __init__(
        self, config: Mapping[str, Any], weights: Mapping[str, NDArray[np.float32]]
    ) -> None:
        vision = {**config['vision_config'], 'model_type': 'idefics3_vision'}
        made = Idefics3Config(
            vision_config=vision,
            text_config={**config['text_config'], 'pad_token_id': None},
            scale_factor=config['scale_factor'],
            image_token_id=config['image_token_id'],
        )
        made._attn_implementation = 'eager'
        self._model = Idefics3ForConditionalGeneration(made)
        self._model.eval()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        tensors = {_renamed(name): torch.from_numpy(array) for name, array in weights.items()}
        self._model.load_state_dict(tensors, strict=True)

    def logits(
        self, tokens: NDArray[np.int64], pixels: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Score every next token of a whole sequence: (tokens, vocabulary), without a KV cache.

        Args:
            tokens: (tokens,), a placeholder for each row of features.
            pixels: (tiles, 3, px, px) of all images, in their order; None = no image.
        """
        with torch.inference_mode():
            found = self._model(
                input_ids=torch.from_numpy(tokens)[None],
                pixel_values=None if pixels is None else torch.from_numpy(pixels)[None],
                use_cache=False,
            )
        array: NDArray[np.float32] = found.logits[0].numpy()
        return array


def _renamed(name: str) -> str:
    for ours, theirs in _NAMES:
        name = name.replace(ours, theirs)
    return name
