"""Which vision tower a vision_encoder file holds: one for tiles, or one for patches (Qwen2-VL).

    vision_encoder  pixel_values (patches, 1176), grid_thw or image_grid_thw (1, 3) int64
                    -> image_features (patches / 4, hidden)

Patches come in the order of `vision.patches.patch_places`; 1176 and 4 are Qwen2-VL's.

Source: huggingface/transformers.js, modeling_qwen2_vl.js; `image_grid_thw` is the newer name.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import EdgeVlmError, ModelConfig, ModelFileError, VisionInputs
from edge_vlm_ros.engines.cpu.expect import (
    declared_input,
    declared_output,
    known_dtype,
    misfit,
    refuse_other_inputs,
)
from edge_vlm_ros.engines.cpu.graphs import DeclaredSizes, VisionEncoder
from edge_vlm_ros.engines.cpu.pace import Pace, PatchPace, fastest_s
from edge_vlm_ros.engines.cpu.runtime import Graph

_GRID_NAMES: Final = ('grid_thw', 'image_grid_thw')
_MATRIX: Final = 2
_TIMED_BLOCKS: Final = 4
"""Along each side of the image that is timed at load: 64 patches of Qwen2-VL."""


class VisionTower(Protocol):
    """What the engine asks of a vision tower, whatever it takes.

    Attributes:
        tile_px: Side of the square it takes; 0 = patches of any grid.
        wants_mrope: Whether its language model counts positions on three axes.
        hidden_size: Width of its features.
        timed_s: What the run took that is timed at load, seconds: a tile, or a small image.
    """

    tile_px: int
    wants_mrope: bool
    hidden_size: int
    timed_s: float

    @property
    def timed_rows(self) -> int:
        """How long a prompt is to be timed, tokens."""
        ...

    def pace(self, token_s: float) -> Pace | PatchPace:
        """Say what an image costs here, given the seconds of a token of a prompt."""
        ...

    def encode(self, inputs: VisionInputs) -> NDArray[Any]:
        """Encode one image: (tokens, hidden).

        Raises:
            EdgeVlmError: Its pixels are not what this tower takes.
            DeviceError: ONNX Runtime failed.
        """
        ...


def open_tower(graph: Graph, config: ModelConfig, declared: DeclaredSizes) -> VisionTower:
    """Read what kind of vision tower a graph is, try it, and time it where that matters.

    Raises:
        ModelFileError: It is none, or not the one that config.json describes.
        DeviceError: It loads, but cannot run.
    """
    if config.deepstack_layers:
        raise ModelFileError(
            f'{config.model.path}: the first {config.deepstack_layers} decoder layers add '
            'features of an image (deepstack); ONNX graphs have no place to add them in'
        )
    if any(name in graph.inputs for name in _GRID_NAMES):
        return PatchEncoder(graph, config)
    return VisionEncoder(graph, declared)


class PatchEncoder:
    """Patches and their grid -> image_features, one pair of frames at a time.

    Patches attend to those of their own pair only; whether an export keeps several pairs apart is
    not known, so it never sees several.
    """

    tile_px = 0
    wants_mrope = True

    def __init__(self, graph: Graph, config: ModelConfig) -> None:
        self._graph = graph
        self._merge = config.vision.count('spatial_merge_size')
        self._pixels = declared_input(graph, 'pixel_values', rank=2)
        name = next(name for name in _GRID_NAMES if name in graph.inputs)
        self._grid = declared_input(graph, name, rank=2)
        declared_output(graph, 'image_features')
        refuse_other_inputs(graph, {'pixel_values', name})
        self._row_length = self._declared_row_length(config)
        self.hidden_size = self._probe()
        self.timed_s = fastest_s(lambda: self._run_square(_TIMED_BLOCKS))

    @property
    def timed_rows(self) -> int:
        """How long a prompt is to be timed: long enough for most of its time to be work."""
        return 64

    def pace(self, token_s: float) -> PatchPace:
        """Say what an image costs here, given the seconds of a token of a prompt."""
        patches = (_TIMED_BLOCKS * self._merge) ** 2
        return PatchPace(self.timed_s / patches, token_s, self._merge**2)

    def encode(self, inputs: VisionInputs) -> NDArray[Any]:
        """Encode (pairs * rows * columns, 1176) into (tokens, hidden)."""
        pixels = inputs.pixels
        pairs, rows, columns = inputs.grid
        patches = pairs * rows * columns
        is_whole = patches > 0 and not (rows % self._merge or columns % self._merge)
        if pixels.shape != (patches, self._row_length) or not is_whole:
            raise EdgeVlmError(
                f'pixels have shape {pixels.shape} in a grid of {inputs.grid}, expected '
                f'(patches, {self._row_length}), rows and columns multiples of {self._merge}'
            )
        parts = np.split(pixels, pairs)
        return np.concatenate([self._run(part, rows, columns) for part in parts])

    def _run(self, pixels: NDArray[np.float32], rows: int, columns: int) -> NDArray[Any]:
        graph = self._graph
        grid = np.array([[1, rows, columns]], known_dtype(graph, self._grid))
        feeds = {
            'pixel_values': pixels.astype(known_dtype(graph, self._pixels), copy=False),
            self._grid.name: grid,
        }
        (features,) = graph.run(['image_features'], feeds)
        if features.ndim < _MATRIX:
            raise misfit(graph, 'image_features', 'rows of features', f'{list(features.shape)}')
        return features.reshape(-1, features.shape[-1])

    def _declared_row_length(self, config: ModelConfig) -> int:
        """Count the values of a patch, as config.json says; the graph may say so, too."""
        vision = config.vision
        side, frames = vision.count('patch_size'), vision.count('temporal_patch_size')
        declared = 3 * frames * side**2
        found = self._pixels.shape[1]
        if found not in {None, declared}:
            raise misfit(
                self._graph,
                'pixel_values',
                f'{declared} values a patch ({config.model.path})',
                f'{found}',
            )
        return declared

    def _probe(self) -> int:
        """Run one block, so that a graph that cannot run is refused now; return its width."""
        rows = self._run_square(1)
        if len(rows) != 1:
            raise misfit(self._graph, 'image_features', '1 row of a block', f'{len(rows)}')
        return int(rows.shape[1])

    def _run_square(self, blocks: int) -> NDArray[Any]:
        side = blocks * self._merge
        return self._run(np.ones((side * side, self._row_length), np.float32), side, side)
