"""The scripted engine's KV cache: a list of what was appended."""

from __future__ import annotations

from dataclasses import dataclass

from edge_vlm_ros.engines.kv_length import KvLength


@dataclass(frozen=True, slots=True)
class CachedToken:
    """One token in the cache.

    Attributes:
        token: Its id.
        next_position: Position that the token after it must have; None inside a cut M-RoPE image.
        image: The image whose feature stands here; None for a word.
        mean: Mean pixel value of that image.
    """

    token: int
    next_position: int | None
    image: int | None = None
    mean: float = 0.0


class ScriptedKvCache(KvLength):
    """A KV cache that remembers token ids instead of keys and values.

    Args:
        snapshots: As of `KvLength`. With a number, what it remembers is one state: it is there as
            a whole, or a copy of an earlier one is.
    """

    def __init__(self, snapshots: int | None = None) -> None:
        super().__init__(snapshots)
        self._cached: list[CachedToken] = []
        self._copies: dict[int, tuple[CachedToken, ...]] = {}

    @property
    def tokens(self) -> list[int]:
        """Their ids."""
        return [item.token for item in self._cached[: self._length]]

    @property
    def image_means(self) -> list[float]:
        """Mean pixel value of each image in the cache, in order."""
        cached = self._cached[: self._length]
        means = {item.image: item.mean for item in cached if item.image is not None}
        return list(means.values())

    @property
    def next_position(self) -> int | None:
        """Position that the next token must have, 0 at first; None where any may follow."""
        return self._cached[self._length - 1].next_position if self._length else 0

    def write(self, appended: list[CachedToken]) -> None:
        """Write tokens after those that count; `grow` counts them in."""
        self._cached[self._length :] = appended

    def _keep(self, length: int) -> None:
        self._copies[length] = tuple(self._cached[:length])

    def _go_back(self, length: int) -> None:
        self._cached = list(self._copies[length]) if length else []

    def _let_go(self, length: int) -> None:
        del self._copies[length]
