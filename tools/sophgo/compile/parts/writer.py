"""Writes one net: an ONNX graph of float32 weights, with its inputs and outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tools.demo_model.onnx_graphs import GraphWriter
from tools.sophgo.compile.weights import Array

FLOAT: Final = TensorProto.FLOAT
INT32: Final = TensorProto.INT32
INT64: Final = TensorProto.INT64


@dataclass
class Net:
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


class Writer(GraphWriter):
    """Writes float32 weights, under names that may be those of files."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        super().__init__({})
        self._arrays = weights

    def weight(self, name: str, *, transposed: bool = False) -> str:
        """Add a weight."""
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
        """Add a linear layer, with a bias where there is one."""
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


def top(g: Writer, value: str, count: int, names: Sequence[str]) -> Sequence[str]:
    """Add the largest values of the last axis and their indices, under two names."""
    return g.ops('TopK', value, g.constant([count]), names=names, axis=1)


def finished(g: Writer, net: Net) -> onnx.ModelProto:
    """Return the checked net."""
    return g.model(net.name, net.inputs, net.outputs)
