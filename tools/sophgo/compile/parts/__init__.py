"""The nets of the 2024 and early 2025 files as ONNX parts, one file a net.

The vendor's samples export them from PyTorch; here the same nets are written operator by operator
from a tiny checkpoint. Which nets there are, their inputs and their order: the contracts of
InternVL2, Qwen2-VL, Llama 3.2 Vision and InternVL3's five-input history form.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx

from tools.sophgo.compile.checkpoints import Checkpoint
from tools.sophgo.compile.parts.cross import CrossAttention
from tools.sophgo.compile.parts.language import Language, Shapes
from tools.sophgo.compile.parts.mllama_vision import MllamaVision
from tools.sophgo.compile.parts.vision import intern_vit, qwen_vit

__all__ = ['Parts', 'Shapes']


class Parts:
    """Writes every net of one model.

    Args:
        checkpoint: The weights.
        family: 'internvl2', 'internvl3', 'qwen2vl' or 'mllama'.
        shapes: The sizes.

    Attributes:
        cross: The layers that are cross-attention.
    """

    def __init__(self, checkpoint: Checkpoint, family: str, shapes: Shapes) -> None:
        config = checkpoint.config
        text = config.get('llm_config') or config.get('text_config') or config
        self._family, self._shapes = family, shapes
        self._weights, self._vision = checkpoint.weights, config['vision_config']
        self._language = Language(
            checkpoint.weights,
            text,
            'model.' if family == 'qwen2vl' else 'language_model.model.',
            shapes,
            has_logits=family in ('qwen2vl', 'mllama'),
        )
        self._layers: int = text['num_hidden_layers']
        self.cross: tuple[int, ...] = tuple(text.get('cross_attention_layers', ()))

    def write(self, folder: Path) -> list[str]:
        """Write all nets; return their names."""
        folder.mkdir(parents=True, exist_ok=True)
        names = []
        for name, model in self._nets():
            onnx.save(model, folder / f'{name}.onnx')
            names.append(name)
        return names

    def _nets(self) -> Iterator[tuple[str, onnx.ModelProto]]:
        language, shapes = self._language, self._shapes
        yield language.embedding('embedding', shapes.prompt)
        yield language.embedding('embedding_cache', 1)
        for layer in range(self._layers):
            if layer in self.cross:
                cross = CrossAttention(language, self._vision)
                yield cross.block(layer)
                yield cross.cache(layer)
            else:
                yield language.block(f'block_{layer}', layer, shapes.prompt, shapes.history)
                yield language.block(f'block_cache_{layer}', layer, 1, shapes.context)
        yield language.lm_head()
        if language.has_logits:
            yield language.greedy_head()
            yield language.penalty_sample_head()
        yield self._vision_net()

    def _vision_net(self) -> tuple[str, onnx.ModelProto]:
        weights, sizes, width = self._weights, self._vision, self._language.width
        if self._family == 'qwen2vl':
            return qwen_vit(weights, sizes, width, self._shapes.patches)
        if self._family == 'mllama':
            return MllamaVision(weights, sizes, width).net()
        if self._family == 'internvl2':
            return intern_vit(weights, sizes, width, 'intern_vit', batched=True)
        return intern_vit(weights, sizes, width, 'vit', batched=False)
