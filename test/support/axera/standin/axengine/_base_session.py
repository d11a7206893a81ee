"""What sessions on the chip and on a card have in common."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from axengine._node import NodeArg


class SessionOptions:
    """Empty, as in the package."""


class Session:
    """Shape groups, and the checks of `run` that look at group 0 whatever group runs."""

    def __init__(self) -> None:
        self._shape_count = 0
        self._inputs: list[list[NodeArg]] = []
        self._outputs: list[list[NodeArg]] = []

    def get_inputs(self, shape_group: int = 0) -> list[NodeArg]:
        """List a group's inputs; one past the last group is an IndexError, two a ValueError."""
        self._check_group(shape_group)
        return self._inputs[shape_group]

    def get_outputs(self, shape_group: int = 0) -> list[NodeArg]:
        """List a group's outputs."""
        self._check_group(shape_group)
        return self._outputs[shape_group]

    def run(
        self,
        output_names: list[str] | None,
        input_feed: dict[str, NDArray[Any]],
        run_options: object = None,
        shape_group: int = 0,
    ) -> list[NDArray[Any]]:
        """Run a group."""
        raise NotImplementedError

    def _check_group(self, shape_group: int) -> None:
        if shape_group > self._shape_count:
            raise ValueError(
                f"Shape group '{shape_group}' is out of range, total {self._shape_count}."
            )

    def _check_names(
        self, output_names: list[str] | None, input_feed: dict[str, NDArray[Any]]
    ) -> None:
        missing = [node.name for node in self.get_inputs() if node.name not in input_feed]
        if missing:
            raise ValueError(
                f'Required inputs ({missing}) are missing from input feed ({input_feed}).'
            )
        known = [node.name for node in self.get_outputs()]
        for name in output_names or ():
            if name not in known:
                raise ValueError(f"Output name '{name}' is not in model outputs name list.")

    def _ranks(self, output_names: list[str] | None, shape_group: int) -> list[int]:
        """Give the outputs in the order that the package gives them.

        It looks up each output's place in `output_names`, so a subset raises ValueError and three
        names in a circle come back turned the other way.
        """
        origin = [node.name for node in self.get_outputs(shape_group)]
        wanted = origin if output_names is None else output_names
        if not 0 <= shape_group < self._shape_count:
            raise ValueError(f'Invalid shape group: {shape_group}')
        return [wanted.index(name) for name in origin]


def check_feed(node: NodeArg, array: NDArray[Any]) -> None:
    """Refuse another shape or dtype, exactly."""
    assert list(node.shape) == list(array.shape) and node.dtype == array.dtype, (  # noqa: PT018
        f'model inputs({node.name}) expect shape {node.shape} and dtype {node.dtype}, '
        f'however gets input with shape {array.shape} and dtype {array.dtype}'
    )


def raw_bytes(array: NDArray[Any]) -> NDArray[Any]:
    """Give what is copied: the memory as it lies, in Fortran's order too."""
    is_whole = array.flags.c_contiguous or array.flags.f_contiguous
    return array if is_whole else np.ascontiguousarray(array)


def node_bytes(node: NodeArg) -> int:
    """Count a tensor's bytes."""
    return math.prod(node.shape) * node.dtype.itemsize
