"""Qwen3-VL's vision tower as the made-up chip computes it: bytes in, four kinds of rows out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.vision import patch_places
from support.axera.axmodel_file import Group
from support.sophgo.reference import qwen3vl_vision

_MARK = 'weight of '


def tower_arrays(
    config: Mapping[str, Any], weights: Mapping[str, NDArray[Any]], grid: tuple[int, int]
) -> dict[str, NDArray[Any]]:
    """Give the arrays of a file: what `DeepTower` reads back.

    Args:
        config: config.json.
        weights: By the publisher's names; the tower's alone are kept.
        grid: The one that the file is made for, rows and columns of patches.
    """
    kept = {f'{_MARK}{name}': array for name, array in weights.items() if '.visual.' in name}
    text = np.frombuffer(json.dumps(config).encode(), np.uint8)
    return {'deepstack': text, 'grid': np.array(grid), **kept}


class DeepTower:
    """One grid, compiled in; colours last, 0 to 255, normalised here.

    Args:
        arrays: Of the file.
        group: Its one shape group.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], group: Group) -> None:
        self._group = group
        self._config = json.loads(arrays['deepstack'].tobytes())
        self._places = patch_places(*arrays['grid'].tolist())
        self._weights = {
            name.removeprefix(_MARK): array.astype(np.float32)
            for name, array in arrays.items()
            if name.startswith(_MARK)
        }

    def run(self, number: int, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Encode uint8 (1, patches, values, 3)."""
        assert number == 0, number
        scaled = (inputs[0][0].astype(np.float32) / 255 - 0.5) / 0.5
        patches = scaled.transpose(0, 2, 1).reshape(len(scaled), -1)
        rows, deepstack = qwen3vl_vision(self._config, self._weights, patches, self._places)
        outputs = zip(self._group.outputs, [rows, *deepstack], strict=True)
        return [
            found.reshape(tensor.shape).astype(tensor.numpy_dtype) for tensor, found in outputs
        ]
