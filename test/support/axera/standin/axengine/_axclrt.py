"""Sessions on a card: the AXCL runtime, in Python alone.

Names and dtypes are those of group 0, whatever the group, as that runtime gives them.
"""

from __future__ import annotations

import atexit
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.axera.axmodel_file import Axmodel, Tensor
from support.axera.layers import open_compute

from axengine import _environment
from axengine._base_session import Session, check_feed, node_bytes, raw_bytes
from axengine._node import NodeArg
from axengine._python_library import LEDGER, load_model

all_sessions: list[AXCLRTSession] = []
"""They stay alive until the process ends, as in the package."""


def _finalize() -> None:
    for session in all_sessions:
        session._unload()


atexit.register(_finalize)


class AXCLRTSession(Session):
    """One model on one card."""

    def __init__(self, source: str | bytes | os.PathLike[str], provider_options: Any) -> None:
        super().__init__()
        self._io: list[NDArray[np.uint8]] | None = None
        self._model_id: list[int] | None = None
        self._device_index = 0
        if provider_options is not None and 'device_id' in provider_options[0]:
            self._device_index = provider_options[0]['device_id']
        cards = _environment.cards()
        if not cards:
            raise RuntimeError(f'Get AXCL device failed 0x00000000, find total {cards} device.')
        if self._device_index >= cards:
            raise RuntimeError(
                f'Device index {self._device_index} is out of range, total {cards} device.'
            )
        print(f'[INFO] SOC Name: {_environment.chip().upper()}')
        print('[INFO] VNPU type: VNPUType.DISABLED')
        self._model_id = [0]
        _environment.wait_for_card()
        self._model = _read(source)
        self._compute = open_compute(self._model)
        self._model_id[0] = id(self)
        LEDGER.handles.add(id(self))
        print('[INFO] Compiler version: 4.1 (stand-in)')
        groups = self._model.groups
        self._shape_count = len(groups)
        self._inputs = [_nodes(group.inputs, groups[0].inputs) for group in groups]
        self._outputs = [_nodes(group.outputs, groups[0].outputs) for group in groups]
        self._io = self._allocate()
        all_sessions.append(self)

    def __del__(self) -> None:
        self._unload()
        all_sessions.remove(self)

    def run(
        self,
        output_names: list[str] | None,
        input_feed: dict[str, NDArray[Any]],
        run_options: object = None,
        shape_group: int = 0,
    ) -> list[NDArray[Any]]:
        """Run a group: every input goes to the card, every output comes back."""
        del run_options
        self._check_names(output_names, input_feed)
        ranks = self._ranks(output_names, shape_group)
        assert self._io is not None
        for name, array in input_feed.items():
            for i, node in enumerate(self.get_inputs(shape_group)):
                if node.name == name:
                    check_feed(node, array)
                    raw = np.frombuffer(raw_bytes(array).tobytes('A'), np.uint8)
                    self._io[i][: len(raw)] = raw
                    LEDGER.flushed_bytes += len(raw)
        if not LEDGER.count_run():
            raise RuntimeError('axclrtEngineExecute failed 0xffffffff')
        outputs = self._io[len(self._inputs[0]) :]
        self._execute(shape_group, outputs)
        return [self._fetch(outputs[i], self.get_outputs(shape_group)[i]) for i in ranks]

    def _execute(self, number: int, outputs: list[NDArray[np.uint8]]) -> None:
        group = self._model.groups[number]
        assert self._io is not None
        if group.delay_us:
            time.sleep(group.delay_us * 1e-6)
        inputs = [
            self._io[i][: tensor.nbytes].view(tensor.numpy_dtype).reshape(tensor.shape)
            for i, tensor in enumerate(group.inputs)
        ]
        results = self._compute(number, inputs)
        for buffer, result in zip(outputs, results or (), strict=results is not None):
            buffer[: result.nbytes] = np.frombuffer(result.tobytes(), np.uint8)

    @staticmethod
    def _fetch(buffer: NDArray[np.uint8], node: NodeArg) -> NDArray[Any]:
        size = node_bytes(node)
        LEDGER.invalidated_bytes += size
        fetched: NDArray[Any] = buffer[:size].copy().view(node.dtype).reshape(node.shape)
        return fetched

    def _allocate(self) -> list[NDArray[np.uint8]]:
        sizes = [
            max(sizes)
            for tensors in ('inputs', 'outputs')
            for sizes in zip(
                *([t.nbytes for t in getattr(g, tensors)] for g in self._model.groups),
                strict=True,
            )
        ]
        if LEDGER.runs_out(sum(sizes)):
            raise RuntimeError('axclrtMalloc failed 0xffffffff for input 0.')
        buffers = [np.full(size, 0xFF, np.uint8) for size in sizes]
        LEDGER.buffers.update({buffer.ctypes.data: buffer.nbytes for buffer in buffers})
        return buffers

    def _unload(self) -> None:
        if self._io is not None:
            for buffer in self._io:
                del LEDGER.buffers[buffer.ctypes.data]
            self._io = None
        if self._model_id[0]:  # type: ignore[index]  # a failed constructor fails here again
            LEDGER.handles.discard(self._model_id[0])  # type: ignore[index]
            self._model_id[0] = 0  # type: ignore[index]


def _read(source: str | bytes | os.PathLike[str]) -> Axmodel:
    if isinstance(source, bytes):
        content = source
    elif isinstance(source, (str, os.PathLike)):
        # A str only: the package calls str.encode on what it is given.
        path = source.encode('utf-8')  # type: ignore[union-attr]
        if not Path(path.decode()).is_file():
            raise RuntimeError('axclrtEngineLoadFromFile failed.')
        content = Path(path.decode()).read_bytes()
    else:
        raise TypeError(f"Unable to load model from type '{type(source)}'")
    model = load_model(content)
    if model is None:
        raise RuntimeError('axclrtEngineLoadFromFile failed.')
    return model


def _nodes(tensors: tuple[Tensor, ...], named: tuple[Tensor, ...]) -> list[NodeArg]:
    nodes = []
    for tensor, first in zip(tensors, named, strict=True):
        if first.dtype == 'bf16' and not _environment.knows_bf16():
            raise ValueError("Unsupported data type '<cdata 'axclrtEngineDataType' 0>'.")
        nodes.append(NodeArg(first.name, first.numpy_dtype, list(tensor.shape)))
    return nodes
