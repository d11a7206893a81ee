"""ONNX Runtime, thin and typed. The only module that imports it; nothing above sees its errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edge_vlm_ros.core import DeviceError, ModelFileError
from edge_vlm_ros.engines.cpu.external_data import check_external_data
from edge_vlm_ros.engines.vendor_words import brief

_FATAL = 4
# Everything worth saying is raised as an exception; the rest is about devices we do not ask for.
onnxruntime.set_default_logger_severity(_FATAL)

_DTYPES: dict[str, np.dtype[Any]] = {
    'tensor(float)': np.dtype(np.float32),
    'tensor(float16)': np.dtype(np.float16),
    'tensor(int64)': np.dtype(np.int64),
    'tensor(int32)': np.dtype(np.int32),
    'tensor(bool)': np.dtype(np.bool_),
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output as the file declares it.

    Attributes:
        name: Its name.
        dtype: Numpy type; None for a type numpy does not have.
        type_name: ONNX Runtime's word for the type.
        shape: Sizes; None where the file leaves one open.
    """

    name: str
    dtype: np.dtype[Any] | None
    type_name: str
    shape: tuple[int | None, ...]


class Graph:
    """One ONNX file, loaded.

    Args:
        path: The file; weights in files beside it or below are found by ONNX Runtime.
        threads: Of one operator.

    Raises:
        ModelFileError: The file is missing, truncated or no ONNX model, or wants weights from
            outside its folder.
    """

    def __init__(self, path: Path, threads: int) -> None:
        if not path.is_file():
            raise ModelFileError(f'{path}: no such file')
        check_external_data(path)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = _FATAL
        # Prompt lengths differ from run to run, so a plan of one run's memory helps no other.
        settings.enable_mem_pattern = False
        # Waiting threads would burn the cores that camera and middleware need.
        settings.add_session_config_entry('session.intra_op.allow_spinning', '0')
        try:
            session = onnxruntime.InferenceSession(
                str(path), settings, providers=['CPUExecutionProvider']
            )
        except Exception as error:  # ONNX Runtime's errors have no common type of their own
            raise ModelFileError(f'{path}: ONNX Runtime cannot load it: {brief(error)}') from error
        self.path = path
        self.inputs = _declared(session.get_inputs())
        self.outputs = _declared(session.get_outputs())
        self._session = session

    def run(self, names: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Compute the named outputs.

        Plain arrays on both sides: on the CPU ONNX Runtime borrows what it is fed and gives out
        its own memory; OrtValues made a step slower (`python -m support.tiny_model.measure`).

        Raises:
            DeviceError: ONNX Runtime failed, for want of memory for example.
        """
        try:
            results: list[NDArray[Any]] = self._session.run(names, feeds)
        except Exception as error:  # as above
            raise DeviceError(f'{self.path.name}: ONNX Runtime failed: {brief(error)}') from error
        return results


def _declared(nodes: Iterable[Any]) -> dict[str, TensorInfo]:
    return {
        node.name: TensorInfo(
            name=node.name,
            dtype=_DTYPES.get(node.type),
            type_name=node.type,
            shape=tuple(size if isinstance(size, int) else None for size in node.shape),
        )
        for node in nodes
    }
