"""Qwen2-VL's vision tower: any grid of patches up to a number, four patches to a row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import (
    BadRequestError,
    EngineLimits,
    PromptTooLongError,
    Spliced,
    VisionInputs,
)
from edge_vlm_ros.engines.sophgo.expect import input_of, misfit, output_of
from edge_vlm_ros.engines.sophgo.masks import patch_mask, patch_positions
from edge_vlm_ros.engines.sophgo.nets import DType, NetInfo
from edge_vlm_ros.engines.sophgo.runtime import Runtime
from edge_vlm_ros.engines.sophgo.towers.tower import (
    MERGED,
    PATCH_COLUMNS,
    Features,
    check_patches,
    make_input,
    signature_of,
)

_OLD_ROTARY_ROWS = 100
"""Rows of the rotary table in Qwen2-VL vision towers that were exported for video."""


@dataclass(frozen=True, slots=True)
class PatchTower:
    """Any grid of patches up to a number.

    Attributes:
        net: 'vit'.
        patches: Most patches of one launch.
        mask: Type of the attention mask.
        is_dynamic: Whether it runs the real number of patches.
        most_side: Most patches along one side; 0 = any.
    """

    net: str
    patches: int
    mask: DType
    is_dynamic: bool
    most_side: int

    signature: ClassVar = (3, 2)
    models: ClassVar = 'Qwen2-VL'
    family: ClassVar = 'qwen2_vl'
    is_attended: ClassVar = False

    @classmethod
    def knows(cls, net: NetInfo) -> bool:
        """Know itself by how many inputs there are; see `Tower.knows`."""
        return signature_of(net) == cls.signature

    @classmethod
    def read(cls, net: NetInfo) -> PatchTower:
        """Read it from pixels, positions and mask; see `Tower.read`."""
        pixels, features = input_of(net, 0), output_of(net, 0)
        patches = pixels.shape[0]
        if pixels.shape[1] != PATCH_COLUMNS:
            raise misfit(net, pixels, f'(patches, {PATCH_COLUMNS})', f'{pixels.shape}')
        positions, mask = input_of(net, 1), input_of(net, 2)
        if positions.shape != (patches, 2) or positions.dtype is not DType.INT32:
            raise misfit(net, positions, f'({patches}, 2) int32', f'{positions.shape}')
        if mask.shape[-2:] != (patches, patches) or prod(mask.shape) != patches**2:
            raise misfit(net, mask, f'(1, {patches}, {patches})', f'{mask.shape}')
        if prod(features.shape[:-1]) * MERGED != patches:
            raise misfit(net, features, f'{patches // MERGED} rows', f'{features.shape}')
        # The video exports, told by their float32 output, have rotary tables of a fixed length.
        most_side = _OLD_ROTARY_ROWS if features.dtype is DType.FLOAT32 else 0
        return cls(net.name, patches, mask.dtype, net.is_dynamic, most_side)

    def limit(self, limits: EngineLimits) -> EngineLimits:
        """Bound the patches of an image, and of its sides."""
        return replace(limits, max_patches=self.patches, max_grid_side=self.most_side)

    def describe(self) -> str:
        """Say what it is."""
        padded = 'the real number' if self.is_dynamic else 'padded'
        return f'{self.net}: up to {self.patches} patches ({padded}), mask {self.mask.value}'

    def start(self, runtime: Runtime, half: DType) -> PatchRunner:
        """Bind its net."""
        return PatchRunner(runtime, self, half)


class PatchRunner:
    """Any grid, padded to the tower's patches; frames see only themselves.

    Padding is hidden from the image's patches. Frames of a clip are encoded in as few launches as
    the tower's patches allow.
    """

    def __init__(self, runtime: Runtime, tower: PatchTower, half: DType) -> None:
        self._runtime = runtime
        self._tower = tower
        self._pixels = make_input(runtime, tower.net, 0)
        self._positions = make_input(runtime, tower.net, 1)
        self._mask = make_input(runtime, tower.net, 2)
        self._features = Features(runtime, tower.net, half)
        self._sent: tuple[int, int, int] | None = None

    def encode(self, inputs: VisionInputs) -> Spliced:
        """Encode (time * height * width, 1176)."""
        time, height, width = inputs.grid
        each = height * width
        check_patches(inputs)
        most = self._tower.most_side
        if most and max(height, width) > most:
            raise BadRequestError(
                f'the image has {height} x {width} patches, the vision tower takes {most} a side'
            )
        together = self._tower.patches // each
        if not together:
            raise PromptTooLongError(
                f'the image has {each} patches, the vision tower takes {self._tower.patches}'
            )
        rows = []
        for start in range(0, time, together):
            count = min(together, time - start)
            patches = inputs.pixels[start * each : (start + count) * each]
            rows.append(self._encode_frames(patches, count, height, width))
        return Spliced(np.concatenate(rows))

    def _encode_frames(
        self, patches: NDArray[np.float32], count: int, height: int, width: int
    ) -> NDArray[Any]:
        used = len(patches)
        self._send_grid(count, height, width)
        self._pixels.write(patches)
        pixels, positions, mask = self._pixels, self._positions, self._mask
        if self._tower.is_dynamic:
            pixels = pixels.shorter((used, PATCH_COLUMNS), pixels.size)
            positions = positions.shorter((used, 2), positions.size)
            mask = mask.shorter((*mask.shape[:-2], used, used), mask.size)
        net = self._tower.net
        self._runtime.launch(net, [pixels, positions, mask], [self._features.tensor])
        return self._features.read(used // MERGED)

    def _send_grid(self, count: int, height: int, width: int) -> None:
        """Send mask and positions, unless the last image had the same grid."""
        grid = (count, height, width)
        if grid == self._sent:
            return
        self._sent = None
        rows = count * height * width if self._tower.is_dynamic else self._tower.patches
        self._positions.write(patch_positions(count, height, width))
        self._mask.write(patch_mask(count, height * width, rows, self._tower.mask))
        self._sent = grid
