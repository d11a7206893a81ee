"""The scripted engine's KV cache: a list of what was appended."""

from __future__ import annotations

from dataclasses import dataclass


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


class ScriptedKvCache:
    """A KV cache that remembers token ids instead of keys and values."""

    def __init__(self) -> None:
        self.cached: list[CachedToken] = []

    @property
    def length(self) -> int:
        """Tokens the cache holds."""
        return len(self.cached)

    @property
    def tokens(self) -> list[int]:
        """Their ids."""
        return [item.token for item in self.cached]

    @property
    def image_means(self) -> list[float]:
        """Mean pixel value of each image in the cache, in order."""
        means = {item.image: item.mean for item in self.cached if item.image is not None}
        return list(means.values())

    @property
    def next_position(self) -> int | None:
        """Position that the next token must have; None where any may follow."""
        return self.cached[-1].next_position if self.cached else None

    def truncate(self, length: int) -> None:
        """Forget every token from `length` on.

        Raises:
            ValueError: `length` is negative or above the present length.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f'cannot truncate {self.length} tokens to {length}')
        del self.cached[length:]
