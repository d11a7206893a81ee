"""The public repositories' variants of a graph: half precision, 8 bit, 4 bit, weights beside it.

Made with ONNX Runtime's own tools, as their publishers make them; 4 bit is written here, for that
tool wants one more package.

Source: huggingface/transformers.js, scripts/quantize.py (which tool and which settings);
microsoft/onnxruntime, docs/ContribOperators.md (MatMulNBits).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_bnb4_quantizer import MatMulBnb4Quantizer
from onnxruntime.transformers.float16 import convert_float_to_float16

from support.onnx_weights import GRAPHS, graph_files

VARIANTS = ('fp16', 'int8', 'uint8', 'quantized', 'q4', 'q4f16', 'bnb4')
_BLOCK = 32
_ACCURACY_LEVEL = 4
_NF4 = 1


def make_variant(folder: Path, variant: str, to: Path) -> Path:
    """Write a copy of a model folder whose graphs are all of one variant; return it."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns('*.onnx'))
    for source in graph_files(folder):
        target = to / 'onnx' / f'{source.stem}_{variant}.onnx'
        if variant in {'int8', 'uint8', 'quantized'}:
            kind = QuantType.QInt8 if variant == 'int8' else QuantType.QUInt8
            quantize_dynamic(source, target, weight_type=kind)
        else:
            onnx.save(_converted(onnx.load(source), variant), target)
    return to


def put_weights_beside(folder: Path) -> list[Path]:
    """Move the weights of a folder's graphs into files of their own; return these."""
    moved = []
    for name in GRAPHS:
        path = folder / 'onnx' / f'{name}.onnx'
        beside = f'{name}.onnx_data'
        onnx.save(
            onnx.load(path), path, save_as_external_data=True, location=beside, size_threshold=256
        )
        moved.append(path.parent / beside)
    return moved


def _converted(model: Any, variant: str) -> Any:
    match variant:
        case 'fp16':
            return convert_float_to_float16(model)
        case 'q4':
            return _four_bit(model)
        case 'q4f16':
            return convert_float_to_float16(_four_bit(model))
        case 'bnb4':
            blocks = MatMulBnb4Quantizer(model, _NF4, _BLOCK)
            blocks.process()
            return blocks.model.model
        case _:
            raise ValueError(variant)


def _four_bit(model: Any) -> Any:
    """Make every product with a weight one with blocks of 4 bits, each with a scale of its own."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != 'MatMul' or node.input[1] not in weights:
            continue
        tensor = weights.pop(node.input[1])
        matrix = numpy_helper.to_array(tensor)
        packed, scales = _packed(matrix)
        graph.initializer.remove(tensor)
        for name, array in (('bits', packed), ('scales', scales)):
            graph.initializer.append(numpy_helper.from_array(array, f'{tensor.name}.{name}'))
        node.op_type, node.domain = 'MatMulNBits', 'com.microsoft'
        node.input[1:] = [f'{tensor.name}.bits', f'{tensor.name}.scales']
        sizes = {'K': matrix.shape[0], 'N': matrix.shape[1], 'bits': 4, 'block_size': _BLOCK}
        for key, value in {**sizes, 'accuracy_level': _ACCURACY_LEVEL}.items():
            node.attribute.append(helper.make_attribute(key, value))
    model.opset_import.append(helper.make_opsetid('com.microsoft', 1))
    return model


def _packed(matrix: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Pack (K, N) into (N, K / block, block / 2): two numbers a byte, the first low; 8 is 0."""
    filled = np.pad(matrix, ((0, -len(matrix) % _BLOCK), (0, 0)))
    blocks = np.ascontiguousarray(filled.T).reshape(matrix.shape[1], -1, _BLOCK)
    scales = np.abs(blocks).max(axis=-1, keepdims=True) / 7
    scales[scales == 0] = 1
    levels = np.clip(np.round(blocks / scales) + 8, 0, 15).astype(np.uint8)
    packed = levels[..., ::2] | levels[..., 1::2] << 4
    return packed, scales.reshape(-1).astype(np.float32)
