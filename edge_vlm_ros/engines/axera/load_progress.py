"""Told of each file of a set, asked before each whether to go on; what a killed load costs.

The driver on the chip's own board takes no memory back from a process that was killed: it is
taken until a reboot. That of a card does, but a card whose load is broken off may not answer any
more until its power is cut, so a load on a card is stopped between two files and never killed.

Source: AXERA-TECH/ax-llm, issues 60 and 66 (boards); an independent lab's log of a card (AXCL
3.10.2), not confirmed by the vendor.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from edge_vlm_ros.core import EndNeeds
from edge_vlm_ros.engines.base import OnLoaded

_GRACE_S = 20.0
"""A file loads in seconds, also from a slow disk."""

ON_BOARD = EndNeeds(
    _GRACE_S,
    "the chip's memory that it held may be held by nobody until the board is started again",
    is_memory_lost=True,
)
LOADING_CARD = EndNeeds(
    math.inf, 'a card whose load is broken off may not answer until its power is cut'
)
LOADED_CARD = EndNeeds(_GRACE_S)


class LoadProgress:
    """Counts loaded files for whoever waits, and asks before each whether to go on.

    Args:
        on_loaded: Who waits.
        total: Files in all.
    """

    def __init__(self, on_loaded: OnLoaded, total: int) -> None:
        self._on_loaded, self._total = on_loaded, total
        self._loaded = 0

    def one(self) -> None:
        """Tell of one more.

        Raises:
            CancelledError: The load was stopped.
        """
        self._loaded += 1
        self.check()

    def check(self) -> None:
        """Ask whether to go on.

        Raises:
            CancelledError: The load was stopped.
        """
        self._on_loaded(self._loaded, self._total)


BeforeFile = Callable[[], None]
"""Called before a file is loaded; raises CancelledError where the load is to stop there."""


def never_stopped() -> None:
    """Let a load go on: the `BeforeFile` of one that nobody stops."""
