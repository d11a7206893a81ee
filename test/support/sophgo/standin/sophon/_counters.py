"""What the stand-in counts, and what it raises where the real binding would go wrong later."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, field
from typing import Any


class MisuseError(RuntimeError):
    """A call that the real binding accepts and that then goes wrong on the chip."""


@dataclass
class Traffic:
    """How often something was moved, and how many bytes in all."""

    calls: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """Count one more."""
        self.calls += 1
        self.bytes += size


@dataclass
class Counters:
    """What went over the bus and what ran, since the process started or since `reset`.

    Attributes:
        s2d: Copies from the host to the device.
        d2s: Copies from the device to the host.
        d2d: Copies that the caller asked for on the device.
        memset: Device memory filled, that of new tensors too.
        launches: How often each net ran.
        launch_copies: For each net what a launch copies on the device beside the caller's back:
            a static net is compiled for fixed addresses, and the device copies every input and
            output that lies elsewhere (libsophon: tpu-runtime/src/bmruntime.cpp). Counted from the
            addresses.
        allocations: Device memory asked for with tensors; the loading of a model is not counted.
    """

    s2d: Traffic = field(default_factory=Traffic)
    d2s: Traffic = field(default_factory=Traffic)
    d2d: Traffic = field(default_factory=Traffic)
    memset: Traffic = field(default_factory=Traffic)
    allocations: Traffic = field(default_factory=Traffic)
    launches: dict[str, int] = field(default_factory=dict)
    launch_copies: dict[str, Traffic] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain dictionaries and numbers, for JSON or another process."""
        return asdict(self)


_counters = Counters()
_lock = threading.Lock()


def counters() -> Counters:
    """Return the counters of this process; they go on counting."""
    return _counters


def reset() -> None:
    """Set every counter to zero."""
    with _lock:
        for name, value in vars(Counters()).items():
            setattr(_counters, name, value)
