"""Decode loops written as the vendor's samples are: what our engine is held against.

Their faults that change answers (masks too weak, caches never cleared) are left out: only the cost
is compared. The prompts' part is left out too: an answer begins on an empty cache.

Source of the shape of the loops: sophon-demo, `sample/InternVL2`, `sample/InternVL3`,
`sample/Llama3_2_Vision` and `sample/Qwen2-VL` (2024 to 2025), in our own words.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sophon import sail

_BLOCKED = {sail.Dtype.BM_BFLOAT16: 0xC61C, sail.Dtype.BM_FLOAT16: 0xF0E2}
_SELF_INPUTS = 5


class _Loop:
    """What both samples have in common.

    Attributes:
        held: Tokens in the cache.
    """

    def __init__(self, path: Path) -> None:
        self._handle = sail.Handle(0)
        self._engine = sail.EngineLLM(str(path), [0])
        names = self._engine.get_graph_names()
        self._layers = sum(name.startswith('block_cache_') for name in names)
        self._has_greedy = 'greedy_head' in names
        self._is_self = [
            self._engine.get_input_num(f'block_cache_{i}') == _SELF_INPUTS
            for i in range(self._layers)
        ]
        self._first = f'block_cache_{self._is_self.index(True)}'
        _, self._context, self._kv_heads, self._head_dim = self._engine.get_input_shape(
            self._first, 3
        )
        self._half = self._engine.get_input_dtype(self._first, 2)
        self.held = 0

    def close(self) -> None:
        """Unload the model."""
        del self._engine

    def _make(self, net: str, index: int, *, is_input: bool = True) -> Any:
        engine = self._engine
        if is_input:
            shape, dtype = engine.get_input_shape(net, index), engine.get_input_dtype(net, index)
        else:
            shape, dtype = engine.get_output_shape(net, index), engine.get_output_dtype(net, index)
        return sail.Tensor(self._handle, shape, dtype, False, True)  # noqa: FBT003


class InPlaceLoop(_Loop):
    """InternVL2, InternVL3 and Llama 3.2: K and V stay in the nets, views are made as they go.

    The mask is written entry by entry and sent whole for every token; with Llama 3.2 the one of
    the cross-attention layers as well. The token stays on the chip.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        engine = self._engine
        self._hidden = self._make(self._first, 0)
        self._position = self._make(self._first, 1)
        self._mask = self._make(self._first, 2)
        self._token = self._make('embedding_cache', 0)
        self._scores = self._make('lm_head', 0, is_input=False)
        self._caches, cross = [], []
        for i in range(self._layers):
            own = engine.get_input_tensors(f'block_cache_{i}')
            first = 3 if self._is_self[i] else 2
            if not self._is_self[i]:
                cross.append(own[1])
            pair = own[first], own[first + 1]
            for tensor in pair:
                tensor.update_data(np.zeros(tensor.shape(), np.uint16))
            self._caches.append(pair)
        self._cross_mask = cross[0] if cross else None

    def next_token(self, token: int) -> int:
        """Run one decode step and the head."""
        engine, n = self._engine, self.held
        if n == 0:
            self._token.update_data(np.array([[token]], np.int32))
        mask = np.zeros(self._context + 1, np.uint16)
        for i in range(n, self._context):
            mask[i] = _BLOCKED[self._half]
        engine.process('embedding_cache', {0: self._token}, {0: self._hidden})
        self._position.update_data(np.full(self._position.shape(), n, np.int32))
        self._mask.update_data(mask.reshape(self._mask.shape()))
        if self._cross_mask is not None:
            opened = np.zeros(self._cross_mask.shape(), np.uint16)
            opened[..., opened.shape[-1] // 2 :] = _BLOCKED[self._half]
            self._cross_mask.update_data(opened)
        for i, (keys, values) in enumerate(self._caches):
            if not self._is_self[i]:
                inputs = {0: self._hidden, 1: self._cross_mask, 2: keys, 3: values}
                engine.process(f'block_cache_{i}', inputs, {0: self._hidden})
                continue
            shape = [1, 1, self._kv_heads, self._head_dim]
            offset = n * self._kv_heads * self._head_dim
            inputs = {0: self._hidden, 1: self._position, 2: self._mask, 3: keys, 4: values}
            outputs = {
                0: self._hidden,
                1: sail.Tensor(keys, shape, offset),
                2: sail.Tensor(values, shape, offset),
            }
            engine.process(f'block_cache_{i}', inputs, outputs)
        if self._has_greedy:
            engine.process('lm_head', {0: self._hidden}, {0: self._scores})
            engine.process('greedy_head', {0: self._scores}, {0: self._token})
        else:
            engine.process('lm_head', {0: self._hidden}, {0: self._token})
        self.held += 1
        return int(self._token.asnumpy().reshape(-1)[0])


class CopyingLoop(_Loop):
    """Qwen2-VL: caches of its own, every layer's results copied to where they are wanted."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        engine = self._engine
        self._embed_in = engine.create_max_input_tensors('embedding_cache')
        self._embed_out = engine.create_max_output_tensors('embedding_cache')
        self._inputs = {i: self._make(self._first, i) for i in range(3)}
        self._outputs = {i: self._make(self._first, i, is_input=False) for i in range(3)}
        self._head_in = engine.create_max_input_tensors('lm_head')
        self._head_out = engine.create_max_output_tensors('lm_head')
        self._token = engine.create_max_output_tensors('greedy_head')
        self._caches = [
            (self._make(f'block_cache_{i}', 3), self._make(f'block_cache_{i}', 4))
            for i in range(self._layers)
        ]

    def next_token(self, token: int) -> int:
        """Run one decode step and the head."""
        engine, n = self._engine, self.held
        self._embed_in[0].update_data(np.array([[token]], np.int32))
        engine.process('embedding_cache', self._embed_in, self._embed_out)
        hidden = self._inputs[0]
        hidden.sync_d2d(self._embed_out[0], 0, 0, hidden.size())
        self._inputs[1].update_data(np.full(self._inputs[1].shape(), n, np.int32))
        mask = np.zeros(self._context + 1, np.float32)
        mask[n : self._context] = -10000.0
        bits = (mask.view(np.uint32) >> 16).astype(np.uint16)
        self._inputs[2].update_data(bits.reshape(self._inputs[2].shape()))
        row = self._kv_heads * self._head_dim
        for i, (keys, values) in enumerate(self._caches):
            inputs = {**self._inputs, 3: keys, 4: values}
            engine.process(f'block_cache_{i}', inputs, self._outputs)
            hidden.sync_d2d(self._outputs[0], 0, 0, hidden.size())
            keys.sync_d2d(self._outputs[1], 0, n * row, row)
            values.sync_d2d(self._outputs[2], 0, n * row, row)
        self._head_in[0].sync_d2d(hidden, 0, 0, hidden.size())
        engine.process('lm_head', self._head_in, self._head_out)
        engine.process('greedy_head', self._head_out, self._token)
        self.held += 1
        return int(self._token[0].asnumpy().reshape(-1)[0])
