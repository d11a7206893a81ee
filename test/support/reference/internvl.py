"""InternVL in float32: transformers' own classes with a checkpoint in OpenGVLab's names.

transformers carries InternVL under other weight names than OpenGVLab's repositories; the table
below says the same as transformers' own conversion script.

Source: huggingface/transformers, models/internvl/convert_internvl_weights_to_hf.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import InternVLConfig, InternVLForConditionalGeneration

_NAMES = (
    (r'^vision_model\.embeddings\.class_embedding', 'vision.embeddings.cls_token'),
    (r'^vision_model\.embeddings\.position_embedding', 'vision.embeddings.position_embeddings'),
    (
        r'^vision_model\.embeddings\.patch_embedding',
        'vision.embeddings.patch_embeddings.projection',
    ),
    (r'^vision_model\.encoder\.layers\.(\d+)\.ls([12])', r'vision.encoder.layer.\1.lambda_\2'),
    (r'^vision_model\.encoder\.layers\.(\d+)\.norm1', r'vision.encoder.layer.\1.layernorm_before'),
    (r'^vision_model\.encoder\.layers\.(\d+)\.norm2', r'vision.encoder.layer.\1.layernorm_after'),
    (
        r'^vision_model\.encoder\.layers\.(\d+)\.attn\.proj',
        r'vision.encoder.layer.\1.attention.projection_layer',
    ),
    (r'^vision_model\.encoder\.layers\.(\d+)', r'vision.encoder.layer.\1'),
    (r'^vision\.', 'model.vision_tower.'),
    (r'^mlp1\.0', 'model.multi_modal_projector.layer_norm'),
    (r'^mlp1\.1', 'model.multi_modal_projector.linear_1'),
    (r'^mlp1\.3', 'model.multi_modal_projector.linear_2'),
    (r'^language_model\.model', 'model.language_model'),
    (r'^language_model\.lm_head', 'lm_head'),
)
_JOINT = re.compile(r'^vision_model\.encoder\.layers\.(\d+)\.attn\.qkv\.(weight|bias)$')


class InternVlReference:
    """One InternVL model.

    Args:
        config: config.json, in OpenGVLab's form.
        weights: By OpenGVLab's names; any float type.
        placeholder: Id of `<IMG_CONTEXT>`, or of any token that stands where features go.
    """

    def __init__(
        self, config: Mapping[str, Any], weights: Mapping[str, NDArray[Any]], placeholder: int
    ) -> None:
        self._model = InternVLForConditionalGeneration(_config(config, placeholder))
        self._model.eval()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        renamed = _renamed(weights)
        if 'lm_head.weight' not in renamed:
            renamed['lm_head.weight'] = renamed['model.language_model.embed_tokens.weight']
        self._model.load_state_dict(renamed, strict=True)

    def features(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Encode (tiles, 3, px, px) into (tiles * rows, hidden)."""
        with torch.inference_mode():
            found = self._model.model.get_image_features(torch.from_numpy(pixels))
        rows = getattr(found, 'pooler_output', found)
        array: NDArray[np.float32] = torch.cat(list(rows)).numpy()
        return array.reshape(-1, array.shape[-1])

    def logits(
        self, tokens: NDArray[np.int64], pixels: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Score every next token of a whole sequence: (tokens, vocabulary), without a KV cache."""
        with torch.inference_mode():
            found = self._model(
                input_ids=torch.from_numpy(tokens)[None],
                pixel_values=None if pixels is None else torch.from_numpy(pixels),
                use_cache=False,
            )
        array: NDArray[np.float32] = found.logits[0].numpy()
        return array


def _config(config: Mapping[str, Any], placeholder: int) -> InternVLConfig:
    vision, language = config['vision_config'], config['llm_config']
    size, patch = vision['image_size'], vision['patch_size']
    rows = int((size // patch) ** 2 * config['downsample_ratio'] ** 2)
    is_tied = bool(language['tie_word_embeddings'])
    made = InternVLConfig(
        vision_config={
            'attention_bias': vision['qkv_bias'],
            'hidden_act': vision['hidden_act'],
            'hidden_size': vision['hidden_size'],
            'image_size': size,
            'intermediate_size': vision['intermediate_size'],
            'layer_norm_eps': vision['layer_norm_eps'],
            'norm_type': vision['norm_type'],
            'num_attention_heads': vision['num_attention_heads'],
            'num_hidden_layers': vision['num_hidden_layers'],
            'patch_size': patch,
            'use_mean_pooling': True,
            'use_qk_norm': vision['qk_normalization'],
        },
        text_config={**language, 'torch_dtype': 'float32'},
        image_token_id=placeholder,
        image_seq_length=rows,
        downsample_ratio=config['downsample_ratio'],
        vision_feature_layer=config['select_layer'],
        tie_word_embeddings=is_tied,
    )
    made._attn_implementation = 'eager'
    return made


def _renamed(weights: Mapping[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
    renamed: dict[str, torch.Tensor] = {}
    for name, array in weights.items():
        tensor = torch.from_numpy(np.array(array, np.float32))
        joint = _JOINT.match(name)
        if joint:
            layer = f'model.vision_tower.encoder.layer.{joint[1]}.attention'
            for part, third in zip('qkv', tensor.chunk(3), strict=True):
                renamed[f'{layer}.{part}_proj.{joint[2]}'] = third
        else:
            for pattern, replacement in _NAMES:
                name = re.sub(pattern, replacement, name)  # noqa: PLW2901
            renamed[name] = tensor
    return renamed
