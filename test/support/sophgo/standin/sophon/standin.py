"""What the stand-in counts, and how a test looks at it; the real package has nothing of this."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from sophon._counters import Counters, MisuseError, Traffic, counters, reset

if TYPE_CHECKING:
    from sophon.sail._tensor import Tensor

__all__ = [
    'Counters',
    'MisuseError',
    'Traffic',
    'address_of',
    'counters',
    'live_device_bytes',
    'live_engines',
    'reset',
]


def address_of(tensor: Tensor) -> int:
    """Return where in the device's memory a tensor lies.

    Raises:
        MisuseError: It has no device memory, or its owner freed it.
    """
    return int(tensor.memory().address)


def live_device_bytes() -> int:
    """Return the device memory that tensors hold now, after a garbage collection."""
    from sophon.sail._library import Library

    gc.collect()
    return sum(d.live_bytes for d in Library.of_this_process().open_devices())


def live_engines() -> int:
    """Return how many engines are loaded now, after a garbage collection."""
    from sophon.sail._library import Library

    gc.collect()
    return sum(len(d.engines()) for d in Library.of_this_process().open_devices())
