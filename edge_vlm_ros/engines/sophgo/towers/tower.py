"""What every vision tower is asked, and what they share."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import EdgeVlmError, EngineLimits, VisionFeatures, VisionInputs
from edge_vlm_ros.engines.sophgo.masks import from_host, to_half
from edge_vlm_ros.engines.sophgo.nets import DType, NetInfo
from edge_vlm_ros.engines.sophgo.runtime import Runtime
from edge_vlm_ros.engines.sophgo.tensors import DeviceTensor

PATCH_COLUMNS = 3 * 2 * 14 * 14
"""Values of one Qwen2-VL patch: colours, frames, rows, columns."""

MERGED = 4
"""Qwen2-VL patches that become one feature row."""


class TowerRunner(Protocol):
    """The net that makes features of an image, with its tensors."""

    def encode(self, inputs: VisionInputs) -> VisionFeatures:
        """Run the vision tower on one image.

        Raises:
            EdgeVlmError: The pixels are not what the tower takes.
            DeviceError: The chip failed.
        """
        ...


class Tower(Protocol):
    """A vision tower as its net declares it.

    Attributes:
        signature: By which it is known: how many inputs the net has, the rank of the first and,
            where that does not tell, the first one's last size.
        models: Whose it is, for messages.
        family: The family whose prompts go with it.
        is_attended: Whether cross-attention layers attend to its features; otherwise they are
            spliced in.
    """

    signature: ClassVar[tuple[int, ...]]
    models: ClassVar[str]
    family: ClassVar[str]
    is_attended: ClassVar[bool]

    @classmethod
    def read(cls, net: NetInfo) -> Tower:
        """Read it from a net with its signature.

        Raises:
            ModelFileError: A tensor is not what such a tower has.
        """
        ...

    def limit(self, limits: EngineLimits) -> EngineLimits:
        """Return limits with what this tower bounds."""
        ...

    def describe(self) -> str:
        """Say what it is, for reports."""
        ...

    def start(self, runtime: Runtime, half: DType) -> TowerRunner:
        """Bind its net; features come out in the language model's `half` type.

        Raises:
            DeviceError: There is not enough memory.
        """
        ...


class Features:
    """One of a tower's outputs, the first unless said, in the language model's half type."""

    def __init__(self, runtime: Runtime, net: str, half: DType, index: int = 0) -> None:
        info = runtime.nets[net].outputs[index]
        self._half = half
        self.tensor = runtime.allocate(info.shape, info.dtype)

    def read(self, rows: int) -> NDArray[Any]:
        """Read the first rows: (rows, hidden), bfloat16 as uint16 bits, float16 as float16."""
        width = self.tensor.shape[-1]
        values = self.tensor.read(rows * width)
        if self.tensor.dtype is not self._half:
            values = to_half(from_host(values, self.tensor.dtype), self._half)
        if self._half is DType.FLOAT16:
            values = values.view(np.float16)
        return values.reshape(rows, width)


def make_input(runtime: Runtime, net: str, index: int) -> DeviceTensor:
    """Make device memory for an input of a net, as large as it can be."""
    info = runtime.nets[net].inputs[index]
    return runtime.allocate(info.shape, info.dtype)


def check_patches(inputs: VisionInputs, columns: int = PATCH_COLUMNS) -> None:
    """Refuse pixels that are not the patches of their grid, `columns` values each.

    Raises:
        EdgeVlmError: They have another shape, or the grid has an odd side.
    """
    time, height, width = inputs.grid
    expected = (time * height * width, columns)
    if inputs.pixels.shape != expected or height % 2 or width % 2:
        raise EdgeVlmError(
            f'pixels have shape {inputs.pixels.shape}, the grid {inputs.grid} wants {expected} '
            'with even sides'
        )
