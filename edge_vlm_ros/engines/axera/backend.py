"""The seam between the engine and the two ways to drive the decoder layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.engines.axera.deepstack import Deepstack
from edge_vlm_ros.engines.axera.graphs import DecodeGroup, PrefillGroup
from edge_vlm_ros.engines.base import StopCheck

OnFile: TypeAlias = Callable[[], None]
"""Called after each file is loaded."""


def nothing() -> None:
    """Do nothing: the `OnFile` of a loading that nobody follows."""


class LayerBackend(Protocol):
    """Decoder layers and head of one model, and where their K and V rows live.

    One thread calls all of it. Hidden states are bfloat16 bit patterns (uint16).
    """

    @property
    def name(self) -> str:
        """'portable' or 'in place', for logs and reports."""
        ...

    @property
    def takes_chunks(self) -> bool:
        """Whether prefill groups may be run; if not, prompts go in token by token."""
        ...

    def offer_slots(self, wanted: int) -> int:
        """Say how many slots the caches may have.

        Args:
            wanted: So many at most; 0 = as memory allows: 2 or 1.
        """
        ...

    def select(self, slot: int) -> None:
        """Have the calls after this one use the caches of a slot, empty at first.

        Memory is taken when a slot is selected for the first time; the first slot has its own from
        the start. The kept hidden state stays what it is.

        Args:
            slot: From 0.

        Raises:
            DeviceError: The chip has no memory for it; the slot that was selected still is.
        """
        ...

    def prefill(  # noqa: PLR0913, PLR0917 (what a chunk is, and where it goes)
        self,
        group: PrefillGroup,
        embeds: NDArray[np.uint16],
        positions: NDArray[np.uint32],
        first_row: int,
        should_stop: StopCheck,
        deepstack: Deepstack | None = None,
    ) -> None:
        """Run one chunk through all layers; its last token's hidden state is kept for `head`.

        Rows [first_row, first_row + tokens) of every cache are written, and nothing that counts
        beside them.

        Args:
            group: With `group.history >= first_row` and `group.chunk >= tokens`.
            embeds: (tokens, hidden); the backend pads to the chunk.
            positions: (tokens,), or (3, tokens) where the model takes M-RoPE.
            first_row: Rows that the caches hold already.
            should_stop: Asked before each layer.
            deepstack: What is added between the first layers; None = nothing is.

        Raises:
            CancelledError: `should_stop` said so.
            DeviceError: The chip failed.
        """
        ...

    def step(
        self,
        group: DecodeGroup,
        embed: NDArray[np.uint16],
        position: NDArray[np.uint32],
        row: int,
        deepstack: Deepstack | None = None,
    ) -> None:
        """Run one token through all layers; its hidden state is kept for `head`.

        Args:
            group: With `group.capacity > row`.
            embed: (hidden,).
            position: (1,) or (3, 1); all alike where the group takes one row.
            row: The row of every cache that is written; rows [0, row) are seen.
            deepstack: What is added between the first layers, to one token; None = nothing is.

        Raises:
            DeviceError: The chip failed.
        """
        ...

    def head(self) -> NDArray[np.float32]:
        """Run final norm and LM head on the kept hidden state: float32, (vocabulary,).

        The array is valid until the next call.
        """
        ...

    def close(self) -> None:
        """Free the chip's memory; safe to call twice."""
        ...
