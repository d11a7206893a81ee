"""A load that takes minutes, in few lines of the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_vlm_ros.serving import LoadProgress


class LoadingLog:
    """Picks the steps of a load that are worth a line: each tenth, not each of thirty layers."""

    def __init__(self) -> None:
        self._tenth = 0

    def is_worth_a_line(self, loading: LoadProgress) -> bool:
        """Return whether a load has come into another tenth than when this was asked last."""
        before, self._tenth = self._tenth, 10 * loading.loaded // loading.total
        return self._tenth not in {0, before}
