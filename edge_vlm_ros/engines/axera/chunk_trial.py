"""Finds out whether a card's prefill groups run on the inputs that they are given.

One laboratory saw prefill groups on a card run on the inputs of an earlier run, without an error,
unless every group had buffers of its own; the vendor's own programs do without. So every group
runs the same few tokens as single steps do, twice with different ones, and must come out near the
steps. Near is a small part of how far the two texts are apart: another compiled program rounds
differently (in a hundredth of that), other inputs are another text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.engines.axera.graphs import DecodeGroup, PrefillGroup, StackShapes
from edge_vlm_ros.engines.bf16 import to_bf16

RunTokens: TypeAlias = (
    'Callable[[PrefillGroup | DecodeGroup, int, NDArray[np.uint16]], NDArray[np.float32]]'
)
"""Runs tokens, (tokens, hidden), into rows from a given one on; gives the logits after them."""

_TOKENS: Final = 4
"""That a chunk runs, and that are held before it."""
_NEAR: Final = 0.1
_EMBED_SCALE: Final = 0.1
_SEEDS: Final = (6, 7)


@dataclass(frozen=True, slots=True)
class _Text:
    """Tokens, and what steps give.

    Attributes:
        embeds: (held + tokens + 1, hidden).
        after: Logits after each of them.
    """

    embeds: NDArray[np.uint16] = field(repr=False)
    after: list[NDArray[np.float32]] = field(repr=False)


def chunks_differ(run: RunTokens, shapes: StackShapes) -> str:
    """Run every prefill group on two texts, and each text as single steps.

    Args:
        run: On a freshly opened backend.
        shapes: What it holds.

    Returns:
        Which group does not give what steps give; '' = all do.

    Raises:
        DeviceError: The chip failed.
    """
    histories = [group.history for group in shapes.prefill if group.history]
    tokens = min(_TOKENS, shapes.capacity // 3, *(group.chunk for group in shapes.prefill))
    held = min([tokens, *histories])
    texts = [_text(run, shapes, seed, held + tokens + 1) for seed in _SEEDS]
    for text, other in (texts, texts[::-1]):
        for row in range(held):
            run(_decode(shapes, row), row, text.embeds[row : row + 1])
        for what, last, found in _found(run, shapes, text, held, tokens):
            apart = _distance(text.after[last], other.after[last])
            wrong = _distance(found, text.after[last])
            if not wrong <= _NEAR * apart:  # NaN is not near
                return f'{what} gives logits that single steps do not ({wrong:.3g} apart)'
    return ''


def _found(
    run: RunTokens, shapes: StackShapes, text: _Text, held: int, tokens: int
) -> Iterator[tuple[str, int, NDArray[np.float32]]]:
    """Run each group, and a step after those that write to the caches' beginning.

    Yields:
        What ran, the place of its last token, its logits.
    """
    # The groups without a history last: they write what was held before the others' tokens.
    for group in sorted(shapes.prefill, key=lambda group: group.history == 0):
        row = held if group.history else 0
        stop = row + tokens
        what = f'prefill group {group.index}'
        yield what, stop - 1, run(group, row, text.embeds[row:stop])
        following = run(_decode(shapes, stop), stop, text.embeds[stop : stop + 1])
        yield f'a step after {what}', stop, following


def _text(run: RunTokens, shapes: StackShapes, seed: int, length: int) -> _Text:
    drawn = np.random.default_rng(seed).standard_normal((length, shapes.hidden), np.float32)
    embeds = to_bf16(drawn * np.float32(_EMBED_SCALE))
    after = [run(_decode(shapes, i), i, embeds[i : i + 1]) for i in range(length)]
    return _Text(embeds, after)


def _decode(shapes: StackShapes, row: int) -> DecodeGroup:
    return next(group for group in shapes.decode if group.capacity > row)


def _distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    with np.errstate(invalid='ignore', over='ignore'):  # they may be anything
        return float(np.linalg.norm(one - other))
