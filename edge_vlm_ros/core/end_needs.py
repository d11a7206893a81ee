"""How this process wants to be ended, said by what it holds.

A driver may not take back what a process held that was killed. Whoever opens such a device says so
for as long as it is open; whoever ends processes asks first and gives it time. It is about the
process as a whole, so it is kept for the process as a whole; any thread.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EndNeeds:
    """What a process needs to end in order, and what it costs to kill it.

    Attributes:
        grace_s: Seconds from being asked to end until it may be killed; 0 = a kill costs nothing;
            infinity = it must not be killed.
        loss: What a kill costs, for people: a main clause; '' = nothing.
        is_memory_lost: It costs the device's memory that the process holds.
    """

    grace_s: float = 0.0
    loss: str = ''
    is_memory_lost: bool = False

    @property
    def may_be_killed(self) -> bool:
        """Whether it may be killed at all, once it was asked and had its time."""
        return self.grace_s < math.inf


NO_NEEDS = EndNeeds()

OnNeeds = Callable[[EndNeeds], None]

_lock = threading.RLock()
_held: list[EndNeeds] = []
_listeners: list[OnNeeds] = []


def end_needs() -> EndNeeds:
    """Return what this process needs now: the most that anything in it needs."""
    with _lock:
        return max(_held, key=lambda needs: needs.grace_s, default=NO_NEEDS)


@contextmanager
def needing(needs: EndNeeds) -> Iterator[None]:
    """Say for a time that this process needs more than nothing to end."""
    with _lock:
        _held.append(needs)
        _tell()
    try:
        yield
    finally:
        with _lock:
            _held.remove(needs)
            _tell()


def listen_needs(on_needs: OnNeeds) -> None:
    """Have what this process needs given to `on_needs` whenever it changes; must be quick.

    It is called before whoever needs more goes on.
    """
    with _lock:
        _listeners.append(on_needs)


def _tell() -> None:
    needs = end_needs()
    for on_needs in _listeners:
        on_needs(needs)
