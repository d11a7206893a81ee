"""Servers that say whether they answer, as a fallback and a node want to know."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edge_vlm_ros.serving.remote.pipeline import RemotePipeline
from edge_vlm_ros.serving.standing import OnStanding, Standing

if TYPE_CHECKING:
    from edge_vlm_ros.serving.remote.fleet import FleetHealth
    from edge_vlm_ros.serving.standing import TellsStanding


class TellingRemote(RemotePipeline):
    """A `RemotePipeline` with a standing (`TellsStanding`)."""

    @property
    def standing(self) -> Standing:
        """Whether a server answers, and since when none does."""
        return self._standing_of(self.health)

    def listen_standing(self, on_standing: OnStanding) -> None:
        """Have every change given to `on_standing`, on the loop's thread; first how it is now."""
        self.listen_health(lambda health: on_standing(self._standing_of(health)))
        on_standing(self.standing)

    def _standing_of(self, health: FleetHealth) -> Standing:
        if not health.is_down:
            return Standing(self.info)
        ago_ns = self._clock.now_ns() - health.down_since_ns
        return Standing(self.info, health.reason, time.time_ns() - ago_ns)


if TYPE_CHECKING:
    _tells_standing: type[TellsStanding] = TellingRemote
