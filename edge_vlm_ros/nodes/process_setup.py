"""What a camera or vlm process needs set before ROS starts in it."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from edge_vlm_ros import cyclonedds
from edge_vlm_ros.fastdds import is_profile_chosen, shipped_profile, variables_to_set

# malloc.h of glibc.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


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
        The profile that was set; None when the user has one already or ours is not installed.
    """
    profile = None if is_profile_chosen() else shipped_profile()
    if profile is None:
        return None
    for name in variables_to_set():
        os.environ[name] = str(profile)
    return profile


def use_large_receive_buffers() -> str:
    """Give Cyclone DDS in this process UDP buffers that hold large images, if the kernel lets it.

    With the kernel's default it loses most raw images of 1080p; the buffer is the receiver's. Call
    before `rclpy.init`. A variable that is set is left alone; with another middleware it has no
    effect.

    Returns:
        What CYCLONEDDS_URI was set to; '' when the user has set one or ours is not installed.
    """
    profile = shipped_profile(cyclonedds.PROFILE_NAME)
    if profile is None or cyclonedds.chosen_profile():
        return ''
    os.environ[cyclonedds.PROFILE_VARIABLE] = cyclonedds.uri_of(profile)
    return cyclonedds.chosen_profile()
