"""What loses images, by middleware, and what helps: free of ROS.

Sources: rmw_fastrtps issues 576 and 739 (a best-effort image above the sender's shared-memory
segment is overwritten before it is read); for Cyclone DDS see `edge_vlm_ros.cyclonedds`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_vlm_ros.cyclonedds import PROFILE_NAME as CYCLONE_PROFILE_NAME
from edge_vlm_ros.cyclonedds import (
    PROFILE_VARIABLE,
    RAISE_LIMIT,
    STOCK_BUFFER_BYTES,
    is_cyclone_dds,
    receive_buffer_limit,
)
from edge_vlm_ros.fastdds import PROFILE_NAME, PROFILE_VARIABLES, is_fast_dds

FAST_DDS_SEGMENT_BYTES = 512 * 1024
"""Shared memory of a process under Fast DDS, unless a profile says otherwise."""

PROFILE_SEGMENT_BYTES = 16 << 20
"""The same under config/fastdds_shm.xml."""

FAST_DDS_HINT = (
    'Images above 512 KB do not fit the default shared memory of Fast DDS and are lost without an '
    'error: start the camera with FASTDDS_DEFAULT_PROFILES_FILE (Humble and Jazzy: '
    "FASTRTPS_DEFAULT_PROFILES_FILE) set to this package's config/fastdds_shm.xml, or use "
    'compressed transport'
)


@dataclass(frozen=True, slots=True)
class Losses:
    """What is known of images that do not arrive.

    Attributes:
        middleware: Its identifier, 'rmw_fastrtps_cpp', ...; '' = not known.
        is_raw: They are raw images.
        largest_bytes: Of those that did arrive; 0 = none has.
        profile: Of Fast DDS, as this process's environment names it; '' = none.
        udp_drops: Datagrams that the kernel dropped lately for want of room in this process's
            sockets.
    """

    middleware: str = ''
    is_raw: bool = True
    largest_bytes: int = 0
    profile: str = ''
    udp_drops: int = 0

    @property
    def advice(self) -> str:
        """What the cause is, as far as it can be known, and who can do what about it."""
        if is_fast_dds(self.middleware):
            return self._fast_dds()
        if is_cyclone_dds(self.middleware):
            return self._cyclone_dds()
        return (
            f'The middleware is {self.middleware or "unknown"}, and this package does not know '
            'what it does with large messages: see its own manual'
        )

    def may_exceed(self, nbytes: int) -> bool:
        """Return whether images may be above so many bytes: seen to be, or none was ever seen."""
        return self.is_raw and (not self.largest_bytes or self.largest_bytes > nbytes)

    def _fast_dds(self) -> str:
        if not self.may_exceed(FAST_DDS_SEGMENT_BYTES):
            return _OVERLOAD
        if self.largest_bytes > PROFILE_SEGMENT_BYTES:
            return (
                f'Images of {self.largest_bytes / 1e6:.1f} MB do not fit the shared memory of '
                f'{PROFILE_SEGMENT_BYTES / 1e6:.1f} MB that config/fastdds_shm.xml gives: start '
                'the camera with a copy of it that has a larger segment_size'
            )
        if self.profile and Path(self.profile).name != PROFILE_NAME:
            return (
                'Fast DDS loses images that do not fit its shared memory without an error: start '
                f'the camera, too, with the profile {self.profile}, and see that its segment_size '
                'is that of several images'
            )
        return FAST_DDS_HINT

    def _cyclone_dds(self) -> str:
        if not self.udp_drops and not self.may_exceed(STOCK_BUFFER_BYTES):
            return _OVERLOAD
        seen = f' (it has dropped {self.udp_drops} datagrams lately)' if self.udp_drops else ''
        return (
            'Cyclone DDS takes images through UDP, and the kernel drops what does not fit its '
            f'receive buffer, net.core.rmem_max is {receive_buffer_limit() or "not known"}{seen}: '
            f"{RAISE_LIMIT}, and start this node with {PROFILE_VARIABLE} set to this package's "
            f'config/{CYCLONE_PROFILE_NAME} (it does so itself where that is unset)'
        )


_OVERLOAD = (
    'The network loses them, or this machine is too busy to take them in time (a larger '
    'qos.depth, a slower camera or compressed transport help)'
)


def fast_dds_profile() -> str:
    """Return the profile of Fast DDS that this process's environment names; '' = none."""
    return next((os.environ[name] for name in PROFILE_VARIABLES if os.environ.get(name)), '')


def count_udp_drops(proc: Path = Path('/proc/self')) -> int:
    """Count the datagrams that the kernel has dropped at the sockets of a process.

    Args:
        proc: The folder of the process.

    Returns:
        0 where the system does not say.
    """
    own: set[str] = set()
    with suppress(OSError):
        for entry in (proc / 'fd').iterdir():
            with suppress(OSError):
                own.add(str(entry.readlink()))
    drops = 0
    for name in ('udp', 'udp6'):
        with suppress(OSError):
            table = (proc / 'net' / name).read_text(encoding='ascii')
            drops += _drops_of(table, own)
    return drops


def _drops_of(table: str, own: set[str]) -> int:
    """Sum the last column of /proc/net/udp, over the lines of one's own sockets."""
    lines = [line.split() for line in table.splitlines()[1:]]
    return sum(
        int(words[-1]) for words in lines if len(words) > 9 and f'socket:[{words[9]}]' in own
    )
