"""Write ONNX graphs as one writes formulas: every operator returns the name of its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8  # what ONNX Runtime 1.14 and later read


class GraphBuilder:
    """Collects nodes, weights, inputs and outputs of one graph."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, kind: int, shape: list[int | str]) -> str:
        """Declare an input; a word in `shape` is an open size."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(
        self, name: str, value: str, shape: list[int | str], kind: int = TensorProto.FLOAT
    ) -> None:
        """Declare `value` as the output `name`, of type `kind`."""
        self._nodes.append(helper.make_node('Cast', [value], [name], to=kind))
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def weight(self, name: str, array: NDArray[Any]) -> str:
        """Store a weight under its own name; the same name twice is the same weight."""
        self._weights[name] = numpy_helper.from_array(np.asarray(array, order='C'), name)
        return name

    def floats(self, *values: float) -> str:
        """Store float32 constants: one value without a dimension, several with one."""
        array = np.array(values if len(values) > 1 else values[0], np.float32)
        return self.weight(f'floats:{values}', array)

    def ints(self, *values: int) -> str:
        """Store int64 constants of shape (n,)."""
        return self.weight(f'ints:{values}', np.array(values, np.int64))

    def scalar(self, value: int) -> str:
        """Store one int64 constant without a dimension."""
        return self.weight(f'scalar:{value}', np.array(value, np.int64))

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator with one result."""
        return self.ops(kind, inputs, 1, **attributes)[0]

    def ops(
        self, kind: str, inputs: tuple[str, ...], results: int, **attributes: Any
    ) -> list[str]:
        """Add an operator with several results."""
        names = [f'{kind}_{len(self._nodes)}_{i}' for i in range(results)]
        self._nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def save(self, path: Path) -> None:
        """Check the graph and write it."""
        graph = helper.make_graph(
            self._nodes, path.stem, self._inputs, self._outputs, list(self._weights.values())
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid('', OPSET)], ir_version=IR_VERSION
        )
        onnx.checker.check_model(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString())
