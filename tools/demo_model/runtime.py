"""Run the exported demo model with ONNX Runtime: just enough for scoring and checks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnxruntime as ort

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


class Past(NamedTuple):
    """Keys and values by input name, and how many tokens they stand for."""

    cache: dict[str, NDArray[np.float32]]
    length: int

    def rows(self, count: int) -> Past:
        """Return the one row repeated."""
        return Past({k: np.repeat(v, count, 0) for k, v in self.cache.items()}, self.length)


class OnnxModel:
    """The three graphs of a model folder."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        config = json.loads((folder / 'config.json').read_text())
        language = config['llm_config']
        self._layers = int(language['num_hidden_layers'])
        self._kv_shape = (int(language['num_key_value_heads']), 0, int(language['head_dim']))
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        tokens = json.loads((folder / 'tokenizer.json').read_text())['added_tokens']
        self._image_id = next(t['id'] for t in tokens if t['content'] == '<IMG_CONTEXT>')

        def session(name: str) -> Any:
            path = str(folder / 'onnx' / f'{name}.onnx')
            return ort.InferenceSession(path, options, providers=['CPUExecutionProvider'])

        self._vision = session('vision_encoder')
        self._embed = session('embed_tokens')
        self._decoder = session('decoder_model_merged')

    def see(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return visual tokens, (frames, tokens, width), of normalised pixels."""
        features: NDArray[np.float32] = self._vision.run(None, {'pixel_values': pixels})[0]
        return features

    def read_prefix(self, ids: Sequence[int], features: NDArray[np.float32]) -> Past:
        """Read the prompt up to the question, visual tokens at their places."""
        row = np.array([ids], np.int64)
        embeds = self._embed.run(None, {'input_ids': row})[0]
        embeds[row == self._image_id] = features.reshape(-1, embeds.shape[-1])
        kv, past, head = self._kv_shape
        empty = np.zeros((1, kv, past, head), np.float32)
        names = [f'past_key_values.{i}.{k}' for i in range(self._layers) for k in ('key', 'value')]
        return self._run(embeds, Past(dict.fromkeys(names, empty), 0), keep=1)[1]

    def read_on(
        self, past: Past, ids: NDArray[np.int64], keep: int
    ) -> tuple[NDArray[np.float32], Past]:
        """Read more tokens, (rows, tokens), after a past of as many rows."""
        return self._run(self._embed.run(None, {'input_ids': ids})[0], past, keep)

    def _run(
        self, embeds: NDArray[np.float32], past: Past, keep: int
    ) -> tuple[NDArray[np.float32], Past]:
        rows, count = embeds.shape[:2]
        total = past.length + count
        places = np.arange(past.length, total, dtype=np.int64)[None].repeat(rows, 0)
        logits, *present = self._decoder.run(
            None,
            {
                'inputs_embeds': embeds,
                'attention_mask': np.ones((rows, total), np.int64),
                'position_ids': places,
                'num_logits_to_keep': np.array(keep, np.int64),
                **past.cache,
            },
        )
        return logits, Past(dict(zip(past.cache, present, strict=True)), total)

    def answer(self, past: Past, ids: Sequence[int], end_id: int, limit: int = 48) -> list[int]:
        """Return the greedy answer, without the end token."""
        said: list[int] = []
        step = np.array([ids], np.int64)
        while len(said) < limit:
            logits, past = self.read_on(past, step, keep=1)
            token = int(logits[0, -1].argmax())
            if token == end_id:
                break
            said.append(token)
            step = np.array([[token]], np.int64)
        return said
