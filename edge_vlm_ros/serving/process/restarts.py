"""Whether another model process is started after one that is gone, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_vlm_ros.serving.process.child_run import End
    from edge_vlm_ros.serving.process.settings import ProcessSettings


class Restarts:
    """Counts starts and waits longer after each; begins anew after one that was healthy.

    Args:
        bounds: How often, and how long between.
    """

    def __init__(self, bounds: ProcessSettings) -> None:
        self._bounds = bounds
        self._next_backoff_s = bounds.first_backoff_s
        self.failed_starts = 0
        """Starts in a row that came to no loaded model."""

        self.number = 0
        """How often a process was started again."""

        self.backoff_s = 0.0
        """How long to wait before the next start."""

    def go_on(self, end: End) -> bool:
        """Take note of an end; return whether to start again."""
        bounds = self._bounds
        self.failed_starts = 0 if end.was_ready else self.failed_starts + 1
        if end.is_set_up_wrong or self.failed_starts >= bounds.max_failed_starts:
            return False
        if end.ready_s >= bounds.healthy_s:
            self._next_backoff_s = bounds.first_backoff_s
        self.number += 1
        self.backoff_s = self._next_backoff_s
        self._next_backoff_s = min(2 * self.backoff_s, bounds.max_backoff_s)
        return True
