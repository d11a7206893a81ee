"""A vision-language model run the plain way: what an example program beside the weights does.

PIL resizes, ONNX Runtime is called with whatever the last call gave, every question starts with
an empty cache. No thread, no queue, no session, no cancel: what the pipeline is held against.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from edge_vlm_ros.core import RgbImage

Pixels = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PlainAnswer:
    """What one question gave and cost.

    Attributes:
        text: The answer.
        first_token_s: From the question to the first token, seconds.
        total_s: From the question to the last token, seconds.
        tokens: Of the answer, the stop token not counted.
    """

    text: str
    first_token_s: float
    total_s: float
    tokens: int

    @property
    def tokens_per_second(self) -> float:
        """Decode speed after the first token."""
        return (self.tokens - 1) / (self.total_s - self.first_token_s)


class PlainLoop:
    """The demo model, or another one in the split ONNX layout with one tile a frame.

    Args:
        folder: With config.json, preprocessor_config.json, tokenizer.json and onnx/.
    """

    def __init__(self, folder: Path) -> None:
        onnx = folder / 'onnx'
        self._vision = _session(onnx / 'vision_encoder.onnx')
        self._embed = _session(onnx / 'embed_tokens.onnx')
        self._decoder = _session(onnx / 'decoder_model_merged.onnx')
        self._tokenizer = Tokenizer.from_file(str(folder / 'tokenizer.json'))
        shown = json.loads((folder / 'preprocessor_config.json').read_text(encoding='utf-8'))
        self._mean = np.array(shown['image_mean'], np.float32)
        self._std = np.array(shown['image_std'], np.float32)
        side_px: Any = self._vision.get_inputs()[0].shape[-1]
        self._side_px = int(side_px)
        self._context = self._tokenizer.token_to_id('<IMG_CONTEXT>')
        self._stop = self._tokenizer.token_to_id('<|im_end|>')

    def ask(self, images: Sequence[RgbImage], question: str, max_tokens: int = 100) -> PlainAnswer:
        """Answer one question, greedily."""
        started_s = time.perf_counter()
        features = self._encode(images)
        ids = self._tokenizer.encode(
            self._prompt(len(images), features.shape[1], question), add_special_tokens=False
        ).ids
        embedded = self._embed.run(None, {'input_ids': np.array([ids], np.int64)})[0]
        embedded[0, np.array(ids) == self._context] = features.reshape(-1, features.shape[-1])
        logits, past = self._decode(embedded, self._empty_past(), 0)
        token = int(logits[0, -1].argmax())
        first_s = time.perf_counter()
        length = len(ids)
        tokens: list[int] = []
        while token != self._stop and len(tokens) < max_tokens:
            tokens.append(token)
            embedded = self._embed.run(None, {'input_ids': np.array([[token]], np.int64)})[0]
            logits, past = self._decode(embedded, past, length)
            token = int(logits[0, -1].argmax())
            length += 1
        stopped_s = time.perf_counter()
        text = self._tokenizer.decode(tokens)
        return PlainAnswer(text, first_s - started_s, stopped_s - started_s, len(tokens))

    def _encode(self, images: Sequence[RgbImage]) -> NDArray[np.float32]:
        pixels = np.stack([self._pixels(image) for image in images])
        features: NDArray[np.float32] = self._vision.run(None, {'pixel_values': pixels})[0]
        return features

    def _pixels(self, image: RgbImage) -> NDArray[np.float32]:
        side = (self._side_px, self._side_px)
        small = Image.fromarray(image).resize(side, Image.Resampling.BICUBIC)
        array = (np.asarray(small).astype(np.float32) / 255.0 - self._mean) / self._std
        channels_first: Pixels = array.transpose(2, 0, 1)
        return channels_first

    def _prompt(self, images: int, tokens: int, question: str) -> str:
        seen = f'<img>{"<IMG_CONTEXT>" * tokens}</img>\n'
        names = [''] if images == 1 else [f'Frame{i + 1}: ' for i in range(images)]
        frames = ''.join(name + seen for name in names)
        return f'<|im_start|>user\n{frames}{question}<|im_end|>\n<|im_start|>assistant\n'

    def _empty_past(self) -> dict[str, NDArray[np.float32]]:
        past: list[Any] = [
            i for i in self._decoder.get_inputs() if i.name.startswith('past_key_values.')
        ]
        return {i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32) for i in past}

    def _decode(
        self, embedded: NDArray[np.float32], past: dict[str, NDArray[np.float32]], length: int
    ) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
        count = embedded.shape[1]
        feed: dict[str, Any] = {
            'inputs_embeds': embedded,
            'attention_mask': np.ones((1, length + count), np.int64),
            'position_ids': np.arange(length, length + count, dtype=np.int64)[None],
            'num_logits_to_keep': np.array(1, np.int64),
            **past,
        }
        known = {i.name for i in self._decoder.get_inputs()}
        outputs = self._decoder.run(None, {k: v for k, v in feed.items() if k in known})
        names = [
            o.name.replace('present.', 'past_key_values.') for o in self._decoder.get_outputs()
        ]
        by_name: dict[str, Any] = dict(zip(names, outputs, strict=True))
        logits: Pixels = by_name.pop('logits')
        return logits, by_name


def _session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
