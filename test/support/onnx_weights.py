"""The weights inside the ONNX files of a model folder, such as the demo model that is shipped."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

GRAPHS: Final = ('vision_encoder', 'embed_tokens', 'decoder_model_merged')
"""The files of a model in the split layout, in `onnx/`."""


def graph_files(folder: Path) -> list[Path]:
    """Return the paths of a model folder's graphs."""
    return [folder / 'onnx' / f'{name}.onnx' for name in GRAPHS]


def read_weights(files: Iterable[Path]) -> dict[str, NDArray[np.float16]]:
    """Return the checkpoint's tensors under their own names, exactly, from a model's graphs.

    The demo model keeps them as float16, those of matrix products transposed, each followed by a
    Cast (tools/demo_model/onnx_graphs.py).
    """
    found: dict[str, NDArray[np.float16]] = {}
    for file in files:
        model = onnx.load(file)
        products = {n.input[1] for n in model.graph.node if n.op_type == 'MatMul'}
        for tensor in model.graph.initializer:
            if tensor.data_type != TensorProto.FLOAT16:
                continue
            array = numpy_helper.to_array(tensor)
            if f'{tensor.name}.float32' in products:
                array = np.ascontiguousarray(array.T)
            found[tensor.name] = array
    return found
