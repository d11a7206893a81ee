"""What a camera or vlm process needs set before ROS starts in it."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

# malloc.h of glibc.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3

PROFILE_NAME = 'fastdds_shm.xml'
PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
"""Read by Fast DDS 3 (Kilted on) and by Fast DDS 2 (Humble to Jazzy)."""

CYCLONE_PROFILE_NAME = 'cyclonedds.xml'
CYCLONE_VARIABLE = 'CYCLONEDDS_URI'

FAST_DDS_2_DISTROS = ('humble', 'iron', 'jazzy')


def keep_freed_memory(trim_bytes: int = 256 << 20, mmap_bytes: int = 32 << 20) -> bool:
    """Tell malloc to keep the memory of freed images for the next ones.

    glibc gives blocks of megabytes back to the system when they are freed, and every page of the
    next image is then a page fault: at 1080p 30 Hz that is most of a subscriber's CPU time. 32 MB
    is the highest threshold that every glibc takes.

    Returns:
        False where the C library has no such setting (musl); nothing is changed then.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, trim_bytes)) & bool(
        mallopt(M_MMAP_THRESHOLD, mmap_bytes)
    )


def use_shared_memory_profile() -> Path | None:
    """Give Fast DDS in this process a shared-memory segment that holds large images.

    By default the segment has 512 KB and images above that are lost nearly always; it belongs to
    the sender, so camera processes need this above all. Call before `rclpy.init`. Variables that
    are already set are left alone; with another middleware they have no effect.

    Returns:
        The profile that was set; None when the user has his own or ours is not installed.
    """
    if any(os.environ.get(name) for name in PROFILE_VARIABLES):
        return None
    profile = profile_path()
    if profile is None:
        return None
    for name in profile_variables():
        os.environ[name] = str(profile)
    return profile


def use_large_receive_buffers() -> str:
    """Give Cyclone DDS in this process UDP buffers that hold large images, if the kernel lets it.

    With the kernel's default it loses most raw images of 1080p; the buffer is the receiver's. Call
    before `rclpy.init`. A variable that is set is left alone; with another middleware it has no
    effect.

    Returns:
        What CYCLONEDDS_URI was set to; '' when the user has his own or ours is not installed.
    """
    profile = shipped_file(CYCLONE_PROFILE_NAME)
    if profile is None or os.environ.get(CYCLONE_VARIABLE):
        return ''
    # As it stands: Cyclone DDS decodes no %20.
    os.environ[CYCLONE_VARIABLE] = f'file://{profile}'
    return os.environ[CYCLONE_VARIABLE]


def profile_variables() -> tuple[str, ...]:
    """Name the variables to set: Fast DDS 3 warns in every process that has the old one."""
    is_old = os.environ.get('ROS_DISTRO') in FAST_DDS_2_DISTROS
    return PROFILE_VARIABLES if is_old else PROFILE_VARIABLES[:1]


def profile_path() -> Path | None:
    """Return where the profile of Fast DDS lies."""
    return shipped_file(PROFILE_NAME)


def shipped_file(name: str) -> Path | None:
    """Return where a file of config/ lies in the source tree, or where it is installed."""
    prefixes = [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]
    folders = [Path(__file__).resolve().parents[2]]
    folders += [Path(prefix) / 'share' / 'edge_vlm_ros' for prefix in prefixes if prefix]
    profiles = (folder / 'config' / name for folder in folders)
    return next((profile for profile in profiles if profile.is_file()), None)
