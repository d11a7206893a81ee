"""When the chip may work ahead: its share of the time, and what it must not disturb."""

from __future__ import annotations


class Background:
    """Says from when on work ahead may go on. Steady time, nanoseconds.

    Args:
        duty: Share of the chip's time that it may take while nobody asks; above 0, 1 at most.
            After an item of work it rests so long that the share holds.
        live_ns: So long after its last answer a conversation's rows in the KV cache are not given
            up for a prefix that belongs elsewhere.
    """

    def __init__(self, duty: float, live_ns: int) -> None:
        self._duty = duty
        self._live_ns = live_ns
        self._rested_ns = 0
        self._live_session = ''
        self._live_until_ns = 0

    def worked(self, started_ns: int, took_ns: int) -> None:
        """Take note of an item of work ahead."""
        self._rested_ns = started_ns + round(took_ns / self._duty)

    def answered(self, session_id: str, now_ns: int) -> None:
        """Take note of an answer; its conversation, if it has one, is live from now on."""
        if session_id:
            self._live_session, self._live_until_ns = session_id, now_ns + self._live_ns

    def rests_until_ns(self, now_ns: int) -> int:
        """Say until when nothing is made ahead; 0 = it may be."""
        return self._rested_ns if self._duty < 1 and now_ns < self._rested_ns else 0

    def held_until_ns(self, session_id: str, now_ns: int) -> int:
        """Say until when another conversation has the KV cache; 0 = this one may have it."""
        is_free = session_id == self._live_session or now_ns >= self._live_until_ns
        return 0 if is_free else self._live_until_ns
