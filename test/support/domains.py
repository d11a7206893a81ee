"""ROS domains for tests: one that no other test run on this machine has."""

from __future__ import annotations

import fcntl
import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_LAST: Final = 101
"""Fast DDS derives its ports from the domain: above 101 they leave the safe range."""
_counter: Final = itertools.count()


@contextmanager
def own_domain() -> Iterator[int]:
    """Give a domain id that nobody else is given until the end of the block.

    Raises:
        LookupError: All are taken.
    """
    folder = Path(tempfile.gettempdir()) / f'edge_vlm_ros_domains_{os.getuid()}'
    folder.mkdir(exist_ok=True)
    first = os.getpid() + next(_counter)
    for offset in range(_LAST):
        domain = 1 + (first + offset) % _LAST
        with (folder / str(domain)).open('w') as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            yield domain
            return
    raise LookupError(f'all {_LAST} ROS domains are taken by other test runs')
