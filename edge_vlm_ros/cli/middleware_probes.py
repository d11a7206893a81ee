"""What carries large images between processes, by middleware, and whether it is set up."""

from __future__ import annotations

import os
import re
from pathlib import Path

from edge_vlm_ros import cyclonedds
from edge_vlm_ros.cli.findings import Finding, State
from edge_vlm_ros.fastdds import (
    PROFILE_NAME,
    PROFILE_VARIABLES,
    is_fast_dds,
    shipped_profile,
    variables_to_set,
)

_TOPIC = 'Camera images between processes'
_MEGABYTE = 1024 * 1024
_SHM = '/dev/shm'  # noqa: S108 (a mount point; nothing is made there)
SMALLEST_SEGMENT_BYTES = 8 * _MEGABYTE
"""A 1080p image has 6.2 MB; an image that does not fit the sender's segment is lost."""
SMALLEST_SHM_BYTES = 128 * _MEGABYTE
"""Room for a camera, the node and a few listeners with a segment of 16 MiB each."""
_ZENOH_VARIABLE = 'ZENOH_CONFIG_OVERRIDE'
_ZENOH_SHARED_MEMORY = 'transport/shared_memory/enabled=true'
"""rmw_zenoh_cpp, README and DEFAULT_RMW_ZENOH_SESSION_CONFIG.json5: false by default."""


def find_shared_memory(middleware: str) -> list[Finding]:
    """Look for what carries large images between processes of one machine.

    Args:
        middleware: Its identifier, 'rmw_fastrtps_cpp', ...
    """
    if is_fast_dds(middleware):
        return [_find_fast_dds_profile(_TOPIC), _find_shm(_TOPIC)]
    if cyclonedds.is_cyclone_dds(middleware):
        return [_find_cyclone_profile(_TOPIC), _find_receive_buffer(_TOPIC)]
    if 'zenoh' in middleware:
        return [_find_zenoh_setting(_TOPIC, middleware), _find_shm(_TOPIC)]
    found = f'{middleware} is unknown here: what it does with large images is not known'
    remedy = 'see its own manual; compressed transport helps with any'
    return [Finding(_TOPIC, 'profile', State.WARNING, found, remedy)]


def _find_fast_dds_profile(topic: str) -> Finding:
    name = 'profile'
    variable = next((v for v in PROFILE_VARIABLES if os.environ.get(v)), '')
    if not variable:
        found = f'{PROFILE_VARIABLES[0]} is not set: images above 512 KB get lost'
        remedy = f'our nodes set it; for any other camera: {export_line(shipped_profile())}'
        return Finding(topic, name, State.WARNING, found, remedy)
    path = Path(os.environ[variable])
    remedy = export_line(shipped_profile())
    try:
        text = path.read_text(encoding='utf-8', errors='replace')
    except OSError as error:
        return Finding(topic, name, State.WARNING, f'{variable}: {error}', remedy)
    size = max(map(int, re.findall(r'<segment_size>\s*(\d+)\s*</segment_size>', text)), default=0)
    if size < SMALLEST_SEGMENT_BYTES:
        found = f'{path} has segments of {size} bytes, a 1080p image does not fit'
        return Finding(topic, name, State.WARNING, found, remedy)
    return Finding(topic, name, State.OK, f'{path}, segments of {size // _MEGABYTE} MiB')


def export_line(profile: Path | None) -> str:
    """Return the shell line that sets the profile; its old name, too, where that one is read."""
    path = f'<edge_vlm_ros>/config/{PROFILE_NAME}' if profile is None else profile
    return ' '.join(['export', *(f'{name}={path}' for name in variables_to_set())])


def _find_shm(topic: str) -> Finding:
    try:
        room = os.statvfs(_SHM)
    except OSError as error:
        return Finding(topic, _SHM, State.WARNING, str(error), 'mount a tmpfs there')
    size, free = room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize
    found = f'{size // _MEGABYTE} MiB, {free // _MEGABYTE} MiB free'
    if size < SMALLEST_SHM_BYTES:
        remedy = 'in a container: docker run --shm-size=256m'
        return Finding(topic, _SHM, State.WARNING, found, remedy)
    if free < SMALLEST_SHM_BYTES:
        remedy = "killed processes leave segments there: 'fastdds shm clean'"
        return Finding(topic, _SHM, State.WARNING, found, remedy)
    return Finding(topic, _SHM, State.OK, found)


def _find_cyclone_profile(topic: str) -> Finding:
    """Say whether a larger receive buffer is asked for; it is the receiver's that counts."""
    name, chosen = 'profile', cyclonedds.chosen_profile()
    profile = shipped_profile(cyclonedds.PROFILE_NAME)
    path = profile or Path('<edge_vlm_ros>/config', cyclonedds.PROFILE_NAME)
    remedy = f'export {cyclonedds.PROFILE_VARIABLE}={cyclonedds.uri_of(path)}'
    if not chosen:
        found = f'{cyclonedds.PROFILE_VARIABLE} is not set: our nodes set it, others lose images'
        return Finding(topic, name, State.OK, found, f'for any other subscriber: {remedy}')
    text = chosen
    if '<' not in chosen:  # Else it is the configuration itself.
        try:
            text = Path(chosen.removeprefix('file://')).read_text(encoding='utf-8')
        except (OSError, UnicodeDecodeError) as error:
            found = f'{cyclonedds.PROFILE_VARIABLE}: {error}; no node would start'
            return Finding(topic, name, State.WARNING, found, remedy)
    if cyclonedds.BUFFER_SETTING not in text:
        found = f'{chosen} asks for no {cyclonedds.BUFFER_SETTING}: large images get lost'
        return Finding(topic, name, State.WARNING, found, remedy)
    return Finding(topic, name, State.OK, f'{chosen}, with {cyclonedds.BUFFER_SETTING}')


def _find_receive_buffer(topic: str) -> Finding:
    """Say whether the kernel allows the receive buffer that the profile asks for."""
    name, limit = 'net.core.rmem_max', cyclonedds.receive_buffer_limit()
    if not limit:
        return Finding(topic, name, State.WARNING, 'not known', f'sudo {cyclonedds.RAISE_LIMIT}')
    if limit < cyclonedds.WANTED_BUFFER_BYTES:
        found = f'{limit} bytes: the kernel drops large images in part, so they get lost'
        return Finding(topic, name, State.WARNING, found, f'sudo {cyclonedds.RAISE_LIMIT}')
    return Finding(topic, name, State.OK, f'{limit // _MEGABYTE} MiB')


def _find_zenoh_setting(topic: str, middleware: str) -> Finding:
    """Say whether shared memory is asked for by the variable; a file of settings is not read."""
    name = 'shared memory'
    if _ZENOH_SHARED_MEMORY in os.environ.get(_ZENOH_VARIABLE, '').replace(' ', ''):
        return Finding(topic, name, State.OK, f'{middleware}: {_ZENOH_SHARED_MEMORY}')
    found = f'{middleware}: {_ZENOH_VARIABLE} does not ask for it, so images go through TCP'
    remedy = (
        f"export {_ZENOH_VARIABLE}='{_ZENOH_SHARED_MEMORY}', for cameras, too (not tried here)"
    )
    return Finding(topic, name, State.ABSENT, found, remedy)
