"""Time limits that only what hangs exceeds: on a busy machine they stretch."""

from __future__ import annotations

import time
from typing import Final

_MOST_A_LOOK_S: Final = 0.1
_PAUSE_S: Final = 0.02


class Patience:
    """A limit on the time that a test waits for something, counted from look to look.

    Of the time between two looks at most 0.1 s counts: where the machine kept the test from
    looking for longer, it kept what the test waits for from running, too.

    Args:
        limit_s: On a quiet machine.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s: Final = limit_s
        self._left_s = limit_s
        self._looked_s = time.monotonic()

    def look(self) -> None:
        """Pause until the next look."""
        time.sleep(_PAUSE_S)

    def is_over(self) -> bool:
        """Return whether the limit is exceeded."""
        now_s = time.monotonic()
        self._left_s -= min(now_s - self._looked_s, _MOST_A_LOOK_S)
        self._looked_s = now_s
        return self._left_s < 0
