"""The vision net of Llama 3.2 Vision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from tools.sophgo.compile.parts.writer import FLOAT, INT32, Net, Writer, finished
from tools.sophgo.compile.weights import Array


class MllamaVision:
    """Llama 3.2's vision tower and projector.

    Args:
        weights: By the publisher's names.
        sizes: What config.json says of the tower.
        width: Of the language model.
    """

    def __init__(self, weights: Mapping[str, Array], sizes: Mapping[str, Any], width: int) -> None:
        self._weights, self._sizes, self._out = weights, sizes, width
        self._width, self._tiles = sizes['hidden_size'], sizes['max_num_tiles']
        self._rows = (sizes['image_size'] // sizes['patch_size']) ** 2 + 1
        self._padded = self._rows + -self._rows % 8

    def net(self) -> tuple[str, onnx.ModelProto]:
        """Return the net."""
        g, net, sizes = Writer(self._weights), Net('vit'), self._sizes
        tiles, rows, width, px = self._tiles, self._rows, self._width, sizes['image_size']
        patch = sizes['patch_size']
        pixels = net.take('pixel_values', FLOAT, tiles, 3, px, px)
        ratio = net.take('aspect_ratio_ids', INT32, 1, 1)
        real = net.take('aspect_ratio_mask', INT32, 1, tiles)
        at = 'vision_model.'
        x = g.op(
            'Conv',
            pixels,
            g.weight(f'{at}patch_embedding.weight'),
            kernel_shape=[patch, patch],
            strides=[patch, patch],
        )
        x = g.op('Transpose', g.reshape(x, tiles, width, rows - 1), perm=[0, 2, 1])
        x = g.op('Add', x, self._table(g, f'{at}pre_tile_positional_embedding', ratio))
        first = np.broadcast_to(self._weights[f'{at}class_embedding'], (tiles, 1, width))
        x = g.op('Concat', g.array('class_embedding', first), x, axis=1)
        x = g.op('Add', x, self._positions(g, f'{at}gated_positional_embedding', ratio))
        x = g.layer_norm(x, f'{at}layernorm_pre', sizes['norm_eps'])
        filling = np.zeros((tiles, self._padded - rows, width), np.float32)
        x = g.reshape(g.op('Concat', x, g.array('filling', filling), axis=1), 1, -1, width)
        x = self._transform(g, x, self._mask(g, real), ratio)
        x = g.op('Slice', x, g.constant([0]), g.constant([rows]), g.constant([1]))
        x = g.op('MatMul', x, g.weight('multi_modal_projector.weight', transposed=True))
        g.op('Add', x, g.weight('multi_modal_projector.bias'), name='cross_attention_states')
        net.give('cross_attention_states', FLOAT, tiles, rows, self._out)
        return 'vit', finished(g, net)

    def _table(self, g: Writer, name: str, ratio: str) -> str:
        table = np.tanh(self._weights[f'{name}.gate']) * self._weights[f'{name}.embedding.weight']
        rows = g.op('Gather', g.array(f'{name}.gated', table), ratio, axis=0)
        return g.reshape(rows, self._tiles, 1, self._width)

    def _positions(self, g: Writer, name: str, ratio: str) -> str:
        gate = np.tanh(self._weights[f'{name}.gate'])
        table = gate * self._weights[f'{name}.tile_embedding.weight']
        rows = g.op('Gather', g.array(f'{name}.tiles', table), ratio, axis=0)
        rows = g.reshape(rows, self._tiles, self._rows, self._width)
        shared = (1 - gate) * self._weights[f'{name}.embedding']
        return g.op('Add', rows, g.array(f'{name}.shared', shared))

    def _mask(self, g: Writer, real: str) -> str:
        """Hide padded rows from padded rows, as the published model does."""
        is_row = (np.arange(self._padded) < self._rows).astype(np.float32)
        tiles = g.reshape(g.op('Cast', real, to=FLOAT), self._tiles, 1)
        is_real = g.reshape(g.op('Mul', tiles, g.array('is_row', is_row[None])), 1, -1)
        padded = g.op('Sub', g.constant(1.0, np.float32), is_real)
        both = g.op('MatMul', g.op('Transpose', padded, perm=[1, 0]), padded)
        mask = g.op('Mul', both, g.constant(-10000.0, np.float32))
        return g.op('Unsqueeze', mask, g.constant([0, 1]))

    def _transform(self, g: Writer, x: str, mask: str, ratio: str) -> str:
        sizes, width = self._sizes, self._width
        apart = (self._tiles, self._padded, width)
        inner = []
        for i in range(sizes['num_hidden_layers']):
            if i in sizes['intermediate_layers_indices']:
                inner.append(g.reshape(x, *apart))
            x = self._layer(g, f'vision_model.transformer.layers.{i}.', x, mask)
        x = g.reshape(g.layer_norm(x, 'vision_model.layernorm_post', sizes['norm_eps']), *apart)
        x = g.op('Add', x, self._table(g, 'vision_model.post_tile_positional_embedding', ratio))
        x = g.reshape(x, 1, -1, width)
        for i in range(sizes['num_global_layers']):
            x = self._layer(g, f'vision_model.global_transformer.layers.{i}.', x, mask)
        return g.op('Concat', g.reshape(x, *apart), *inner, axis=-1)

    def _layer(self, g: Writer, at: str, x: str, mask: str) -> str:
        sizes, width, heads = self._sizes, self._width, self._sizes['attention_heads']
        rows = self._tiles * self._padded
        y = g.layer_norm(x, f'{at}input_layernorm', sizes['norm_eps'])
        q, k, v = (
            g.reshape(g.linear(y, f'{at}self_attn.{n}_proj'), 1, rows, heads, width // heads)
            for n in 'qkv'
        )
        y = g.reshape(g.attend(q, k, v, mask, width // heads), 1, rows, width)
        x = self._joined(g, x, g.linear(y, f'{at}self_attn.o_proj'), f'{at}gate_attn')
        y = g.layer_norm(x, f'{at}post_attention_layernorm', sizes['norm_eps'])
        y = g.linear(g.gelu(g.linear(y, f'{at}mlp.fc1')), f'{at}mlp.fc2')
        return self._joined(g, x, y, f'{at}gate_ffn')

    def _joined(self, g: Writer, x: str, y: str, gate: str) -> str:
        if gate in self._weights:
            y = g.op('Mul', y, g.array(f'{gate}_tanh', np.tanh(self._weights[gate])))
        return g.op('Add', x, y)
