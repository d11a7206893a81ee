"""What the caller holds of the device, on record in a file that outlives it (`support.ledger`).

What is still on record when the process is gone was never given back: at its end the stand-in
cleans up for the emulator's sake, and strikes nothing off.
"""

from __future__ import annotations

import functools

from support.ledger import BLOCK, HANDLE, SYS, Ledger

from sophon.sail import _options

__all__ = ['BLOCK', 'HANDLE', 'SYS', 'note', 'strike']


@functools.cache
def _ledger() -> Ledger | None:
    path = _options.ledger_file()
    return None if path is None else Ledger(path)


def note(kind: int, key: int, size: int = 0) -> None:
    """Put something on record."""
    ledger = _ledger()
    if ledger is not None:
        ledger.add(kind, key, size)


def strike(kind: int, key: int) -> None:
    """Strike it off."""
    ledger = _ledger()
    if ledger is not None:
        ledger.remove(kind, key)
