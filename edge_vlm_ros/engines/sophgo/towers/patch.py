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
from edge_vlm_ros.engines.sophgo.nets import DType, NetInfo, Shape
from edge_vlm_ros.engines.sophgo.runtime import Runtime
from edge_vlm_ros.engines.sophgo.tensors import DeviceTensor
from edge_vlm_ros.engines.sophgo.towers.tower import (
    MERGED,
    PATCH_COLUMNS,
    Features,
    check_patches,
    make_input,
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
        layers: Features that the first decoder layers add, beside those in the prompt.
    """

    net: str
    patches: int
    mask: DType
    is_dynamic: bool
    most_side: int
    layers: int = 0

    columns: ClassVar = PATCH_COLUMNS
    signature: ClassVar[tuple[int, ...]] = (3, 2)
    models: ClassVar = 'Qwen2-VL'
    family: ClassVar = 'qwen2_vl'
    is_attended: ClassVar = False

    @classmethod
    def read(cls, net: NetInfo) -> PatchTower:
        """Read it from pixels, positions and mask; see `Tower.read`."""
        features = output_of(net, 0)
        patches = check_patch_net(net)
        mask = check_patch_mask(net, 2, patches)
        # The video exports, told by their float32 output, have rotary tables of a fixed length.
        most_side = _OLD_ROTARY_ROWS if features.dtype is DType.FLOAT32 else 0
        return cls(net.name, patches, mask, net.is_dynamic, most_side)

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


def check_patch_net(net: NetInfo, columns: int = PATCH_COLUMNS) -> int:
    """Check pixels, positions and features; return how many patches the net takes.

    Args:
        net: The tower's.
        columns: Values of one patch.

    Raises:
        ModelFileError: One is not what a tower for patches has.
    """
    pixels, positions, features = input_of(net, 0), input_of(net, 1), output_of(net, 0)
    patches = pixels.shape[0]
    if pixels.shape[1] != columns:
        raise misfit(net, pixels, f'(patches, {columns})', f'{pixels.shape}')
    if positions.shape != (patches, 2) or positions.dtype is not DType.INT32:
        raise misfit(net, positions, f'({patches}, 2) int32', f'{positions.shape}')
    if prod(features.shape[:-1]) * MERGED != patches:
        raise misfit(net, features, f'{patches // MERGED} rows', f'{features.shape}')
    return patches


def check_patch_mask(net: NetInfo, index: int, patches: int) -> DType:
    """Check a mask over the patches; return its type.

    Raises:
        ModelFileError: It has other sizes.
    """
    mask = input_of(net, index)
    if mask.shape[-2:] != (patches, patches) or prod(mask.shape) != patches**2:
        raise misfit(net, mask, f'(1, {patches}, {patches})', f'{mask.shape}')
    return mask.dtype


class PatchRunner:
    """Any grid, padded to the tower's patches; frames see only themselves.

    Padding is hidden from the image's patches. Frames of a clip are encoded in as few launches as
    the tower's patches allow.
    """

    def __init__(self, runtime: Runtime, tower: PatchTower, half: DType) -> None:
        self._runtime = runtime
        self._tower = tower
        count = len(runtime.nets[tower.net].inputs)
        self._inputs = [make_input(runtime, tower.net, i) for i in range(count)]
        self._features = [Features(runtime, tower.net, half, i) for i in range(1 + tower.layers)]
        self._sent: tuple[int, int, int] | None = None

    def encode(self, inputs: VisionInputs) -> Spliced:
        """Encode (time * height * width, values of a patch)."""
        time, height, width = inputs.grid
        each = height * width
        check_patches(inputs, self._tower.columns)
        most = self._tower.most_side
        if most and max(height, width) > most:
            raise BadRequestError(
                f'the image has {height} x {width} patches, the vision tower takes {most} a side'
            )
        if each > self._tower.patches:
            raise PromptTooLongError(
                f'the image has {each} patches, the vision tower takes {self._tower.patches}'
            )
        together = self._together(each)
        parts = []
        for start in range(0, time, together):
            count = min(together, time - start)
            patches = inputs.pixels[start * each : (start + count) * each]
            parts.append(self._encode_frames(patches, count, height, width))
        rows, *deepstack = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Spliced(rows, tuple(deepstack))

    def _together(self, each: int) -> int:
        """Say how many frames of `each` patches go into one launch, at least 1."""
        return self._tower.patches // each

    def _encode_frames(
        self, patches: NDArray[np.float32], count: int, height: int, width: int
    ) -> list[NDArray[Any]]:
        used = len(patches)
        grid = (count, height, width)
        if grid != self._sent:  # what belongs to the grid lies there since the last image
            self._sent = None
            self._send_grid(*grid, used if self._tower.is_dynamic else self._tower.patches)
            self._sent = grid
        self._send_pixels(patches)
        inputs = self._inputs
        if self._tower.is_dynamic:
            inputs = [_shorter(tensor, used) for tensor in inputs]
        outputs = [features.tensor for features in self._features]
        self._runtime.launch(self._tower.net, inputs, outputs)
        return [features.read(used // MERGED) for features in self._features]

    def _send_pixels(self, patches: NDArray[np.float32]) -> None:
        """Send the patches of one launch."""
        self._inputs[0].write(patches)

    def _send_grid(self, count: int, height: int, width: int, rows: int) -> None:
        """Send positions and mask of `count` frames; the net has `rows` patches."""
        _, positions, mask = self._inputs
        positions.write(patch_positions(count, height, width))
        mask.write(patch_mask(count, height * width, rows, self._tower.mask))


def _shorter(tensor: DeviceTensor, used: int) -> DeviceTensor:
    """Say that an input has the patches that are used, and no more.

    That is told by its shape: a row for each block of patches, a mask, or a row for each patch.
    """
    first, *others = tensor.shape
    shape: Shape = (used, *others)
    if not others:
        shape = (used // MERGED,)
    elif first == 1:
        shape = (*tensor.shape[:-2], used, used)
    return tensor.shorter(shape, tensor.size)
