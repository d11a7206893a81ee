"""Which features are kept. The ledger holds names and sizes, `serving` the tensors."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge_vlm_ros.core import FeatureKey


class FeatureLedger:
    """A least-recently-used list of features, bounded by count and bytes.

    Pinned ones are in use: they are never named for eviction, even where that breaks a bound
    for as long as the pin lasts.

    Args:
        max_frames: Most that are kept, a moment of a video counted as one; 0 or more.
        max_bytes: Most bytes of them; 0 or more.
    """

    def __init__(self, *, max_frames: int, max_bytes: int) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._sizes: OrderedDict[FeatureKey, int] = OrderedDict()
        self._pinned: frozenset[FeatureKey] = frozenset()
        self._nbytes = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def __contains__(self, key: FeatureKey) -> bool:
        return key in self._sizes

    @property
    def nbytes(self) -> int:
        """Bytes of all features kept."""
        return self._nbytes

    def pin(self, keys: Iterable[FeatureKey]) -> list[FeatureKey]:
        """Make these the ones in use, and no others; return what must go now."""
        self._pinned = frozenset(keys)
        for key in [key for key in self._sizes if key in self._pinned]:
            self._sizes.move_to_end(key)
        return self._evict()

    def add(self, key: FeatureKey, nbytes: int) -> list[FeatureKey]:
        """Note that features are kept; return what must go now."""
        self._nbytes += nbytes - self._sizes.pop(key, 0)
        self._sizes[key] = nbytes
        return self._evict()

    def _evict(self) -> list[FeatureKey]:
        victims: list[FeatureKey] = []
        for key in [key for key in self._sizes if key not in self._pinned]:
            if len(self._sizes) <= self._max_frames and self._nbytes <= self._max_bytes:
                break
            self._nbytes -= self._sizes.pop(key)
            victims.append(key)
        return victims
