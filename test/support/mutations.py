"""Files damaged at random, by a seed: what a fuzz test reads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_NUMBERS = (b'0', b'-1', b'1e999', b'9' * 30, b'null', b'true', b'[]', b'{}', b'""', b'1.5')
_BYTES = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)


def mutations(data: bytes, rounds: int, seed: int = 20) -> Iterator[bytes]:
    """Give damaged copies: bytes changed, cut off, doubled, moved, numbers replaced."""
    random = np.random.default_rng(seed)
    for _ in range(rounds):
        damaged = bytearray(data)
        for _ in range(int(random.integers(1, 6))):
            _damage(damaged, random)
        yield bytes(damaged)


def _damage(data: bytearray, random: np.random.Generator) -> None:
    place = int(random.integers(max(1, len(data))))
    size = int(random.integers(1, 40))
    match int(random.integers(8)):
        case 0:
            del data[place:]
        case 1:
            data[place:place] = data[place : place + size] * int(random.integers(1, 50))
        case 2:
            del data[place : place + size]
        case 3:
            digits = [i for i in range(len(data)) if data[i] in b'0123456789'][:2000]
            if digits:
                at = digits[int(random.integers(len(digits)))]
                data[at : at + 1] = _NUMBERS[int(random.integers(len(_NUMBERS)))]
        case _:
            if data:
                place = min(place, len(data) - 1)
                data[place] = int(random.choice([*_BYTES, int(random.integers(256))]))
