"""Waiting on the main thread so that a signal is heard, whenever it comes.

A signal that comes right before the interpreter waits without a limit is heard when the wait is
over: it runs handlers when a wait is interrupted, and this one had not begun (seen in 3 of 16
tries on a busy machine). So no wait of a thread that may be the main one is without a limit.
"""

from __future__ import annotations

import threading

HEAR_SIGNALS_S = 0.3
"""The longest wait at a time."""


def wait_for(event: threading.Event) -> None:
    """Wait for an event, as long as it takes."""
    while not event.wait(HEAR_SIGNALS_S):
        pass
