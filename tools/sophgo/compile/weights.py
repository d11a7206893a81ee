"""Random weights that survive every quantisation of the fixtures without a loss.

Each group of 64 inputs of a matrix lies on one grid of 16 levels with a power of two between them,
and both ends of the grid occur. So float32, bfloat16, float16 and 4 bit (group 64) are the same
numbers, one float reference serves all builds, and the files compress to 4 bits a weight.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.engines.bf16 import from_bf16

Array = NDArray[np.float32]
Weights = Mapping[str, Array]

GROUP: Final = 64
_LEVELS: Final = 16
_ZERO: Final = 8
# Step such that a matrix keeps the variance of its input, as 1/sqrt(inputs) would.
_LEVEL_DEVIATION: Final = 4.6


class Draw:
    """A source of random weights.

    Args:
        seed: Of NumPy's default generator.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def matrix(self, rows: int, inputs: int, scale: float = 1.0) -> Array:
        """Return (rows, inputs) on the grid; `scale` times the usual size, to a power of two."""
        step = 2.0 ** np.round(np.log2(scale * 0.9 / np.sqrt(inputs) / _LEVEL_DEVIATION))
        levels = self._random.integers(0, _LEVELS, (rows, inputs))
        for first in range(0, inputs, GROUP):
            width = min(GROUP, inputs - first)
            order = np.argsort(self._random.random((rows, width)), axis=1) + first
            np.put_along_axis(levels, order[:, :1], 0, axis=1)
            np.put_along_axis(levels, order[:, 1:2], _LEVELS - 1, axis=1)
        values: NDArray[np.float64] = (levels - _ZERO) * step
        return values.astype(np.float32)

    def kernel(self, rows: int, *sides: int, scale: float = 1.0) -> Array:
        """Return the weights of a convolution, (rows, *sides)."""
        return self.matrix(rows, int(np.prod(sides)), scale).reshape(rows, *sides)

    def table(self, *shape: int, size: float) -> Array:
        """Return numbers of about the given size, in steps of an eighth of it."""
        step = 2.0 ** np.round(np.log2(size / 4))
        values: NDArray[np.float64] = self._random.integers(-8, 9, shape) * step
        return values.astype(np.float32)

    def gain(self, width: int) -> Array:
        """Return the factors of a norm, around 1."""
        return (1 + self._random.integers(-4, 5, width) / 32).astype(np.float32)

    def bias(self, width: int) -> Array:
        """Return a bias."""
        return self.table(width, size=0.06)


def save_checkpoint(weights: Mapping[str, NDArray[np.generic]], path: Path) -> None:
    """Write a safetensors file: uint16 arrays as BF16, float16 as F16, int32 as I32."""
    kinds = {'uint16': 'BF16', 'float16': 'F16', 'float32': 'F32', 'int32': 'I32'}
    header: dict[str, object] = {'__metadata__': {'format': 'pt'}}
    size = 0
    for name, array in weights.items():
        header[name] = {
            'dtype': kinds[array.dtype.name],
            'shape': list(array.shape),
            'data_offsets': [size, size + array.nbytes],
        }
        size += array.nbytes
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    with path.open('wb') as file:
        file.write(struct.pack('<Q', len(text)) + text)
        for array in weights.values():
            file.write(np.ascontiguousarray(array).tobytes())


def load_checkpoint(path: Path) -> dict[str, Array]:
    """Read a safetensors file of BF16, F16 or F32 as float32."""
    data = path.read_bytes()
    (length,) = struct.unpack('<Q', data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop('__metadata__', None)
    hosts = {'BF16': np.uint16, 'F16': np.float16, 'F32': np.float32}
    result = {}
    for name, entry in header.items():
        first, last = (8 + length + n for n in entry['data_offsets'])
        values = np.frombuffer(data[first:last], hosts[entry['dtype']]).reshape(entry['shape'])
        result[name] = (
            from_bf16(values) if values.dtype == np.uint16 else values.astype(np.float32)
        )
    return result


def awq(weights: Weights) -> dict[str, NDArray[np.generic]]:
    """Return a float16 checkpoint whose decoder matrices are AWQ's 4 bits (gemm, group 64).

    Lossless on the grid: the step is the scale, the grid's middle the zero.
    """
    result: dict[str, NDArray[np.generic]] = {}
    for name, values in weights.items():
        if name.startswith('language_model.model.layers.') and name.endswith('_proj.weight'):
            stem = name.removesuffix('.weight')
            result.update({f'{stem}.{k}': v for k, v in _awq_matrix(values).items()})
        else:
            result[name] = values.astype(np.float16)
    return result


# Which nibble of a 32-bit word holds column 8 n + i. Source: AutoAWQ's gemm layout.
_AWQ_ORDER: Final = (0, 4, 1, 5, 2, 6, 3, 7)


def _awq_matrix(values: Array) -> dict[str, NDArray[np.generic]]:
    columns = values.T  # (inputs, rows)
    inputs, rows = columns.shape
    groups = columns.reshape(inputs // GROUP, GROUP, rows)
    step = (groups.max(1) - groups.min(1)) / (_LEVELS - 1)
    zero = np.full((inputs // GROUP, rows), _ZERO, np.uint32)
    levels = np.rint(groups / step[:, None] + _ZERO).astype(np.uint32).reshape(inputs, rows)
    return {
        'qweight': _packed(levels),
        'qzeros': _packed(zero),
        'scales': step.astype(np.float16),
    }


def _packed(levels: NDArray[np.uint32]) -> NDArray[np.int32]:
    words = np.zeros((levels.shape[0], levels.shape[1] // 8), np.uint32)
    for place, nibble in enumerate(_AWQ_ORDER):
        words |= levels[:, place::8] << np.uint32(4 * nibble)
    return words.view(np.int32)
