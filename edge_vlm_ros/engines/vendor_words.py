"""What a vendor's library says when it fails, cut to what fits into a message."""

from __future__ import annotations

_MOST_CHARACTERS = 300


def brief(error: BaseException) -> str:
    """Return the first line of an error's text; its type where it says nothing."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:_MOST_CHARACTERS]
