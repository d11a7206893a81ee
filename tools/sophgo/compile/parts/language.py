"""The nets of a decoder: embedding, self-attention layers and heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx

from tools.sophgo.compile.parts.writer import FLOAT, INT32, INT64, Net, Writer, finished, top
from tools.sophgo.compile.weights import Array

_CANDIDATES: Final = 50
_ALWAYS_KEPT: Final = 5


@dataclass(frozen=True)
class Shapes:
    """The sizes that a build chooses.

    Attributes:
        context: Rows of the KV cache, S.
        prompt: Rows of a prefill net, M.
        history: Rows of a prefill net's history, P; 0 = it has none.
        patches: Rows of Qwen2-VL's vision net.
    """

    context: int
    prompt: int
    history: int = 0
    patches: int = 64


class Language:
    """One decoder.

    Args:
        weights: By the publisher's names.
        text: What config.json says of the language part.
        at: The prefix of its weights' names.
        shapes: The sizes.
        has_logits: Whether the head gives logits, for nets that choose the token.

    Attributes:
        has_axes: Whether positions have three rows (M-RoPE).
    """

    def __init__(
        self,
        weights: Mapping[str, Array],
        text: Mapping[str, Any],
        at: str,
        shapes: Shapes,
        *,
        has_logits: bool,
    ) -> None:
        self.weights, self.text, self.at, self.shapes = weights, text, at, shapes
        self.has_logits = has_logits
        self.has_axes = 'mrope_section' in (text['rope_scaling'] or {})
        self.heads: int = text['num_attention_heads']
        self.kv_heads: int = text['num_key_value_heads']
        self.width: int = text['hidden_size']
        self.head = self.width // self.heads

    def embedding(self, name: str, rows: int) -> tuple[str, onnx.ModelProto]:
        """Return the lookup of so many tokens."""
        g, net = Writer(self.weights), Net(name)
        ids = net.take('input_ids', INT32, 1, rows)
        table = g.weight(f'{self.at}embed_tokens.weight')
        g.op('Gather', table, ids, name='input_embed', axis=0)
        net.give('input_embed', FLOAT, 1, rows, self.width)
        return name, finished(g, net)

    def block(self, name: str, layer: int, rows: int, past: int) -> tuple[str, onnx.ModelProto]:
        """Return a self-attention layer, with a past of so many rows."""
        g, net = Writer(self.weights), Net(name)
        at = f'{self.at}layers.{layer}.'
        kv = (self.kv_heads, self.head)
        x = net.take('input_states', FLOAT, 1, rows, self.width)
        positions = (3, 1, rows) if self.has_axes else (1, rows)
        place = net.take('position_ids', INT32, *positions)
        mask = net.take('attention_mask', FLOAT, 1, 1, rows, past + rows)
        cos, sin = self._rotation(g, place)
        y = g.rms_norm(x, f'{at}input_layernorm.weight', self.text['rms_norm_eps'])
        q, k, v = (
            g.reshape(g.linear(y, f'{at}self_attn.{n}_proj'), 1, rows, heads, self.head)
            for n, heads in zip('qkv', (self.heads, *kv[:1], *kv[:1]), strict=True)
        )
        q = g.rotate(q, cos, sin)
        k = g.op('Identity', g.rotate(k, cos, sin), name='past_k')
        v = g.op('Identity', v, name='past_v')
        if past:
            net.take('history_k', FLOAT, 1, past, *kv)
            net.take('history_v', FLOAT, 1, past, *kv)
            k = g.op('Concat', 'history_k', k, axis=1)
            v = g.op('Concat', 'history_v', v, axis=1)
        k, v = (self.repeated(g, value, past + rows) for value in (k, v))
        y = g.reshape(g.attend(q, k, v, mask, self.head), 1, rows, self.heads * self.head)
        x = g.op('Add', x, g.linear(y, f'{at}self_attn.o_proj'))
        g.op('Add', x, self.mlp(g, at, x), name='hidden_states')
        net.give('hidden_states', FLOAT, 1, rows, self.width)
        net.give('past_k', FLOAT, 1, rows, *kv)
        net.give('past_v', FLOAT, 1, rows, *kv)
        return name, finished(g, net)

    def _rotation(self, g: Writer, positions: str) -> tuple[str, str]:
        """Look up cosines and sines of positions, (1, rows, 1, head)."""
        half = self.head // 2
        inverse = self.text['rope_theta'] ** -(np.arange(half) / half)
        angles = np.arange(self.shapes.context)[:, None] * np.concatenate([inverse, inverse])
        results = []
        for name, function in (('cos', np.cos), ('sin', np.sin)):
            table = g.array(f'rotary_{name}', function(angles).astype(np.float32))
            rows = g.op('Gather', table, positions, axis=0)
            if self.has_axes:
                rows = self._joined_axes(g, rows)
            results.append(g.op('Unsqueeze', rows, g.constant([2])))
        return results[0], results[1]

    def _joined_axes(self, g: Writer, rows: str) -> str:
        """Take from time, height and width the sections that are theirs: (3, 1, rows, head)."""
        sections = self.text['rope_scaling']['mrope_section']
        owner = np.tile(np.repeat(np.arange(3), sections), 2)
        parts = [
            g.op(
                'Mul',
                g.op('Gather', rows, g.constant(axis), axis=0),
                g.array(f'mrope_axis_{axis}', (owner == axis).astype(np.float32)),
            )
            for axis in range(3)
        ]
        return g.op('Add', g.op('Add', parts[0], parts[1]), parts[2])

    def repeated(self, g: Writer, value: str, rows: int) -> str:
        """Repeat KV heads for the heads that share them: (1, rows, KV heads, head)."""
        repeat = self.heads // self.kv_heads
        value = g.op('Unsqueeze', value, g.constant([3]))
        value = g.op('Tile', value, g.constant([1, 1, 1, repeat, 1]))
        return g.reshape(value, 1, rows, self.heads, self.head)

    def mlp(self, g: Writer, at: str, x: str) -> str:
        """Add the SwiGLU of a layer, and its norm."""
        y = g.rms_norm(x, f'{at}post_attention_layernorm.weight', self.text['rms_norm_eps'])
        gate = g.silu(g.linear(y, f'{at}mlp.gate_proj'))
        return g.linear(g.op('Mul', gate, g.linear(y, f'{at}mlp.up_proj')), f'{at}mlp.down_proj')

    def lm_head(self) -> tuple[str, onnx.ModelProto]:
        """Return the head, which gives logits or the token."""
        g, net = Writer(self.weights), Net('lm_head')
        x = net.take('hidden_states', FLOAT, 1, self.width)
        x = g.rms_norm(x, f'{self.at}norm.weight', self.text['rms_norm_eps'])
        name = f'{self.at.removesuffix("model.")}lm_head.weight'
        vocabulary = self.weights[name].shape[0]
        table = g.weight(name, transposed=True)
        if self.has_logits:
            g.op('MatMul', x, table, name='m_logits')
            net.give('m_logits', FLOAT, 1, vocabulary)
        else:
            # The samples call the token so.
            top(g, g.op('MatMul', x, table), 1, ['best', 'm_logits'])
            net.give('m_logits', INT64, 1, 1)
        return 'lm_head', finished(g, net)

    def greedy_head(self) -> tuple[str, onnx.ModelProto]:
        """Return the choice of the likeliest token."""
        g, net = Writer({}), Net('greedy_head')
        logits = net.take('m_logits', FLOAT, 1, self.text['vocab_size'])
        top(g, logits, 1, ['best', 'token'])
        net.give('token', INT64, 1, 1)
        return 'greedy_head', finished(g, net)

    def penalty_sample_head(self) -> tuple[str, onnx.ModelProto]:
        """Return the candidates, those seen made less likely, and their probabilities."""
        g, net = Writer({}), Net('penalty_sample_head')
        logits = net.take('m_logits', FLOAT, 1, self.text['vocab_size'])
        ids = net.take('input_ids', INT32, 1, self.shapes.context)
        top_p, temperature, penalty = (
            net.take(name, FLOAT, 1) for name in ('top_p', 'temperature', 'penalty')
        )
        seen = g.op('GatherElements', logits, ids, axis=1)
        less = g.op('Less', seen, g.constant(0.0, np.float32))
        worse = g.op('Where', less, g.op('Mul', seen, penalty), g.op('Div', seen, penalty))
        logits = g.op('ScatterElements', logits, ids, worse, axis=1)
        best, _ = top(g, logits, _CANDIDATES, ['best', 'token'])
        best = g.op('Div', best, temperature)
        total = g.op('CumSum', g.op('Softmax', best, axis=1), g.constant(1))
        # The first five count as below any limit.
        lower = np.zeros((1, _CANDIDATES), np.float32)
        lower[0, :_ALWAYS_KEPT] = -2
        kept = g.op('Less', g.op('Add', total, g.array('always_kept', lower)), top_p)
        dropped = g.array('dropped', np.full((1, _CANDIDATES), -1000, np.float32))
        g.op('Softmax', g.op('Where', kept, best, dropped), name='probs', axis=1)
        net.give('probs', FLOAT, 1, _CANDIDATES)
        net.give('token', INT64, 1, _CANDIDATES)
        return 'penalty_sample_head', finished(g, net)
