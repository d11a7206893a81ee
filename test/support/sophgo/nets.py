"""The nets of a bmodel, called as functions."""

from __future__ import annotations

import time

import numpy as np

from edge_vlm_ros.engines.bf16 import from_bf16, to_bf16
from support.sophgo.reference import Array


class Nets:
    """The nets of a bmodel: host arrays in, host arrays out.

    Args:
        path: The bmodel.
    """

    def __init__(self, path: str) -> None:
        from sophon import sail

        self._sail = sail
        started = time.perf_counter()
        self._engine = sail.EngineLLM(path, sail.BmrtFlag.BM_RUNTIME_SHARE_MEM, [0])
        self.seconds = {'load': time.perf_counter() - started}
        self._handle = sail.Handle(0)
        self.names = set(self._engine.get_graph_names())

    def inputs(self, net: str) -> list[list[int]]:
        """Return the shapes of a net's inputs."""
        count = self._engine.get_input_num(net)
        return [self._engine.get_input_shape(net, i) for i in range(count)]

    def is_dynamic(self, net: str) -> bool:
        """Return whether a net takes shapes below its largest."""
        return bool(self._engine.get_is_dynamic(net))

    def __call__(self, net: str, *values: Array) -> list[Array]:
        """Run a net; shapes of a static net may lack or have sides of 1."""
        engine, sail = self._engine, self._sail
        inputs, outputs = {}, {}
        for i, value in enumerate(values):
            shape = engine.get_input_shape(net, i)
            dtype = engine.get_input_dtype(net, i)
            full = value.shape if self.is_dynamic(net) else shape
            inputs[i] = sail.Tensor(self._handle, list(full), dtype, False, True)  # noqa: FBT003
            inputs[i].update_data(_to_chip(value, dtype.name).reshape(full))
        for i in range(engine.get_output_num(net)):
            shape, dtype = engine.get_output_shape(net, i), engine.get_output_dtype(net, i)
            outputs[i] = sail.Tensor(self._handle, shape, dtype, False, True)  # noqa: FBT003
        started = time.perf_counter()
        engine.process(net, inputs, outputs)
        self.seconds.setdefault(net, time.perf_counter() - started)
        return [_from_chip(t.asnumpy(), t.dtype().name) for t in outputs.values()]


def _to_chip(value: Array, dtype: str) -> Array:
    if dtype == 'BM_BFLOAT16':
        return to_bf16(value.astype(np.float32))
    if dtype == 'BM_FLOAT16':
        return value.astype(np.float16).view(np.uint16)
    return np.ascontiguousarray(value, np.int32 if dtype == 'BM_INT32' else np.float32)


def _from_chip(value: Array, dtype: str) -> Array:
    if dtype == 'BM_BFLOAT16':
        return from_bf16(value)
    if dtype == 'BM_FLOAT16':
        return value.view(np.float16).astype(np.float32)
    return value
