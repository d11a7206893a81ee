"""The profile that lets Fast DDS carry large images between processes of one machine.

Only the standard library: launch files and `edge-vlm doctor` read this, too, and the doctor runs
where numpy is missing, which `core` needs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

PROFILE_NAME = 'fastdds_shm.xml'
PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
"""Read by Fast DDS 3 (Kilted and later) and by Fast DDS 2 (Humble to Jazzy)."""

FAST_DDS_2_DISTROS = ('humble', 'iron', 'jazzy')


def is_fast_dds(middleware: str) -> bool:
    """Return whether that is the middleware of an identifier ('rmw_fastrtps_cpp', ...)."""
    return 'fastrtps' in middleware


def is_profile_chosen() -> bool:
    """Return whether the user has set a profile already."""
    return any(os.environ.get(name) for name in PROFILE_VARIABLES)


def variables_to_set() -> tuple[str, ...]:
    """Name the variables to set here: Fast DDS 3 warns in every process that has the old one."""
    is_old = os.environ.get('ROS_DISTRO') in FAST_DDS_2_DISTROS
    return PROFILE_VARIABLES if is_old else PROFILE_VARIABLES[:1]


def shipped_profile(name: str = PROFILE_NAME) -> Path | None:
    """Return where a profile lies: in the source tree or installed; None = in neither."""
    prefixes = [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]
    folders = [Path(__file__).resolve().parents[1]]
    folders += [Path(prefix) / 'share' / 'edge_vlm_ros' for prefix in prefixes if prefix]
    profiles = (folder / 'config' / name for folder in folders)
    return next((profile for profile in profiles if profile.is_file()), None)
