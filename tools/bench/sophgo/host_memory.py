"""A runtime whose device memory is host memory: what a vision tower's runner does, without a chip.

Copies are copies, as a driver makes them; a launch computes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.engines.sophgo.nets import AddressMode, DType, NetInfo, Shape, TensorInfo


class HostTensor:
    """Memory of one tensor."""

    def __init__(self, shape: Shape, dtype: DType) -> None:
        self.shape, self.dtype = shape, dtype
        self.size = prod(shape)
        self._memory: NDArray[Any] = np.zeros(self.size, dtype.host)

    def write(self, values: NDArray[Any], offset: int = 0) -> None:
        """Copy an array in."""
        assert values.dtype == self._memory.dtype, (values.dtype, self._memory.dtype)
        self._memory[offset : offset + values.size] = values.reshape(-1)

    def read(self, count: int = 0, offset: int = 0) -> NDArray[Any]:
        """Copy elements out."""
        values: NDArray[Any] = self._memory[offset : offset + (count or self.size)].copy()
        return values


class HostRuntime:
    """Nets that compute nothing.

    Args:
        net: The one there is.
    """

    def __init__(self, net: NetInfo) -> None:
        self.nets = {net.name: net}

    def allocate(self, shape: Shape, dtype: DType) -> HostTensor:
        """Make memory, filled with zeros."""
        return HostTensor(shape, dtype)

    def launch(
        self, net: str, inputs: Sequence[HostTensor], outputs: Sequence[HostTensor]
    ) -> None:
        """Compute nothing."""


def tower_net(patches: int, masks: int, hidden: int) -> NetInfo:
    """Describe a tower as `llm_convert` makes it: with one mask, or with two and an index."""
    square = (1, 1, patches, patches)
    inputs = [
        ('input_states', DType.FLOAT32, (patches, 1176)),
        ('position_ids', DType.INT32, (patches, 2)),
        *((f'mask_{i}', DType.FLOAT32, square) for i in range(masks)),
    ]
    if masks > 1:
        inputs.append(('reverse_index', DType.INT32, (patches // 4,)))
    return _static_net(inputs, [(patches // 4, hidden)])


def deepstack_net(patches: int, layers: int, hidden: int) -> NetInfo:
    """Describe Qwen3-VL's static tower as `llm_convert` makes it."""
    inputs = [
        ('input_states', DType.FLOAT32, (patches, 1536)),
        ('position_ids', DType.INT32, (patches, 2)),
        ('pos_idx', DType.INT32, (patches, 4)),
        ('pos_weight', DType.FLOAT32, (patches, 4)),
        ('attention_mask', DType.FLOAT32, (1, 1, patches, patches)),
    ]
    return _static_net(inputs, [(patches // 4, hidden)] * (1 + layers))


def _static_net(inputs: Sequence[tuple[str, DType, Shape]], outputs: Sequence[Shape]) -> NetInfo:
    return NetInfo(
        name='vit',
        is_dynamic=False,
        address_mode=AddressMode.BASIC,
        inputs=tuple(TensorInfo(name, dtype, (shape,)) for name, dtype, shape in inputs),
        outputs=tuple(
            TensorInfo(f'rows_{i}', DType.BFLOAT16, (shape,)) for i, shape in enumerate(outputs)
        ),
    )
