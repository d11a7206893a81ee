"""What the KV cache holds, so that a new prompt starts after what it shares with the old one.

Two tokens are the same for the cache when their id, their position and, at a vision span, the
features and their row are the same. Equal prefixes then have equal keys and values,
whatever follows them; also where images are cross-attended, for a token attends to those only
whose span is at or before it (`core.VisionSpan`).
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_vlm_ros.core import FeatureKey, PromptPart

# int64, (tokens, 3 + position axes): token id, image number (-1 = text), feature row, positions.
_Rows: TypeAlias = NDArray[np.int64]
_NO_IMAGE = -1


class KvRecord:
    """The tokens in the KV cache, in order. The `ChipWorker`'s thread alone uses it.

    Args:
        can_truncate: Whether the cache can be cut anywhere (`EngineLimits.can_truncate`).

    Attributes:
        snapshots: Lengths that a cache that cannot be cut can go back to.
    """

    def __init__(self, *, can_truncate: bool = True) -> None:
        self.snapshots: set[int] = set()
        self._can_truncate = can_truncate
        self._parts: list[_Rows] = []
        self._images: dict[FeatureKey, int] = {}
        self._numbers = count()
        self._length = 0

    @property
    def length(self) -> int:
        """Tokens on record."""
        return self._length

    def append(self, part: PromptPart, keys: Sequence[FeatureKey]) -> None:
        """Note tokens that were appended to the cache.

        Args:
            part: The tokens.
            keys: Of the conversation's frames; `VisionSpan.image` is an index into them.
        """
        self._parts.append(self._rows(part, keys))
        self._length += len(part)

    def truncate(self, length: int) -> None:
        """Forget every token from `length` on."""
        kept = self._joined()[:length]
        self._parts = [kept] if len(kept) else []
        self._length = len(kept)
        self.snapshots = {at for at in self.snapshots if at <= length}
        numbers = set(np.unique(kept[:, 1]).tolist()) if len(kept) else set()
        self._images = {key: number for key, number in self._images.items() if number in numbers}

    def reachable(self, length: int) -> int:
        """Return to which length the cache can go back: `length`, or the next one before it."""
        if self._can_truncate or length >= self._length:
            return min(length, self._length)
        return max((at for at in self.snapshots if at <= length), default=0)

    def shared(self, prompt: PromptPart, keys: Sequence[FeatureKey]) -> int:
        """Count the tokens at the start of `prompt` that the cache already holds.

        Args:
            prompt: All tokens of the new prompt.
            keys: Of the conversation's frames.
        """
        held, wanted = self._joined(), self._rows(prompt, keys)
        if held.shape[1] != wanted.shape[1]:
            return 0
        length = min(len(held), len(wanted))
        differs = (held[:length] != wanted[:length]).any(axis=1)
        return int(differs.argmax()) if differs.any() else length

    def _joined(self) -> _Rows:
        if not self._parts:
            return np.empty((0, 4), dtype=np.int64)
        self._parts = [np.concatenate(self._parts)]
        return self._parts[0]

    def _rows(self, part: PromptPart, keys: Sequence[FeatureKey]) -> _Rows:
        places = np.zeros((len(part), 2), dtype=np.int64)
        places[:, 0] = _NO_IMAGE
        for span in part.spans:
            number = self._number(keys[span.image])
            places[span.start : span.stop, 0] = number
            places[span.start : span.stop, 1] = np.arange(len(span)) + span.first_row
        positions = np.atleast_2d(part.positions).T
        return np.concatenate([part.tokens[:, None], places, positions], axis=1)

    def _number(self, key: FeatureKey) -> int:
        if key not in self._images:
            self._images[key] = next(self._numbers)
        return self._images[key]
