"""The nets of the 2024 and early 2025 files as ONNX parts, one file a net.

The vendor's samples export them from PyTorch; here the same nets are written operator by operator
from a tiny checkpoint. Which nets there are, their inputs and their order: the contracts of
InternVL2, Qwen2-VL, Llama 3.2 Vision and InternVL3's five-input history form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tools.demo_model.onnx_graphs import GraphWriter
from tools.sophgo.compile.checkpoints import Checkpoint
from tools.sophgo.compile.weights import Array

FLOAT: Final = TensorProto.FLOAT
INT32: Final = TensorProto.INT32
_CANDIDATES: Final = 50
_ALWAYS_KEPT: Final = 5
_ROTARY_ROWS: Final = 100  # of Qwen2-VL's vision table, as in the samples' exports


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


@dataclass
class _Net:
    """One net being written."""

    name: str
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)

    def take(self, name: str, kind: int, *shape: int) -> str:
        """Declare an input."""
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def give(self, name: str, kind: int, *shape: int) -> None:
        """Declare an output."""
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))


class _Writer(GraphWriter):
    """Writes float32 weights, under names that a compiler's file system bears."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        super().__init__({})
        self._arrays = weights

    def weight(self, name: str, *, transposed: bool = False) -> str:
        array = self._arrays[name]
        return self.array(name, array.T if transposed else array)

    def array(self, name: str, array: NDArray[Any]) -> str:
        """Add an array as an initialiser of its own name."""
        key = name.replace('.', '_')
        if key not in self._initialisers:
            stored = np.ascontiguousarray(array)
            self._initialisers[key] = numpy_helper.from_array(stored, key)
        return key

    def linear(self, value: str, name: str, *, bias: bool = True) -> str:
        return super().linear(value, name, bias=bias and f'{name}.bias' in self._arrays)

    def rms_norm(self, x: str, name: str, eps: float) -> str:
        """Add a root mean square norm."""
        mean = self.op('ReduceMean', self.op('Mul', x, x), axes=[-1], keepdims=1)
        root = self.op('Sqrt', self.op('Add', mean, self.constant(eps, np.float32)))
        return self.op('Mul', self.op('Div', x, root), self.weight(name))

    def attend(self, q: str, k: str, v: str, mask: str | None, head: int) -> str:
        """Add softmax(q k) v for (1, tokens, heads, head) each."""
        q = self.op('Transpose', q, perm=[0, 2, 1, 3])
        k = self.op('Transpose', k, perm=[0, 2, 3, 1])
        v = self.op('Transpose', v, perm=[0, 2, 1, 3])
        scores = self.op(
            'Div', self.op('MatMul', q, k), self.constant(math.sqrt(head), np.float32)
        )
        if mask is not None:
            scores = self.op('Add', scores, mask)
        out = self.op('MatMul', self.op('Softmax', scores, axis=-1), v)
        return self.op('Transpose', out, perm=[0, 2, 1, 3])

    def rotate(self, x: str, cos: str, sin: str) -> str:
        """Rotate halves of each head."""
        first, second = self.split(x, 2, -1)
        turned = self.op('Concat', self.op('Neg', second), first, axis=-1)
        return self.op('Add', self.op('Mul', x, cos), self.op('Mul', turned, sin))

    def silu(self, x: str) -> str:
        """Add x sigmoid(x)."""
        return self.op('Mul', x, self.op('Sigmoid', x))


class Parts:
    """Writes every net of one model.

    Args:
        checkpoint: The weights.
        family: 'internvl2', 'internvl3', 'qwen2vl' or 'mllama'.
        shapes: The sizes.
    """

    def __init__(self, checkpoint: Checkpoint, family: str, shapes: Shapes) -> None:
        config = checkpoint.config
        self.family = family
        self.shapes = shapes
        self._weights = checkpoint.weights
        self._config = config
        self._text = config.get('llm_config') or config.get('text_config') or config
        self._at = 'model.' if family == 'qwen2vl' else 'language_model.model.'
        self._heads = self._text['num_attention_heads']
        self._kv_heads = self._text['num_key_value_heads']
        self._width = self._text['hidden_size']
        self._head = self._width // self._heads
        self.layers = self._text['num_hidden_layers']
        self.cross = tuple(self._text.get('cross_attention_layers', ()))

    @property
    def has_logits(self) -> bool:
        """Whether the head gives logits, with nets for sampling behind it."""
        return self.family in ('qwen2vl', 'mllama')

    def write(self, folder: Path) -> list[str]:
        """Write all nets; return their names."""
        folder.mkdir(parents=True, exist_ok=True)
        names = []
        for name, model in self._nets():
            onnx.save(model, folder / f'{name}.onnx')
            names.append(name)
        return names

    def _nets(self) -> Iterator[tuple[str, onnx.ModelProto]]:
        shapes = self.shapes
        yield self._embedding('embedding', shapes.prompt)
        yield self._embedding('embedding_cache', 1)
        for layer in range(self.layers):
            if layer in self.cross:
                yield self._cross_block(layer)
                yield self._cross_cache(layer)
            else:
                yield self._block(f'block_{layer}', layer, shapes.prompt, shapes.history)
                yield self._block(f'block_cache_{layer}', layer, 1, shapes.context)
        yield self._lm_head()
        if self.has_logits:
            yield self._greedy_head()
            yield self._penalty_sample_head()
        yield self._vision()

    # -- language -------------------------------------------------------------------------------

    def _embedding(self, name: str, rows: int) -> tuple[str, onnx.ModelProto]:
        g, net = _Writer(self._weights), _Net(name)
        ids = net.take('input_ids', INT32, 1, rows)
        table = g.weight(f'{self._at}embed_tokens.weight')
        g.op('Gather', table, ids, name='input_embed', axis=0)
        net.give('input_embed', FLOAT, 1, rows, self._width)
        return name, _finished(g, net)

    def _block(self, name: str, layer: int, rows: int, past: int) -> tuple[str, onnx.ModelProto]:
        """Return a self-attention layer, with a past of so many rows."""
        g, net = _Writer(self._weights), _Net(name)
        at = f'{self._at}layers.{layer}.'
        kv = (self._kv_heads, self._head)
        x = net.take('input_states', FLOAT, 1, rows, self._width)
        positions = (3, 1, rows) if self.family == 'qwen2vl' else (1, rows)
        place = net.take('position_ids', INT32, *positions)
        mask = net.take('attention_mask', FLOAT, 1, 1, rows, past + rows)
        cos, sin = self._rotation(g, place)
        y = g.rms_norm(x, f'{at}input_layernorm.weight', self._text['rms_norm_eps'])
        q, k, v = (
            g.reshape(g.linear(y, f'{at}self_attn.{n}_proj'), 1, rows, heads, self._head)
            for n, heads in zip('qkv', (self._heads, *kv[:1], *kv[:1]), strict=True)
        )
        q = g.rotate(q, cos, sin)
        k = g.op('Identity', g.rotate(k, cos, sin), name='past_k')
        v = g.op('Identity', v, name='past_v')
        if past:
            net.take('history_k', FLOAT, 1, past, *kv)
            net.take('history_v', FLOAT, 1, past, *kv)
            k = g.op('Concat', 'history_k', k, axis=1)
            v = g.op('Concat', 'history_v', v, axis=1)
        k, v = (self._repeated(g, value, past + rows) for value in (k, v))
        y = g.reshape(g.attend(q, k, v, mask, self._head), 1, rows, self._heads * self._head)
        x = g.op('Add', x, g.linear(y, f'{at}self_attn.o_proj'))
        g.op('Add', x, self._mlp(g, at, x), name='hidden_states')
        net.give('hidden_states', FLOAT, 1, rows, self._width)
        net.give('past_k', FLOAT, 1, rows, *kv)
        net.give('past_v', FLOAT, 1, rows, *kv)
        return name, _finished(g, net)

    def _rotation(self, g: _Writer, positions: str) -> tuple[str, str]:
        """Look up cosines and sines of positions, (1, rows, 1, head)."""
        half = self._head // 2
        inverse = self._text['rope_theta'] ** -(np.arange(half) / half)
        angles = np.arange(self.shapes.context)[:, None] * np.concatenate([inverse, inverse])
        results = []
        for name, function in (('cos', np.cos), ('sin', np.sin)):
            table = g.array(f'rotary_{name}', function(angles).astype(np.float32))
            rows = g.op('Gather', table, positions, axis=0)
            if self.family == 'qwen2vl':
                rows = self._joined_axes(g, rows)
            results.append(g.op('Unsqueeze', rows, g.constant([2])))
        return results[0], results[1]

    def _joined_axes(self, g: _Writer, rows: str) -> str:
        """Take from time, height and width the sections that are theirs: (3, 1, rows, head)."""
        sections = self._text['rope_scaling']['mrope_section']
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

    def _repeated(self, g: _Writer, value: str, rows: int) -> str:
        """Repeat KV heads for the heads that share them: (1, rows, KV heads, head)."""
        repeat = self._heads // self._kv_heads
        value = g.op('Unsqueeze', value, g.constant([3]))
        value = g.op('Tile', value, g.constant([1, 1, 1, repeat, 1]))
        return g.reshape(value, 1, rows, self._heads, self._head)

    def _mlp(self, g: _Writer, at: str, x: str) -> str:
        y = g.rms_norm(x, f'{at}post_attention_layernorm.weight', self._text['rms_norm_eps'])
        gate = g.silu(g.linear(y, f'{at}mlp.gate_proj'))
        return g.linear(g.op('Mul', gate, g.linear(y, f'{at}mlp.up_proj')), f'{at}mlp.down_proj')

    def _lm_head(self) -> tuple[str, onnx.ModelProto]:
        g, net = _Writer(self._weights), _Net('lm_head')
        x = net.take('hidden_states', FLOAT, 1, self._width)
        x = g.rms_norm(x, f'{self._at}norm.weight', self._text['rms_norm_eps'])
        name = 'lm_head.weight' if self.family == 'qwen2vl' else 'language_model.lm_head.weight'
        vocabulary = self._weights[name].shape[0]
        table = g.weight(name, transposed=True)
        if self.has_logits:
            g.op('MatMul', x, table, name='m_logits')
            net.give('m_logits', FLOAT, 1, vocabulary)
        else:
            # The samples call the token so.
            _top(g, g.op('MatMul', x, table), 1, ['best', 'm_logits'])
            net.give('m_logits', TensorProto.INT64, 1, 1)
        return 'lm_head', _finished(g, net)

    def _greedy_head(self) -> tuple[str, onnx.ModelProto]:
        g, net = _Writer({}), _Net('greedy_head')
        logits = net.take('m_logits', FLOAT, 1, self._text['vocab_size'])
        _top(g, logits, 1, ['best', 'token'])
        net.give('token', TensorProto.INT64, 1, 1)
        return 'greedy_head', _finished(g, net)

    def _penalty_sample_head(self) -> tuple[str, onnx.ModelProto]:
        g, net = _Writer({}), _Net('penalty_sample_head')
        logits = net.take('m_logits', FLOAT, 1, self._text['vocab_size'])
        ids = net.take('input_ids', INT32, 1, self.shapes.context)
        top_p, temperature, penalty = (
            net.take(name, FLOAT, 1) for name in ('top_p', 'temperature', 'penalty')
        )
        seen = g.op('GatherElements', logits, ids, axis=1)
        less = g.op('Less', seen, g.constant(0.0, np.float32))
        worse = g.op('Where', less, g.op('Mul', seen, penalty), g.op('Div', seen, penalty))
        logits = g.op('ScatterElements', logits, ids, worse, axis=1)
        best, _ = _top(g, logits, _CANDIDATES, ['best', 'token'])
        best = g.op('Div', best, temperature)
        total = g.op('CumSum', g.op('Softmax', best, axis=1), g.constant(1))
        # The first five count as below any limit.
        lower = np.zeros((1, _CANDIDATES), np.float32)
        lower[0, :_ALWAYS_KEPT] = -2
        kept = g.op('Less', g.op('Add', total, g.array('always_kept', lower)), top_p)
        dropped = g.array('dropped', np.full((1, _CANDIDATES), -1000, np.float32))
        g.op('Softmax', g.op('Where', kept, best, dropped), name='probs', axis=1)
        net.give('probs', FLOAT, 1, _CANDIDATES)
        net.give('token', TensorProto.INT64, 1, _CANDIDATES)
        return 'penalty_sample_head', _finished(g, net)

    # -- cross-attention ------------------------------------------------------------------------

    @property
    def _states(self) -> tuple[int, int]:
        sizes = self._config['vision_config']
        rows = (sizes['image_size'] // sizes['patch_size']) ** 2 + 1
        return sizes['max_num_tiles'], rows

    def _cross_block(self, layer: int) -> tuple[str, onnx.ModelProto]:
        name, rows = f'block_{layer}', self.shapes.prompt
        g, net = _Writer(self._weights), _Net(name)
        at = f'{self._at}layers.{layer}.'
        tiles, patches = self._states
        x = net.take('input_states', FLOAT, 1, rows, self._width)
        states = net.take('cross_attention_states', FLOAT, tiles, patches, self._width)
        row_mask = net.take('text_row_mask', FLOAT, 1, rows, 1)
        mask = net.take('attention_mask', FLOAT, 1, 1, rows, tiles * patches)
        heads = {}
        # Projected first and reshaped then: the other way round the compiler fails.
        for part in 'kv':
            y = g.linear(states, f'{at}cross_attn.{part}_proj')
            y = g.reshape(y, 1, tiles * patches, self._kv_heads, self._head)
            if part == 'k':
                y = g.rms_norm(y, f'{at}cross_attn.k_norm.weight', self._text['rms_norm_eps'])
            y = self._repeated(g, y, tiles * patches)
            heads[part] = g.op('Transpose', y, name=f'past_{part}', perm=[0, 2, 1, 3])
        self._cross_rest(g, (at, rows), x, (heads['k'], heads['v'], mask), row_mask)
        net.give('hidden_states', FLOAT, 1, rows, self._width)
        for part in 'kv':
            net.give(f'past_{part}', FLOAT, 1, self._heads, tiles * patches, self._head)
        return name, _finished(g, net)

    def _cross_cache(self, layer: int) -> tuple[str, onnx.ModelProto]:
        name = f'block_cache_{layer}'
        g, net = _Writer(self._weights), _Net(name)
        tiles, patches = self._states
        x = net.take('input_states', FLOAT, 1, 1, self._width)
        mask = net.take('attention_mask', FLOAT, 1, 1, 1, tiles * patches)
        k, v = (
            net.take(f'history_{part}', FLOAT, 1, self._heads, tiles * patches, self._head)
            for part in 'kv'
        )
        self._cross_rest(g, (f'{self._at}layers.{layer}.', 1), x, (k, v, mask), None)
        net.give('hidden_states', FLOAT, 1, 1, self._width)
        return name, _finished(g, net)

    def _cross_rest(
        self,
        g: _Writer,
        where: tuple[str, int],
        x: str,
        seen: tuple[str, str, str],
        row_mask: str | None,
    ) -> None:
        """Add everything behind the keys and values; the result is `hidden_states`."""
        at, rows = where
        keys, values, mask = seen
        eps = self._text['rms_norm_eps']
        y = g.rms_norm(x, f'{at}input_layernorm.weight', eps)
        q = g.linear(y, f'{at}cross_attn.q_proj')
        q = g.reshape(q, 1, rows, self._heads, self._head)
        q = g.rms_norm(q, f'{at}cross_attn.q_norm.weight', eps)
        keys, values = (g.op('Transpose', t, perm=[0, 2, 1, 3]) for t in (keys, values))
        y = g.reshape(g.attend(q, keys, values, mask, self._head), 1, rows, self._width)
        y = g.linear(y, f'{at}cross_attn.o_proj')
        x = g.op('Add', x, g.op('Mul', y, self._gate(g, f'{at}cross_attn_attn_gate')))
        y = self._mlp(g, at, x)
        if row_mask is not None:
            y = g.op('Mul', y, row_mask)
        y = g.op('Mul', y, self._gate(g, f'{at}cross_attn_mlp_gate'))
        g.op('Add', x, y, name='hidden_states')

    def _gate(self, g: _Writer, name: str) -> str:
        return g.array(f'{name}_tanh', np.tanh(self._weights[name]))

    # -- vision ---------------------------------------------------------------------------------

    def _vision(self) -> tuple[str, onnx.ModelProto]:
        if self.family == 'qwen2vl':
            return self._qwen_vit()
        if self.family == 'mllama':
            return self._mllama_vit()
        return self._intern_vit()

    def _intern_vit(self) -> tuple[str, onnx.ModelProto]:
        name = 'intern_vit' if self.family == 'internvl2' else 'vit'
        g, net, sizes = _Writer(self._weights), _Net(name), self._config['vision_config']
        width, heads, eps = (
            sizes['hidden_size'], sizes['num_attention_heads'], sizes['layer_norm_eps'],
        )  # fmt: skip
        px, patch = sizes['image_size'], sizes['patch_size']
        grid = px // patch
        pixels = net.take('pixel_values', FLOAT, 1, 3, px, px)
        at = 'vision_model.embeddings.'
        x = g.op(
            'Conv',
            pixels,
            g.weight(f'{at}patch_embedding.weight'),
            g.weight(f'{at}patch_embedding.bias'),
            kernel_shape=[patch, patch],
            strides=[patch, patch],
        )
        x = g.op('Transpose', g.reshape(x, 1, width, grid * grid), perm=[0, 2, 1])
        x = g.op('Concat', g.weight(f'{at}class_embedding'), x, axis=1)
        x = g.op('Add', x, g.weight(f'{at}position_embedding'))
        rows = grid * grid + 1
        for i in range(sizes['num_hidden_layers']):
            at = f'vision_model.encoder.layers.{i}.'
            y = g.linear(g.layer_norm(x, f'{at}norm1', eps), f'{at}attn.qkv')
            q, k, v = (g.reshape(p, 1, rows, heads, width // heads) for p in g.split(y, 3, -1))
            y = g.reshape(g.attend(q, k, v, None, width // heads), 1, rows, width)
            y = g.op('Mul', g.linear(y, f'{at}attn.proj'), g.weight(f'{at}ls1'))
            x = g.op('Add', x, y)
            y = g.gelu(g.linear(g.layer_norm(x, f'{at}norm2', eps), f'{at}mlp.fc1'))
            x = g.op('Add', x, g.op('Mul', g.linear(y, f'{at}mlp.fc2'), g.weight(f'{at}ls2')))
        x = g.op('Slice', x, g.constant([1]), g.constant([rows]), g.constant([1]))
        half = grid // 2
        x = g.reshape(x, half, 2, half, 2, width)
        x = g.op('Transpose', x, perm=[0, 2, 1, 3, 4])
        x = g.layer_norm(g.reshape(x, 1, half * half, 4 * width), 'mlp1.0', eps)
        x = g.linear(g.gelu(g.linear(x, 'mlp1.1')), 'mlp1.3')
        batch = (1,) if self.family == 'internvl2' else ()
        shape = (*batch, half * half, self._width)
        g.op('Reshape', x, g.constant(shape), name='vit_embeds')
        net.give('vit_embeds', FLOAT, *shape)
        return name, _finished(g, net)

    def _qwen_vit(self) -> tuple[str, onnx.ModelProto]:
        g, net, sizes = _Writer(self._weights), _Net('vit'), self._config['vision_config']
        width, heads, rows = sizes['embed_dim'], sizes['num_heads'], self.shapes.patches
        values = 3 * sizes['temporal_patch_size'] * sizes['patch_size'] ** 2
        head = width // heads
        states = net.take('input_states', FLOAT, rows, values)
        places = net.take('pos_ids', INT32, rows, 2)
        mask = net.take('attention_mask', FLOAT, 1, rows, rows)
        kernel = self._weights['visual.patch_embed.proj.weight'].reshape(width, values)
        x = g.reshape(g.op('MatMul', states, g.array('patch_embed', kernel.T)), 1, rows, width)
        quarter = head // 4
        inverse = 10000.0 ** -(np.arange(quarter) / quarter)
        angles = np.arange(_ROTARY_ROWS)[:, None] * inverse
        turn = []
        for name, function in (('cos', np.cos), ('sin', np.sin)):
            table = g.array(f'rotary_{name}', function(angles).astype(np.float32))
            half = g.reshape(g.op('Gather', table, places, axis=0), rows, 2 * quarter)
            both = g.op('Concat', half, half, axis=1)
            turn.append(g.reshape(both, 1, rows, 1, head))
        mask = g.op('Unsqueeze', mask, g.constant([1]))
        for i in range(sizes['depth']):
            at = f'visual.blocks.{i}.'
            y = g.linear(g.layer_norm(x, f'{at}norm1', 1e-6), f'{at}attn.qkv')
            q, k, v = (g.reshape(p, 1, rows, heads, head) for p in g.split(y, 3, -1))
            q, k = g.rotate(q, *turn), g.rotate(k, *turn)
            y = g.reshape(g.attend(q, k, v, mask, head), 1, rows, width)
            x = g.op('Add', x, g.linear(y, f'{at}attn.proj'))
            y = g.linear(g.layer_norm(x, f'{at}norm2', 1e-6), f'{at}mlp.fc1')
            y = g.op('Mul', y, g.op('Sigmoid', g.op('Mul', y, g.constant(1.702, np.float32))))
            x = g.op('Add', x, g.linear(y, f'{at}mlp.fc2'))
        x = g.layer_norm(x, 'visual.merger.ln_q', 1e-6)
        x = g.gelu(g.linear(g.reshape(x, rows // 4, 4 * width), 'visual.merger.mlp.0'))
        x = g.op('MatMul', x, g.weight('visual.merger.mlp.2.weight', transposed=True))
        g.op('Add', x, g.weight('visual.merger.mlp.2.bias'), name='hidden_states')
        net.give('hidden_states', FLOAT, rows // 4, self._width)
        return 'vit', _finished(g, net)

    def _mllama_vit(self) -> tuple[str, onnx.ModelProto]:
        return _MllamaVision(self._weights, self._config, self._width).net()


class _MllamaVision:
    """Llama 3.2's vision tower and projector."""

    def __init__(
        self, weights: Mapping[str, Array], config: Mapping[str, Any], width: int
    ) -> None:
        sizes = config['vision_config']
        self._weights, self._sizes, self._out = weights, sizes, width
        self._width, self._tiles = sizes['hidden_size'], sizes['max_num_tiles']
        self._rows = (sizes['image_size'] // sizes['patch_size']) ** 2 + 1
        self._padded = self._rows + -self._rows % 8

    def net(self) -> tuple[str, onnx.ModelProto]:
        """Return the net."""
        g, net, sizes = _Writer(self._weights), _Net('vit'), self._sizes
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
        return 'vit', _finished(g, net)

    def _table(self, g: _Writer, name: str, ratio: str) -> str:
        table = np.tanh(self._weights[f'{name}.gate']) * self._weights[f'{name}.embedding.weight']
        rows = g.op('Gather', g.array(f'{name}.gated', table), ratio, axis=0)
        return g.reshape(rows, self._tiles, 1, self._width)

    def _positions(self, g: _Writer, name: str, ratio: str) -> str:
        gate = np.tanh(self._weights[f'{name}.gate'])
        table = gate * self._weights[f'{name}.tile_embedding.weight']
        rows = g.op('Gather', g.array(f'{name}.tiles', table), ratio, axis=0)
        rows = g.reshape(rows, self._tiles, self._rows, self._width)
        shared = (1 - gate) * self._weights[f'{name}.embedding']
        return g.op('Add', rows, g.array(f'{name}.shared', shared))

    def _mask(self, g: _Writer, real: str) -> str:
        """Hide padded rows from padded rows, as the published model does."""
        is_row = (np.arange(self._padded) < self._rows).astype(np.float32)
        tiles = g.reshape(g.op('Cast', real, to=FLOAT), self._tiles, 1)
        is_real = g.reshape(g.op('Mul', tiles, g.array('is_row', is_row[None])), 1, -1)
        padded = g.op('Sub', g.constant(1.0, np.float32), is_real)
        both = g.op('MatMul', g.op('Transpose', padded, perm=[1, 0]), padded)
        mask = g.op('Mul', both, g.constant(-10000.0, np.float32))
        return g.op('Unsqueeze', mask, g.constant([0, 1]))

    def _transform(self, g: _Writer, x: str, mask: str, ratio: str) -> str:
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

    def _layer(self, g: _Writer, at: str, x: str, mask: str) -> str:
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

    def _joined(self, g: _Writer, x: str, y: str, gate: str) -> str:
        if gate in self._weights:
            y = g.op('Mul', y, g.array(f'{gate}_tanh', np.tanh(self._weights[gate])))
        return g.op('Add', x, y)


def _top(g: _Writer, value: str, count: int, names: Sequence[str]) -> Sequence[str]:
    return g.ops('TopK', value, g.constant([count]), names=names, axis=1)


def _finished(g: _Writer, net: _Net) -> onnx.ModelProto:
    return g.model(net.name, net.inputs, net.outputs)
