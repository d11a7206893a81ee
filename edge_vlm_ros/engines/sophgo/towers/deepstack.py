"""Qwen3-VL's vision tower: patches of any grid up to a number, features of several of its layers.

Static nets take every patch up to that number and a mask, dynamic ones the real number and none.
So a dynamic one is shown the moments of a clip one by one, a static one as many as fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import (
    EdgeVlmError,
    EngineLimits,
    PromptTooLongError,
    Spliced,
    VisionInputs,
)
from edge_vlm_ros.engines.sophgo.expect import expect, input_of, misfit, output_of
from edge_vlm_ros.engines.sophgo.masks import patch_mask, patch_positions
from edge_vlm_ros.engines.sophgo.nets import DType, NetInfo
from edge_vlm_ros.engines.sophgo.runtime import Runtime
from edge_vlm_ros.engines.sophgo.tensors import DeviceTensor
from edge_vlm_ros.engines.sophgo.towers.tower import (
    MERGED,
    Features,
    check_patches,
    make_input,
    signature_of,
)
from edge_vlm_ros.vision import table_places

PATCH_COLUMNS = 3 * 2 * 16 * 16
"""Values of one patch: colours, frames, rows, columns."""

_CORNERS = 4
"""Position embeddings that a patch lies between."""


@dataclass(frozen=True, slots=True)
class DeepstackTower:
    """Any grid of patches up to a number.

    Attributes:
        net: 'vit'.
        patches: Most patches of one launch.
        is_dynamic: Whether it runs the real number of patches; otherwise it takes a mask.
        layers: Features beside those that stand in the prompt.
    """

    net: str
    patches: int
    is_dynamic: bool
    layers: int

    signature: ClassVar = (4, 2)
    models: ClassVar = 'Qwen3-VL; 5 where it is static'
    family: ClassVar = 'qwen3_vl'
    is_attended: ClassVar = False

    @classmethod
    def knows(cls, net: NetInfo) -> bool:
        """Know itself by four or five inputs, the first of rows of one patch of 16 px."""
        is_of_patches = signature_of(net) in {(4, 2), (5, 2)}
        return is_of_patches and net.inputs[0].shape[1] == PATCH_COLUMNS

    @classmethod
    def read(cls, net: NetInfo) -> DeepstackTower:
        """Read it from pixels, positions, places in the table and mask; see `Tower.read`."""
        patches = input_of(net, 0).shape[0]
        rows, width = patches // MERGED, output_of(net, 0).shape[-1]
        half = output_of(net, 0).dtype
        takes = [
            ((patches, PATCH_COLUMNS), DType.FLOAT32),
            ((patches, 2), DType.INT32),
            ((patches, _CORNERS), DType.INT32),
            ((patches, _CORNERS), DType.FLOAT32),
        ]
        if len(net.inputs) == 5:
            takes.append(((patches, patches), DType.FLOAT32))
        if net.is_dynamic is (len(net.inputs) == 5):
            mask = input_of(net, len(net.inputs) - 1)
            found = 'dynamic' if net.is_dynamic else 'static'
            raise misfit(net, mask, 'a mask in a static net and none in a dynamic one', found)
        expect(net, takes, [((rows, width), half)] * len(net.outputs))
        return cls(net.name, patches, net.is_dynamic, len(net.outputs) - 1)

    def limit(self, limits: EngineLimits) -> EngineLimits:
        """Bound the patches of an image."""
        return replace(limits, max_patches=self.patches)

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


class DeepstackRunner:
    """Any grid, with positions and places in the table that are sent when the grid changes."""

    def __init__(self, runtime: Runtime, tower: DeepstackTower, half: DType) -> None:
        self._runtime = runtime
        self._tower = tower
        inputs = [make_input(runtime, tower.net, i) for i in range(4 if tower.is_dynamic else 5)]
        self._pixels, self._positions, self._corners, self._weights = inputs[:4]
        self._mask = None if tower.is_dynamic else inputs[4]
        self._features = [Features(runtime, tower.net, half, i) for i in range(1 + tower.layers)]
        self._sent: tuple[int, int, int, int] | None = None

    def encode(self, inputs: VisionInputs) -> Spliced:
        """Encode (time * height * width, 1536)."""
        time, height, width = inputs.grid
        each = height * width
        check_patches(inputs, PATCH_COLUMNS)
        if inputs.table_side < 1:
            raise EdgeVlmError(
                'the image comes without the size of the table of position embeddings: '
                'its family is not qwen3_vl'
            )
        if each > self._tower.patches:
            raise PromptTooLongError(
                f'the image has {each} patches, the vision tower takes {self._tower.patches}'
            )
        together = 1 if self._tower.is_dynamic else self._tower.patches // each
        parts = []
        for start in range(0, time, together):
            count = min(together, time - start)
            patches = inputs.pixels[start * each : (start + count) * each]
            parts.append(self._launch(patches, (count, height, width, inputs.table_side)))
        rows, *deepstack = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Spliced(rows, tuple(deepstack))

    def _launch(
        self, patches: NDArray[np.float32], grid: tuple[int, int, int, int]
    ) -> list[NDArray[Any]]:
        used = len(patches)
        self._send_grid(grid)
        self._pixels.write(patches.reshape(-1))
        inputs = [self._pixels, self._positions, self._corners, self._weights]
        outputs = [features.tensor for features in self._features]
        if self._mask is None:
            inputs = [_first_rows(tensor, used) for tensor in inputs]
        else:
            inputs.append(self._mask)
        self._runtime.launch(self._tower.net, inputs, outputs)
        return [features.read(used // MERGED) for features in self._features]

    def _send_grid(self, grid: tuple[int, int, int, int]) -> None:
        """Send positions, places in the table and mask, unless the last image had the same."""
        if grid == self._sent:
            return
        self._sent = None
        count, height, width, side = grid
        corners, weights = table_places(height, width, side)
        self._positions.write(patch_positions(count, height, width).reshape(-1))
        self._corners.write(np.tile(corners, (count, 1)).reshape(-1))
        self._weights.write(np.tile(weights, (count, 1)).reshape(-1))
        if self._mask is not None:
            rows = self._tower.patches
            self._mask.write(patch_mask(count, height * width, rows, DType.FLOAT32))
        self._sent = grid


def _first_rows(tensor: DeviceTensor, rows: int) -> DeviceTensor:
    """Say that a dynamic net's input has so many rows."""
    return tensor.shorter((rows, *tensor.shape[1:]), tensor.size)
