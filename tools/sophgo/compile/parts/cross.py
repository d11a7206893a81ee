"""The nets of cross-attention layers, as Llama 3.2 Vision has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from tools.sophgo.compile.parts.language import Language
from tools.sophgo.compile.parts.writer import FLOAT, Net, Writer, finished


class CrossAttention:
    """The cross-attention layers of a decoder.

    Args:
        language: The decoder.
        vision: What config.json says of the vision tower.
    """

    def __init__(self, language: Language, vision: Mapping[str, Any]) -> None:
        self._language = language
        rows = (vision['image_size'] // vision['patch_size']) ** 2 + 1
        self._states = vision['max_num_tiles'], rows

    def block(self, layer: int) -> tuple[str, onnx.ModelProto]:
        """Return a layer of the prompt, which makes keys and values of the states."""
        name, rows = f'block_{layer}', self._language.shapes.prompt
        g, net = Writer(self._language.weights), Net(name)
        at = f'{self._language.at}layers.{layer}.'
        tiles, patches = self._states
        x = net.take('input_states', FLOAT, 1, rows, self._language.width)
        states = net.take('cross_attention_states', FLOAT, tiles, patches, self._language.width)
        row_mask = net.take('text_row_mask', FLOAT, 1, rows, 1)
        mask = net.take('attention_mask', FLOAT, 1, 1, rows, tiles * patches)
        heads = {}
        # Projected first and reshaped then: the other way round the compiler fails.
        for part in 'kv':
            y = g.linear(states, f'{at}cross_attn.{part}_proj')
            y = g.reshape(y, 1, tiles * patches, self._language.kv_heads, self._language.head)
            if part == 'k':
                y = g.rms_norm(
                    y, f'{at}cross_attn.k_norm.weight', self._language.text['rms_norm_eps']
                )
            y = self._language.repeated(g, y, tiles * patches)
            heads[part] = g.op('Transpose', y, name=f'past_{part}', perm=[0, 2, 1, 3])
        self._rest(g, (at, rows), x, (heads['k'], heads['v'], mask), row_mask)
        net.give('hidden_states', FLOAT, 1, rows, self._language.width)
        for part in 'kv':
            net.give(
                f'past_{part}',
                FLOAT,
                1,
                self._language.heads,
                tiles * patches,
                self._language.head,
            )
        return name, finished(g, net)

    def cache(self, layer: int) -> tuple[str, onnx.ModelProto]:
        """Return a layer of a decode step, which is given them."""
        name = f'block_cache_{layer}'
        g, net = Writer(self._language.weights), Net(name)
        tiles, patches = self._states
        x = net.take('input_states', FLOAT, 1, 1, self._language.width)
        mask = net.take('attention_mask', FLOAT, 1, 1, 1, tiles * patches)
        k, v = (
            net.take(
                f'history_{part}',
                FLOAT,
                1,
                self._language.heads,
                tiles * patches,
                self._language.head,
            )
            for part in 'kv'
        )
        self._rest(g, (f'{self._language.at}layers.{layer}.', 1), x, (k, v, mask), None)
        net.give('hidden_states', FLOAT, 1, 1, self._language.width)
        return name, finished(g, net)

    def _rest(
        self,
        g: Writer,
        where: tuple[str, int],
        x: str,
        seen: tuple[str, str, str],
        row_mask: str | None,
    ) -> None:
        """Add everything after the keys and values; the result is `hidden_states`."""
        at, rows = where
        keys, values, mask = seen
        eps = self._language.text['rms_norm_eps']
        y = g.rms_norm(x, f'{at}input_layernorm.weight', eps)
        q = g.linear(y, f'{at}cross_attn.q_proj')
        q = g.reshape(q, 1, rows, self._language.heads, self._language.head)
        q = g.rms_norm(q, f'{at}cross_attn.q_norm.weight', eps)
        keys, values = (g.op('Transpose', t, perm=[0, 2, 1, 3]) for t in (keys, values))
        y = g.reshape(
            g.attend(q, keys, values, mask, self._language.head), 1, rows, self._language.width
        )
        y = g.linear(y, f'{at}cross_attn.o_proj')
        x = g.op('Add', x, g.op('Mul', y, self._gate(g, f'{at}cross_attn_attn_gate')))
        y = self._language.mlp(g, at, x)
        if row_mask is not None:
            y = g.op('Mul', y, row_mask)
        y = g.op('Mul', y, self._gate(g, f'{at}cross_attn_mlp_gate'))
        g.op('Add', x, y, name='hidden_states')

    def _gate(self, g: Writer, name: str) -> str:
        return g.array(f'{name}_tanh', np.tanh(self._language.weights[name]))
