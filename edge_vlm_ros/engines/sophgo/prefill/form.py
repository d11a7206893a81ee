"""What every way to get prompts into the cache is asked, and what they share.

A way is how the prefill nets are compiled. Each runs a piece of a prompt, whose embeddings stand
in the first rows of `hidden`, after the rows that the cache holds, and says how long a piece may
be there. What it cannot run in one piece goes through the decode nets, token by token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.engines.base import StopCheck
from edge_vlm_ros.engines.sophgo.caches import LayerCache
from edge_vlm_ros.engines.sophgo.images import Images
from edge_vlm_ros.engines.sophgo.layers import DecoderShapes
from edge_vlm_ros.engines.sophgo.nets import DType, NetInfo, Nets
from edge_vlm_ros.engines.sophgo.runtime import Runtime
from edge_vlm_ros.engines.sophgo.tensors import DeviceTensor


@dataclass(frozen=True, slots=True)
class Run:
    """One piece of a prompt on its way through all layers.

    Attributes:
        held: Rows that the cache holds.
        positions: int32, (1 or 3, tokens).
        should_stop: Asked before each layer.
    """

    held: int
    positions: NDArray[np.int32] = field(repr=False)
    should_stop: StopCheck = field(repr=False)

    @property
    def tokens(self) -> int:
        """Of the piece."""
        return int(self.positions.shape[-1])


class PrefillRunner(Protocol):
    """The prefill nets, with their tensors."""

    @property
    def hidden(self) -> DeviceTensor:
        """Where the embeddings of a piece are to be written, (1, rows, hidden)."""
        ...

    @property
    def images(self) -> Images:
        """How images get to the layers."""
        ...

    @property
    def may_step(self) -> bool:
        """Whether few tokens may go through the decode nets instead.

        That can be cheaper where a short piece costs what the longest one costs.
        """
        ...

    @property
    def history(self) -> int:
        """The last row that a piece may begin after; 0 = an empty cache alone."""
        ...

    def room(self, held: int) -> int:
        """Return how many tokens one piece may have after `held`; 0 = none."""
        ...

    def run(self, run: Run) -> DeviceTensor:
        """Run a piece through all layers.

        Returns:
            The last hidden states, (1, rows, hidden); valid until the next run.

        Raises:
            CancelledError: `should_stop` said so; rows after `held` hold nothing of use.
            DeviceError: The chip failed.
        """
        ...


class PrefillForm(Protocol):
    """A way to get prompts into the cache, as its nets declare it."""

    @property
    def rows(self) -> int:
        """Tokens of the longest piece."""
        ...

    @property
    def is_fixed(self) -> bool:
        """Whether a piece costs what the longest one costs."""
        ...

    @classmethod
    def read(cls, nets: Nets, shapes: DecoderShapes) -> PrefillForm | None:
        """Read it from the first layer's nets; None = they are of another form.

        Raises:
            ModelFileError: They are of this form, and such as would not run right.
        """
        ...

    def check_layer(self, nets: Nets, index: int, shapes: DecoderShapes) -> None:
        """Check the prefill nets of one layer.

        Raises:
            ModelFileError: One is missing or not like the first layer's.
        """
        ...

    def own_values(self, shapes: DecoderShapes) -> int:
        """Return how many values of the half type running takes, in memory of the engine's."""
        ...

    def describe(self) -> str:
        """Say what it is, for reports."""
        ...

    def start(
        self, runtime: Runtime, shapes: DecoderShapes, caches: Sequence[LayerCache]
    ) -> PrefillRunner:
        """Bind its nets.

        Raises:
            DeviceError: There is not enough memory.
        """
        ...


def first_block(nets: Nets, shapes: DecoderShapes) -> NetInfo:
    """Return the prefill net by which a form is known."""
    return nets[f'block_{shapes.first}']


class Positions:
    """The position ids of static blocks; those after the prompt are any that the table has."""

    def __init__(self, runtime: Runtime, shapes: DecoderShapes) -> None:
        self.tensor = runtime.allocate(shapes.position_shape, DType.INT32)

    def send(self, positions: NDArray[np.int32]) -> None:
        """Send (1 or 3, tokens), filled up with 0."""
        padded = np.zeros((positions.shape[0], self.tensor.shape[-1]), np.int32)
        padded[:, : positions.shape[1]] = positions
        self.tensor.write(padded)


def send_mask(runtime: Runtime, mask: NDArray[Any], dtype: DType) -> DeviceTensor:
    """Send a mask of (rows, columns) that stays as it is."""
    tensor = runtime.allocate((1, 1, *mask.shape), dtype)
    tensor.write(mask)
    return tensor
