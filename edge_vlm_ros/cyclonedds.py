"""The profile that lets Cyclone DDS take large images, and what the kernel must allow for it.

Cyclone DDS sends samples through UDP in fragments, and the kernel drops one when the receiver's
buffer is full ("Configuration guide", SocketReceiveBufferSize). Only the standard library, as in
`fastdds`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

PROFILE_NAME: Final = 'cyclonedds.xml'
PROFILE_VARIABLE: Final = 'CYCLONEDDS_URI'
BUFFER_SETTING: Final = 'SocketReceiveBufferSize'

STOCK_BUFFER_BYTES: Final = 212_992
"""Receive buffer of a socket on a stock Linux kernel; about what a few large fragments take."""

WANTED_BUFFER_BYTES: Final = 16 << 20
"""What the profile asks for."""

RAISE_LIMIT: Final = f'sysctl -w net.core.rmem_max={WANTED_BUFFER_BYTES}'


def is_cyclone_dds(middleware: str) -> bool:
    """Return whether that is the middleware of an identifier ('rmw_cyclonedds_cpp')."""
    return 'cyclonedds' in middleware


def uri_of(profile: Path) -> str:
    """Return what the variable is set to; as it stands, for Cyclone DDS decodes no %20."""
    return f'file://{profile}'


def chosen_profile() -> str:
    """Return what this process's environment says; '' = nothing."""
    return os.environ.get(PROFILE_VARIABLE, '')


def receive_buffer_limit() -> int:
    """Return the kernel's largest receive buffer of a socket, bytes; 0 = not known."""
    with suppress(OSError, ValueError):
        return int(Path('/proc/sys/net/core/rmem_max').read_text(encoding='ascii'))
    return 0
