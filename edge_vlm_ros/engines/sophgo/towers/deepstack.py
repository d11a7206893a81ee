"""Qwen3-VL's vision tower: any grid of patches up to a number, features of several of its layers.

Position embeddings come from a square table that is stretched over the image: the tower is told
between which of them each patch lies. Dynamic nets take no mask, so they are shown the moments of
a clip one by one, static ones as many as fit.

Source: sophgo/LLM-TPU, models/Qwen3_VL (python_demo); tpu_mlir, llm/Qwen3VLConverter.py (inputs).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edge_vlm_ros.core import EdgeVlmError, Spliced, VisionInputs
from edge_vlm_ros.engines.sophgo.expect import Wanted, expect, misfit, output_of
from edge_vlm_ros.engines.sophgo.masks import patch_mask, patch_positions
from edge_vlm_ros.engines.sophgo.nets import DType, NetInfo
from edge_vlm_ros.engines.sophgo.runtime import Runtime
from edge_vlm_ros.engines.sophgo.towers.patch import PatchRunner, PatchTower, check_patch_net
from edge_vlm_ros.engines.sophgo.towers.tower import MERGED
from edge_vlm_ros.vision import table_places

_COLUMNS = 3 * 2 * 16 * 16
"""Values of one patch: colours, frames, rows, columns."""

_CORNERS = 4
"""Position embeddings that a patch lies between."""


@dataclass(frozen=True, slots=True)
class DeepstackTower(PatchTower):
    """Any grid of patches up to a number: it runs the real one, and takes no mask."""

    columns: ClassVar = _COLUMNS
    signature: ClassVar[tuple[int, ...]] = (4, 2, _COLUMNS)
    models: ClassVar = 'Qwen3-VL, dynamic'
    family: ClassVar = 'qwen3_vl'
    takes_mask: ClassVar = False

    @classmethod
    def read(cls, net: NetInfo) -> DeepstackTower:
        """Read it from pixels, positions, places in the table and mask; see `Tower.read`."""
        patches = check_patch_net(net, _COLUMNS)
        if net.is_dynamic is cls.takes_mask:
            kind = 'dynamic' if net.is_dynamic else 'static'
            raise misfit(
                net, net.inputs[-1], 'a mask in a static net and none in a dynamic one', kind
            )
        inputs: list[Wanted] = [
            ((patches, _COLUMNS), DType.FLOAT32),
            ((patches, 2), DType.INT32),
            ((patches, _CORNERS), DType.INT32),
            ((patches, _CORNERS), DType.FLOAT32),
        ]
        if cls.takes_mask:
            inputs.append(((patches, patches), DType.FLOAT32))
        rows = output_of(net, 0)
        feature: Wanted = ((patches // MERGED, rows.shape[-1]), rows.dtype)
        expect(net, inputs, [feature] * len(net.outputs))
        layers = len(net.outputs) - 1
        if not layers:
            expected = 'features for the first decoder layers beside those in the prompt'
            raise misfit(net, rows, expected, 'none: this is not Qwen3-VL but a later model')
        return cls(net.name, patches, DType.FLOAT32, net.is_dynamic, most_side=0, layers=layers)

    def describe(self) -> str:
        """Say what it is."""
        padded = 'the real number' if self.is_dynamic else 'padded'
        return (
            f'{self.net}: up to {self.patches} patches ({padded}), '
            f'features for {self.layers} layers beside the prompt'
        )

    def start(self, runtime: Runtime, half: DType) -> DeepstackRunner:
        """Bind its net."""
        return DeepstackRunner(runtime, self, half)


class StaticDeepstackTower(DeepstackTower):
    """Any grid, padded to the tower's patches and masked."""

    signature: ClassVar[tuple[int, ...]] = (5, 2, _COLUMNS)
    models: ClassVar = 'Qwen3-VL, static'
    takes_mask: ClassVar = True


class DeepstackRunner(PatchRunner):
    """As `PatchRunner`, with places in the table of position embeddings."""

    def __init__(self, runtime: Runtime, tower: DeepstackTower, half: DType) -> None:
        super().__init__(runtime, tower, half)
        self._takes_mask = tower.takes_mask
        self._side = 0

    def encode(self, inputs: VisionInputs) -> Spliced:
        """Encode (time * height * width, 1536)."""
        if inputs.table_side < 1:
            raise EdgeVlmError(
                'the image comes without the size of the table of position embeddings: '
                'its family is not qwen3_vl'
            )
        if inputs.table_side != self._side:
            self._side, self._sent = inputs.table_side, None
        return super().encode(inputs)

    def _together(self, each: int) -> int:
        """Show the moments of a clip one by one where nothing hides one from another."""
        return super()._together(each) if self._takes_mask else 1

    def _send_grid(self, count: int, height: int, width: int, rows: int) -> None:
        """Send positions, places in the table and the mask of `count` frames."""
        _, positions, corners, weights, *masks = self._inputs
        places = table_places(height, width, self._side)
        positions.write(patch_positions(count, height, width))
        for tensor, values in zip((corners, weights), places, strict=True):
            tensor.write(np.tile(values, (count, 1)))
        for mask in masks:
            mask.write(patch_mask(count, height * width, rows, self._tower.mask))
