"""How fast a published model was, where its publisher or somebody else measured it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublishedSpeed:
    """What somebody measured.

    Attributes:
        tokens_per_s: Of an answer.
        first_token_s: Until the first token of an answer about one image, its vision tower
            included; 0 = not published.
        portable_tokens_per_s: With whole caches copied for each token, as the vendor's Python
            package does it; 0 = not published.
        where: On what, for people.
    """

    tokens_per_s: float
    first_token_s: float = 0.0
    portable_tokens_per_s: float = 0.0
    where: str = ''

    def __post_init__(self) -> None:
        numbers = (self.tokens_per_s, self.first_token_s, self.portable_tokens_per_s)
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                raise TypeError(f'speed: numbers are wanted, not {number!r}')
        if not self.tokens_per_s > 0 or min(numbers) < 0 or max(numbers) > 1e6:
            raise ValueError(f'speed: {numbers} are no speeds')

    def __str__(self) -> str:
        first = f'{self.first_token_s} s to the first token about one image, '
        where = f' ({self.where})' if self.where else ''
        return f'{first if self.first_token_s else ""}{self.tokens_per_s} tokens/s{where}.'
