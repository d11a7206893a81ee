"""Qwen2-VL and 2.5 in float32: transformers' own processor and model, with a folder's files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor

_PREFIXES = (
    ('visual.', 'model.visual.'),
    ('language_model.model.', 'model.language_model.'),
    ('language_model.lm_head.', 'lm_head.'),
)
_IMAGE, _VIDEO = '<|image_pad|>', '<|video_pad|>'
_SECONDS = 'second_per_grid_ts'


class _WithoutVideos:
    """Part of a published processor without its part for videos, which needs torchvision."""

    def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
        """Let the part that is not there be None."""
        if argument is None:
            return None
        checked: Any = super()
        return checked.check_argument_for_proper_class(name, argument)


class _Processor(_WithoutVideos, Qwen2VLProcessor):
    """Qwen2-VL's."""


class _Processor25(_WithoutVideos, Qwen2_5_VLProcessor):
    """Qwen2.5-VL's."""


_CLASSES: Any = {
    'qwen2_vl': (Qwen2VLConfig, Qwen2VLForConditionalGeneration, _Processor),
    'qwen2_5_vl': (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, _Processor25),
}


class Qwen2VlReference:
    """One model of Qwen2-VL or Qwen2.5-VL, as config.json says.

    Args:
        folder: With config.json and tokenizer, as published.
        weights: The tower's by the published names, the language model's below
            `language_model.`; any float type.
        most_pixels: Of an image.
    """

    def __init__(
        self, folder: Path, weights: dict[str, NDArray[Any]], most_pixels: int = 12845056
    ) -> None:
        declared = json.loads((folder / 'config.json').read_text())
        config_class, model_class, processor_class = _CLASSES[declared['model_type']]
        config = config_class(**declared)
        config._attn_implementation = 'eager'
        self._model = model_class(config)
        self._model.eval()
        self._model.load_state_dict(
            {_renamed(name): torch.from_numpy(np.array(value, np.float32))
             for name, value in weights.items()},
            strict=True,
        )  # fmt: skip
        files = json.loads((folder / 'preprocessor_config.json').read_text())
        images = Qwen2VLImageProcessorPil(**{**files, 'max_pixels': most_pixels})
        self._tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # as above
            tokenizer_file=str(folder / 'tokenizer.json')
        )
        self._processor: Any = processor_class(images, self._tokenizer, None)
        self._merge = int(files['merge_size'])

    def images(
        self, text: str, pictures: Sequence[NDArray[np.uint8]]
    ) -> tuple[NDArray[np.int64], dict[str, torch.Tensor]]:
        """Prepare pictures as the published processor does.

        Args:
            text: With one `<|image_pad|>` for each picture.
            pictures: uint8, (H, W, 3), RGB.

        Returns:
            Ids, and `pixel_values` and `image_grid_thw`.
        """
        made = self._processor(
            text=[text], images=[Image.fromarray(p) for p in pictures], return_tensors='pt'
        )
        shown = {key: made[key] for key in ('pixel_values', 'image_grid_thw')}
        return made['input_ids'][0].numpy(), shown

    def clip(
        self, text: str, pixels: NDArray[np.float32], grid: tuple[int, int, int]
    ) -> tuple[NDArray[np.int64], dict[str, torch.Tensor]]:
        """Take a clip that is prepared already; one `<|video_pad|>` of the text is its place.

        Each of its tokens has a placeholder, as in the published processor.
        """
        text = text.replace(_VIDEO, _VIDEO * (len(pixels) // self._merge**2))
        ids = self._tokenizer(text, add_special_tokens=False)['input_ids']
        shown = {
            'pixel_values_videos': torch.from_numpy(pixels),
            'video_grid_thw': torch.tensor([grid]),
        }
        return np.array(ids, np.int64), shown

    def positions(
        self, ids: NDArray[np.int64], shown: dict[str, torch.Tensor]
    ) -> NDArray[np.int64]:
        """Count positions as the model does: (3, tokens)."""
        found, _ = self._model.model.get_rope_index(
            torch.from_numpy(ids)[None],
            self._kinds(ids),
            shown.get('image_grid_thw'),
            shown.get('video_grid_thw'),
            **{key: value for key, value in shown.items() if key == _SECONDS},
        )
        rows: NDArray[np.int64] = found[:, 0].numpy()
        return rows

    def features(self, shown: dict[str, torch.Tensor]) -> NDArray[np.float32]:
        """Encode all that is shown: (tokens, hidden)."""
        with torch.inference_mode():
            if 'pixel_values' in shown:
                found = self._model.model.get_image_features(*[*shown.values()][:2])
            else:
                found = self._model.model.get_video_features(*[*shown.values()][:2])
        rows = getattr(found, 'pooler_output', found)
        array: NDArray[np.float32] = torch.cat(list(rows)).numpy()
        return array

    def logits(
        self, ids: NDArray[np.int64], shown: dict[str, torch.Tensor]
    ) -> NDArray[np.float32]:
        """Score every next token of a whole sequence: (tokens, vocabulary), without a KV cache."""
        with torch.inference_mode():
            found = self._model(
                input_ids=torch.from_numpy(ids)[None],
                mm_token_type_ids=self._kinds(ids),
                use_cache=False,
                **shown,
            )
        array: NDArray[np.float32] = found.logits[0].numpy()
        return array

    def _kinds(self, ids: NDArray[np.int64]) -> torch.Tensor:
        """Say which tokens are text, image, video: 0, 1, 2."""
        pads = self._tokenizer.convert_tokens_to_ids([_IMAGE, _VIDEO])
        kinds = (ids == pads[0]) * 1 + (ids == pads[1]) * 2
        return torch.from_numpy(kinds)[None]


def _renamed(name: str) -> str:
    for old, new in _PREFIXES:
        if name.startswith(old):
            return new + name.removeprefix(old)
    raise KeyError(name)
