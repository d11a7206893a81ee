"""Write the demo model as three ONNX graphs of plain operators (opset 17).

Weights are float16 initialisers, each followed by a Cast to float32 that ONNX Runtime folds when
it loads the file: half the bytes on disk, float32 sums. Initialisers keep their checkpoint names;
those of matrix products are stored transposed, as the products want them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tools.demo_model.size import ModelSize

Weights = Mapping[str, NDArray[np.float16]]

OPSET: Final = 17
IR_VERSION: Final = 8
FLOAT: Final = TensorProto.FLOAT
INT64: Final = TensorProto.INT64


class GraphWriter:
    """Collects the nodes and initialisers of one graph; every method returns a value's name."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._initialisers: dict[str, onnx.TensorProto] = {}
        self._values = 0

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node with one output."""
        return self.ops(kind, *inputs, names=[name or self._new(kind)], **attributes)[0]

    def ops(
        self, kind: str, *inputs: str, names: Sequence[str], **attributes: Any
    ) -> Sequence[str]:
        """Add a node with several outputs."""
        self._nodes.append(helper.make_node(kind, list(inputs), list(names), **attributes))
        return names

    def split(self, value: str, parts: int, axis: int) -> Sequence[str]:
        """Split a value into equal parts."""
        return self.ops('Split', value, names=[self._new('part') for _ in range(parts)], axis=axis)

    def constant(self, value: object, dtype: type = np.int64) -> str:
        """Add a constant."""
        array: NDArray[Any] = np.asarray(value, dtype)
        name = f'const_{array.dtype}_{"x".join(map(str, array.shape))}_'
        name += '_'.join(f'{v}' for v in array.ravel()[:20])
        self._initialisers[name] = numpy_helper.from_array(array, name)
        return name

    def weight(self, name: str, *, transposed: bool = False) -> str:
        """Add a weight and its Cast."""
        cast = f'{name}.float32'
        if name not in self._initialisers:
            array = self._weights[name]
            stored = np.ascontiguousarray(array.T if transposed else array)
            self._initialisers[name] = numpy_helper.from_array(stored, name)
            self.op('Cast', name, name=cast, to=FLOAT)
        return cast

    def linear(self, value: str, name: str, *, bias: bool = True) -> str:
        """Add a linear layer."""
        out = self.op('MatMul', value, self.weight(f'{name}.weight', transposed=True))
        return self.op('Add', out, self.weight(f'{name}.bias')) if bias else out

    def layer_norm(self, value: str, name: str, eps: float) -> str:
        """Add a layer norm."""
        scale, bias = self.weight(f'{name}.weight'), self.weight(f'{name}.bias')
        return self.op('LayerNormalization', value, scale, bias, axis=-1, epsilon=eps)

    def gelu(self, value: str) -> str:
        """Add the exact GELU."""
        scaled = self.op('Div', value, self.constant(np.sqrt(2), np.float32))
        shifted = self.op('Add', self.op('Erf', scaled), self.constant(1, np.float32))
        return self.op('Mul', self.op('Mul', value, shifted), self.constant(0.5, np.float32))

    def reshape(self, value: str, *shape: int) -> str:
        """Add a reshape; 0 keeps a side, -1 takes the rest."""
        return self.op('Reshape', value, self.constant(shape))

    def model(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
    ) -> onnx.ModelProto:
        """Return the checked model."""
        graph = helper.make_graph(
            self._nodes, name, inputs, outputs, list(self._initialisers.values())
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid('', OPSET)],
            ir_version=IR_VERSION,
            producer_name='edge_vlm_ros demo model',
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def _new(self, kind: str) -> str:
        self._values += 1
        return f'{kind.lower()}_{self._values}'


def _value(name: str, kind: int, *shape: str | int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def vision_encoder(weights: Weights, size: ModelSize) -> onnx.ModelProto:
    """Return `pixel_values` (N, 3, px, px) to `image_features` (N, tokens, width)."""
    g = GraphWriter(weights)
    width, grid, head = size.vision_width, size.grid, size.vision_head
    heads, count = width // head, grid * grid + 1
    at = 'vision_model.embeddings'
    x = g.op(
        'Conv',
        'pixel_values',
        g.weight(f'{at}.patch_embedding.weight'),
        g.weight(f'{at}.patch_embedding.bias'),
        kernel_shape=[size.patch_px] * 2,
        strides=[size.patch_px] * 2,
    )
    x = g.op('Transpose', g.reshape(x, 0, width, grid * grid), perm=[0, 2, 1])
    rows = g.op('Slice', g.op('Shape', x), g.constant([0]), g.constant([1]))
    shape = g.op('Concat', rows, g.constant([1, width]), axis=0)
    first = g.op('Expand', g.weight(f'{at}.class_embedding'), shape)
    x = g.op('Concat', first, x, axis=1)
    x = g.op('Add', x, g.weight(f'{at}.position_embedding'))
    for i in range(size.vision_layers):
        at = f'vision_model.encoder.layers.{i}'
        h = g.linear(g.layer_norm(x, f'{at}.norm1', 1e-6), f'{at}.attn.qkv')
        q, k, v = g.split(h, 3, -1)
        q = g.op('Transpose', g.reshape(q, 0, count, heads, head), perm=[0, 2, 1, 3])
        k = g.op('Transpose', g.reshape(k, 0, count, heads, head), perm=[0, 2, 3, 1])
        v = g.op('Transpose', g.reshape(v, 0, count, heads, head), perm=[0, 2, 1, 3])
        q = g.op('Mul', q, g.constant(head**-0.5, np.float32))
        h = g.op('MatMul', g.op('Softmax', g.op('MatMul', q, k), axis=-1), v)
        h = g.reshape(g.op('Transpose', h, perm=[0, 2, 1, 3]), 0, count, width)
        h = g.op('Mul', g.linear(h, f'{at}.attn.proj'), g.weight(f'{at}.ls1'))
        x = g.op('Add', x, h)
        h = g.linear(g.layer_norm(x, f'{at}.norm2', 1e-6), f'{at}.mlp.fc1')
        h = g.op('Mul', g.linear(g.gelu(h), f'{at}.mlp.fc2'), g.weight(f'{at}.ls2'))
        x = g.op('Add', x, h)
    x = g.op('Slice', x, g.constant([1]), g.constant([count]), g.constant([1]))
    half = grid // 2
    # Pixel shuffle by 0.5, ps_version v2: 2 x 2 patches to one token, row by row.
    x = g.reshape(x, -1, half, 2, half, 2, width)
    x = g.op('Transpose', x, perm=[0, 1, 3, 2, 4, 5])
    x = g.reshape(x, -1, size.tokens, 4 * width)
    x = g.gelu(g.linear(g.layer_norm(x, 'mlp1.0', 1e-5), 'mlp1.1'))
    x = g.op('MatMul', x, g.weight('mlp1.3.weight', transposed=True))
    g.op('Add', x, g.weight('mlp1.3.bias'), name='image_features')
    return g.model(
        'vision_encoder',
        [_value('pixel_values', FLOAT, 'frames', 3, size.image_px, size.image_px)],
        [_value('image_features', FLOAT, 'frames', size.tokens, size.width)],
    )


def embed_tokens(weights: Weights, size: ModelSize) -> onnx.ModelProto:
    """Return `input_ids` (B, S) to `inputs_embeds` (B, S, width)."""
    g = GraphWriter(weights)
    table = g.weight('language_model.model.embed_tokens.weight')
    g.op('Gather', table, 'input_ids', name='inputs_embeds', axis=0)
    return g.model(
        'embed_tokens',
        [_value('input_ids', INT64, 'batch', 'tokens')],
        [_value('inputs_embeds', FLOAT, 'batch', 'tokens', size.width)],
    )


class _DecoderWriter(GraphWriter):
    """The parts of one decoder."""

    def __init__(self, weights: Weights, size: ModelSize) -> None:
        super().__init__(weights)
        self.size = size

    def rms_norm(self, x: str, name: str) -> str:
        """Add a root mean square norm."""
        mean = self.op('ReduceMean', self.op('Mul', x, x), axes=[-1], keepdims=1)
        root = self.op('Sqrt', self.op('Add', mean, self.constant(self.size.rms_eps, np.float32)))
        return self.op('Mul', self.op('Div', x, root), self.weight(f'{name}.weight'))

    def rope_tables(self) -> tuple[str, str]:
        """Add cosines and sines of `position_ids`, (B, 1, S, head)."""
        half = np.arange(0, self.size.head, 2) / self.size.head
        steps = (self.size.rope_theta ** -np.concatenate([half, half])).astype(np.float32)
        places = self.op('Cast', 'position_ids', to=FLOAT)
        angles = self.op(
            'Mul',
            self.op('Unsqueeze', places, self.constant([1, 3])),
            self.constant(steps, np.float32),
        )
        return self.op('Cos', angles), self.op('Sin', angles)

    def rope(self, x: str, cos: str, sin: str) -> str:
        """Rotate (B, heads, S, head)."""
        low, high = self.split(x, 2, -1)
        turned = self.op('Concat', self.op('Neg', high), low, axis=-1)
        return self.op('Add', self.op('Mul', x, cos), self.op('Mul', turned, sin))

    def mask(self) -> str:
        """Add what to sum to the scores, (B, 1, 1, S, past + S)."""
        zero, one = self.constant(0), self.constant(1)
        total = self.op('Gather', self.op('Shape', 'attention_mask'), one)
        new = self.op('Gather', self.op('Shape', 'inputs_embeds'), one)
        rows = self.op('Range', self.op('Sub', total, new), total, one)
        columns = self.op('Range', zero, total, one)
        rows = self.op('Unsqueeze', rows, self.constant([1]))
        before = self.op('LessOrEqual', columns, rows)
        valid = self.op('Cast', 'attention_mask', to=TensorProto.BOOL)
        seen = self.op('And', self.op('Unsqueeze', valid, self.constant([1])), before)
        none = self.constant(0.0, np.float32)
        hidden = self.constant(-1e9, np.float32)
        return self.op('Unsqueeze', self.op('Where', seen, none, hidden), self.constant([1, 2]))

    def attention(self, x: str, i: int, cos: str, sin: str, mask: str) -> str:
        """Add the attention of layer i, with its cache."""
        size = self.size
        kv, head, group = size.kv_heads, size.head, size.heads // size.kv_heads
        at = f'language_model.model.layers.{i}.self_attn'

        def heads(value: str, count: int) -> str:
            return self.op('Transpose', self.reshape(value, 0, 0, count, head), perm=[0, 2, 1, 3])

        q = self.rope(heads(self.linear(x, f'{at}.q_proj'), size.heads), cos, sin)
        k = self.rope(heads(self.linear(x, f'{at}.k_proj'), kv), cos, sin)
        v = heads(self.linear(x, f'{at}.v_proj'), kv)
        k = self.op('Concat', f'past_key_values.{i}.key', k, name=f'present.{i}.key', axis=2)
        v = self.op('Concat', f'past_key_values.{i}.value', v, name=f'present.{i}.value', axis=2)
        # The heads that share keys stand one after another, so their queries are stacked as rows.
        q = self.op('Mul', q, self.constant(head**-0.5, np.float32))
        rows = self.reshape(q, 0, kv, -1, head)
        scores = self.op('MatMul', rows, self.op('Transpose', k, perm=[0, 1, 3, 2]))
        shape = self.op('Shape', scores)
        apart = self.op(
            'Concat',
            self.op('Slice', shape, self.constant([0]), self.constant([1])),
            self.constant([kv, group, -1]),
            self.op('Slice', shape, self.constant([3]), self.constant([4])),
            axis=0,
        )
        scores = self.op('Add', self.op('Reshape', scores, apart), mask)
        weights = self.op('Reshape', self.op('Softmax', scores, axis=-1), shape)
        out = self.reshape(self.op('MatMul', weights, v), 0, size.heads, -1, head)
        out = self.reshape(self.op('Transpose', out, perm=[0, 2, 1, 3]), 0, 0, size.width)
        return self.linear(out, f'{at}.o_proj', bias=False)

    def mlp(self, x: str, i: int) -> str:
        """Add the SwiGLU of layer i."""
        at = f'language_model.model.layers.{i}.mlp'
        gate = self.linear(x, f'{at}.gate_proj', bias=False)
        gate = self.op('Mul', gate, self.op('Sigmoid', gate))
        up = self.linear(x, f'{at}.up_proj', bias=False)
        return self.linear(self.op('Mul', gate, up), f'{at}.down_proj', bias=False)


def decoder(weights: Weights, size: ModelSize) -> onnx.ModelProto:
    """Return the decoder with its cache; the past may be 0 long.

    `num_logits_to_keep` asks for the logits of the last tokens only; 0 asks for all.
    """
    g = _DecoderWriter(weights, size)
    cos, sin = g.rope_tables()
    mask = g.mask()
    x = 'inputs_embeds'
    for i in range(size.layers):
        at = f'language_model.model.layers.{i}'
        h = g.attention(g.rms_norm(x, f'{at}.input_layernorm'), i, cos, sin, mask)
        x = g.op('Add', x, h)
        x = g.op('Add', x, g.mlp(g.rms_norm(x, f'{at}.post_attention_layernorm'), i))
    start = g.op('Neg', g.op('Unsqueeze', 'num_logits_to_keep', g.constant([0])))
    x = g.op('Slice', x, start, g.constant([np.iinfo(np.int64).max]), g.constant([1]))
    x = g.rms_norm(x, 'language_model.model.norm')
    table = g.weight('language_model.model.embed_tokens.weight')
    g.op('MatMul', x, g.op('Transpose', table, perm=[1, 0]), name='logits')
    cache = ('batch', size.kv_heads, 'past', size.head)
    longer = ('batch', size.kv_heads, 'total', size.head)
    names = [(i, kind) for i in range(size.layers) for kind in ('key', 'value')]
    return g.model(
        'decoder_model_merged',
        [
            _value('inputs_embeds', FLOAT, 'batch', 'tokens', size.width),
            _value('attention_mask', INT64, 'batch', 'total'),
            _value('position_ids', INT64, 'batch', 'tokens'),
            *(_value(f'past_key_values.{i}.{k}', FLOAT, *cache) for i, k in names),
            _value('num_logits_to_keep', INT64),
        ],
        [
            _value('logits', FLOAT, 'batch', 'kept', size.vocabulary),
            *(_value(f'present.{i}.{k}', FLOAT, *longer) for i, k in names),
        ],
    )
