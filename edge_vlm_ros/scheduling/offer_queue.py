"""Which offered frames wait for their work to begin."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from edge_vlm_ros.core import FeatureKey, ShownAs

Place: TypeAlias = 'tuple[str, str, ShownAs]'
"""Camera, topic, way of showing: offers with the same take each other's place."""


def place_of(key: FeatureKey) -> Place:
    """Say whose place in the queue an offer takes."""
    newest = key.frames[-1]
    return newest.camera, newest.topic, key.shown_as


class OfferQueue:
    """The newest offer of each camera, shown one way; cameras take turns, a key each.

    A newer offer stands where the older one stood: however fast a camera is, it neither loses its
    turn to the others nor takes theirs.

    Args:
        max_keys: Most that wait; beyond that the camera with the most loses its oldest. 0 or more.
    """

    def __init__(self, max_keys: int) -> None:
        self._max_keys = max_keys
        self._waiting: dict[Place, list[FeatureKey]] = {}

    def __contains__(self, key: FeatureKey) -> bool:
        return key in self._waiting.get(place_of(key), ())

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def put(
        self, keys: Iterable[FeatureKey], settled: Collection[FeatureKey | None] = ()
    ) -> list[FeatureKey]:
        """Add an offer; return what no longer waits for it.

        Args:
            keys: Each once, in the order in which they are wanted.
            settled: Those of them that need not wait: they are kept already, or begun.
        """
        newer: dict[Place, list[FeatureKey]] = {}
        for key in keys:
            waiting = newer.setdefault(place_of(key), [])
            waiting += [key] if key not in settled else []
        older = [key for place in newer for key in self._waiting.get(place, ())]
        self._waiting.update(newer)
        for place in [place for place, waiting in newer.items() if not waiting]:
            del self._waiting[place]
        gone = [key for key in older if key not in self]
        while len(self) > self._max_keys:
            gone.append(max(self._waiting.values(), key=len)[0])
            self.discard(gone[-1])
        return gone

    def take(self) -> FeatureKey | None:
        """Take out the next key; None = nothing waits."""
        if not self._waiting:
            return None
        place = next(iter(self._waiting))
        first, *rest = self._waiting.pop(place)
        if rest:
            self._waiting[place] = rest  # At the end: it is the others' turn.
        return first

    def discard(self, key: FeatureKey) -> bool:
        """Take out one key; return whether it waited."""
        if key not in self:
            return False
        place = place_of(key)
        self._waiting[place].remove(key)
        if not self._waiting[place]:
            del self._waiting[place]
        return True
