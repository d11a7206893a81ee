"""When an answer ends, and what of its text may be shown before that is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_vlm_ros.core import FinishReason

if TYPE_CHECKING:
    from collections.abc import Iterable


class StopRule:
    """End one answer by stop token, token count or stop string.

    For each token: `accept` it; where that says no, it is no part of the answer. Put the text of
    accepted tokens through `show`, and end with `finish`. Once `reason` is not NONE, no further
    token is asked for.

    The law of `show` and `finish`: joined, they are the text up to the first stop string, however
    the text was cut. The first is the one that is complete first; of those complete at once, the
    longest.

    Args:
        stop_tokens: Ids that end the answer and are no part of it.
        max_tokens: Most tokens accepted; 0 = no bound.
        stop_strings: Texts that end the answer and are no part of it.
    """

    def __init__(
        self,
        stop_tokens: Iterable[int],
        *,
        max_tokens: int = 0,
        stop_strings: Iterable[str] = (),
    ) -> None:
        self._stop_tokens = frozenset(stop_tokens)
        self._max_tokens = max_tokens
        self._stop_strings = tuple(filter(None, stop_strings))
        self._held = ''
        self._accepted = 0
        self._reason = FinishReason.NONE

    @property
    def reason(self) -> FinishReason:
        """Why the answer ended: STOP, LENGTH or STOP_STRING; NONE while it goes on."""
        return self._reason

    def accept(self, token: int) -> bool:
        """Count a token; return whether it belongs to the answer."""
        if self._reason is not FinishReason.NONE:
            return False
        if token in self._stop_tokens:
            self._reason = FinishReason.STOP
            return False
        self._accepted += 1
        if self._accepted == self._max_tokens:
            self._reason = FinishReason.LENGTH
        return True

    def show(self, text: str) -> str:
        """Take new text; return what may be shown: all that cannot begin a stop string."""
        if self._reason is FinishReason.STOP_STRING:
            return ''
        if not self._stop_strings:
            return text
        known = self._held + text
        found = [(known.find(stop), stop) for stop in self._stop_strings]
        complete = [(start + len(stop), start) for start, stop in found if start >= 0]
        if complete:
            self._reason = FinishReason.STOP_STRING
            self._held = ''
            return known[: min(complete)[1]]
        held = max(_overlap(known, stop) for stop in self._stop_strings)
        self._held = known[len(known) - held :]
        return known[: len(known) - held]

    def finish(self) -> str:
        """End the text: return what was held back, for no stop string came of it."""
        held, self._held = self._held, ''
        return held


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
