"""What the environment chooses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

OLD_RELEASE: Final = '3.9.1'
_GIB: Final = 1 << 30
# The emulator has just under 4 GiB and ends the process where it runs out.
_MOST_MEMORY: Final = 3 * _GIB


def library_folder() -> Path | None:
    """Return the folder of the chip's libraries; None when none is named."""
    name = os.environ.get('EDGE_VLM_EMULATOR_LIBS', '')
    return Path(name) if name else None


def log_file() -> Path | None:
    """Return where the libraries' output goes; None leaves it on the terminal."""
    name = os.environ.get('EDGE_VLM_EMULATOR_LOG', '')
    return Path(name) if name else None


def memory_bytes() -> int:
    """Return how much memory the device has; tests make it small."""
    return min(int(os.environ.get('EDGE_VLM_EMULATOR_MEMORY', _MOST_MEMORY)), _MOST_MEMORY)


def is_old_release() -> bool:
    """Return whether to behave as the oldest release that the engine supports."""
    return os.environ.get('EDGE_VLM_SAIL_RELEASE', '') == OLD_RELEASE


def ledger_file() -> Path | None:
    """Return where what is held stays on record after a process; None = nowhere."""
    name = os.environ.get('EDGE_VLM_SAIL_LEDGER', '')
    return Path(name) if name else None
