"""The CPU engine's KV cache: the tensors that one run gives and the next one takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from edge_vlm_ros.engines.kv_length import KvLength

if TYPE_CHECKING:
    from edge_vlm_ros.engines.cpu.graphs import KvTensor


class CpuKvCache(KvLength):
    """Tensors of (1, heads, stored, head_dim), of which the first `length` rows count.

    A run's present becomes the next run's past without a copy. `truncate` only sets `length`; the
    rows beyond it are cut off when the next run needs the past.
    """

    def __init__(self, tensors: Sequence[KvTensor]) -> None:
        super().__init__()
        self._tensors = tensors
        self._values: list[NDArray[Any]] = []
        self._stored = 0

    def past(self) -> list[NDArray[Any]]:
        """Give the tensors, cut to `length`."""
        if not self._length:
            self._values = [tensor.empty() for tensor in self._tensors]
        elif self._stored != self._length:
            self._values = [value[:, :, : self._length] for value in self._values]
        self._stored = self._length
        return self._values

    def store(self, present: list[NDArray[Any]], tokens: int) -> None:
        """Take over a run's present, which holds `tokens` tokens; `grow` counts the new ones in.

        With fewer counted than stored, `past` cuts the rest off again.
        """
        self._values, self._stored = present, tokens

    def clear(self) -> None:
        """Let go of all memory."""
        self.truncate(0)
        self.store([], 0)
