"""What processes hold of a device, on record in a file that outlives them.

The stub of Axera's libraries writes one (`ledger.c`), so does the stand-in for sophon-sail.
Records of 32 bytes: int32 pid (0 = free), uint32 kind, uint64 bytes, uint64 key, 8 bytes unused.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple

HANDLE: Final = 1
BLOCK: Final = 2
SYS: Final = 3
ENGINE: Final = 4

_RECORD: Final = struct.Struct('<iIQQQ')
_RECORDS: Final = 4096


class Held(NamedTuple):
    """What is not given back.

    Attributes:
        handles: Loaded models.
        blocks: Memory that was allocated.
        starts: Libraries that were started and not shut down.
        bytes: Of handles and blocks.
    """

    handles: int = 0
    blocks: int = 0
    starts: int = 0
    bytes: int = 0


NOTHING: Final = Held()


class Ledger:
    """A ledger's file; made where there is none."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        with path.open('a+b') as file:
            file.truncate(_RECORDS * _RECORD.size)
            self._map = mmap.mmap(file.fileno(), _RECORDS * _RECORD.size)
        self._lock = threading.Lock()

    def held(self, pid: int = 0) -> Held:
        """Count what is on record, of one process or of all (0)."""
        kinds: Counter[int] = Counter()
        total = 0
        for owner, kind, size, _, _ in _RECORD.iter_unpack(self._map[:]):
            if owner and pid in {0, owner}:
                kinds[kind] += 1
                total += size
        return Held(kinds[HANDLE], kinds[BLOCK], kinds[SYS] + kinds[ENGINE], total)

    def add(self, kind: int, key: int, size: int) -> None:
        """Put something on record for this process; it is the only one that writes."""
        with self._lock:
            for at in range(0, len(self._map), _RECORD.size):
                if not _RECORD.unpack_from(self._map, at)[0]:
                    _RECORD.pack_into(self._map, at, os.getpid(), kind, size, key, 0)
                    return
        raise RuntimeError(f'{self.path}: no record is free')

    def remove(self, kind: int, key: int) -> None:
        """Strike off what this process put on record."""
        with self._lock:
            for at in range(0, len(self._map), _RECORD.size):
                owner, found, _, known, _ = _RECORD.unpack_from(self._map, at)
                if (owner, found, known) == (os.getpid(), kind, key):
                    _RECORD.pack_into(self._map, at, 0, 0, 0, 0, 0)
                    return

    def clear(self) -> None:
        """Forget everything, as a reboot of the chip does."""
        self._map[:] = bytes(len(self._map))
