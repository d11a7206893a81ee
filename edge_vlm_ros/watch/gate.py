"""The gate before the model: a scene that has not changed needs no look.

It compares a look's worth of samples (`vision.change`), 0.03 ms of a 1080p image, with those of
the last scene that the model answered about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from edge_vlm_ros.core import NS_PER_S
from edge_vlm_ros.vision import Thumbnail, has_changed

Scene: TypeAlias = 'Mapping[str, Thumbnail | None]'
"""The newest picture of each camera; None = it cannot be decoded."""


class SceneGate:
    """Tells whether a scene is still that of the last answer.

    Args:
        look_anyway_s: After so long a look is in order all the same, seconds: what lies between
            the samples the gate does not see.
        last_seconds: What a look shows beside the newest picture. A scene that came to rest is
            unchanged only once all of that shows it at rest.
    """

    def __init__(self, look_anyway_s: float, last_seconds: float = 0.0) -> None:
        self._anyway_ns = round(look_anyway_s * NS_PER_S)
        self._window_ns = round(last_seconds * NS_PER_S)
        self._scene: Scene | None = None
        self._looked_ns = 0
        self._changed_ns = 0

    def is_unchanged(self, scene: Scene, now_ns: int) -> bool:
        """Return whether a look would see what the last one saw.

        Args:
            scene: Now.
            now_ns: Steady time.
        """
        before = self._scene
        if before is None or self._is_other(before, scene):
            self._changed_ns = now_ns
            return False
        is_at_rest = self._looked_ns - self._changed_ns >= self._window_ns
        return is_at_rest and now_ns - self._looked_ns < self._anyway_ns

    def looked(self, scene: Scene, now_ns: int) -> None:
        """Take note of a scene that the model has answered about, and when it was chosen."""
        self._scene = scene
        self._looked_ns = now_ns

    def forget(self) -> None:
        """Have the next scene count as changed."""
        self._scene = None

    @staticmethod
    def _is_other(before: Scene, now: Scene) -> bool:
        return set(before) != set(now) or any(has_changed(before[c], now[c]) for c in now)
