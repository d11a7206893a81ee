"""How long a chip must work at least for the first token: InternVL3-2B on an AX650N.

The vendor's published latency table, and the ways to get a question's tokens into the KV cache
after a prefix: chunks from the border below the prefix or above it, decode steps, or a chunk and
then decode steps. Times in milliseconds.
"""

from __future__ import annotations

from itertools import pairwise

# One layer by 128 cached tokens; the first entry stands for nothing. Source: the table that the
# vendor publishes with the InternVL3-2B axmodels (AX650N).
PREFILL_MS = (
    0, 7.483, 10.089, 12.815, 15.235, 18.527, 20.751, 23.520, 25.932, 29.124,
    31.727, 34.708, 36.982, 39.950, 42.418, 45.933, 48.577, 52.405,
)  # fmt: skip
VISION_MS, HEAD_MS = 364.87, 11.455
STEP_MS = 28 * 2.664
CHUNK = 128
MOST_TOKENS = CHUNK * (len(PREFILL_MS) - 1)
"""What the chunks take; more goes through decode steps, and the vendor's demo refuses it."""
SYSTEM, FRAME, TAIL = 40, 263, 5
"""Tokens of a prompt: before the frames, of each frame, after the question's words."""


def prefill_ms(start: int, stop: int) -> float:
    """Return what whole chunks from a border on cost, up to `stop` tokens."""
    borders = [*range(start, stop, CHUNK), stop]
    total = 0.0
    for first, last in pairwise(borders):
        is_chunk = first < MOST_TOKENS
        total += 28 * PREFILL_MS[first // CHUNK + 1] if is_chunk else (last - first) * STEP_MS
    return total


def vendor_ms(frames: int, question: int) -> float:
    """Return what the vendor's schedule takes: everything after the question has come."""
    tokens = SYSTEM + FRAME * frames + question + TAIL
    return frames * VISION_MS + prefill_ms(0, tokens) + HEAD_MS


def least_ms(frames: int, question: int) -> float:
    """Return the least that a question takes after a prefix of frames, by the best way in."""
    prefix, rest = SYSTEM + FRAME * frames, question + TAIL
    below, above = prefix // CHUNK * CHUNK, -(-prefix // CHUNK) * CHUNK
    ways = [prefill_ms(below, prefix + rest), prefill_ms(above, above + rest), rest * STEP_MS]
    for border, room in ((below, CHUNK - prefix + below), (above, CHUNK)):
        if border < MOST_TOKENS:
            chunk_ms = 28 * PREFILL_MS[border // CHUNK + 1]
            ways.append(chunk_ms + max(0, rest - room) * STEP_MS)
    return min(ways) + HEAD_MS
