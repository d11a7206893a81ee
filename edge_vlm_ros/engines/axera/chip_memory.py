"""The chip's memory (CMM): how much is free, and what it means when a file does not load."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from edge_vlm_ros.core import DeviceError, EdgeVlmError, ModelFileError


def cmm_info_path() -> Path:
    """Return where the driver reports the chip's memory (CMM), on the board itself.

    EDGE_VLM_AX_CMM_INFO names another place: of a container that was given the file elsewhere.
    """
    return Path(os.environ.get('EDGE_VLM_AX_CMM_INFO') or '/proc/ax_proc/mem_cmm_info')


CMM_INFO = cmm_info_path()
"""That place, as it was when this was imported."""
# Its last line: ' total size=7208960KB(7040MB),used=18876KB(18MB + 444KB),remain=7190084KB(...),'
_REMAIN = re.compile(r'total size=\d+KB.*?remain=(\d+)KB')
# Of `axcl-smi info --cmm`, as the vendor's guides print it: 'CMM Remain          :  7190084 kiB'.
_CARD_REMAIN = re.compile(r'CMM Remain\s*:\s*(\d+)\s*KiB', re.IGNORECASE)
_TOOLS = ('/usr/bin/axcl', '/usr/bin')
_ANSWER_S = 10
_MIB = 1 << 20


def free_chip_bytes(cmm_info: Path = CMM_INFO) -> int | None:
    """Read how much of the chip's memory is free; None = not reported."""
    try:
        found = _REMAIN.findall(cmm_info.read_text(encoding='utf-8', errors='replace'))
    except OSError:
        return None
    return sum(map(int, found)) << 10 if found else None


def free_card_bytes(index: int) -> int | None:
    """Ask a card's driver how much of its memory is free; None = not reported.

    `axcl-smi` is asked, in a process of its own: what the library tells of a device makes it the
    thread's and lets go of it again, under models that run there.

    Args:
        index: The card's number in the driver's list.
    """
    tool = shutil.which('axcl-smi', path=os.pathsep.join([os.environ.get('PATH', ''), *_TOOLS]))
    if tool is None:
        return None
    try:
        done = subprocess.run(
            [tool, 'info', '--cmm', '-d', str(index)],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=_ANSWER_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _CARD_REMAIN.search(done.stdout.decode('utf-8', 'replace'))
    return int(found[1]) << 10 if found else None


def free_bytes_of(card: int | None, cmm_info: Path = CMM_INFO) -> int | None:
    """Read how much memory the board's own chip or a card has free; None = not reported."""
    return free_chip_bytes(cmm_info) if card is None else free_card_bytes(card)


def cannot_load(
    path: Path, why: str, *, is_first: bool, cmm_info: Path | None = CMM_INFO
) -> EdgeVlmError:
    """Make the error of a file that the driver does not load.

    Loading is where weights go onto the chip, and the driver gives the same error for a damaged
    file as for a full chip. A damaged file stays damaged and nobody loads it again, a chip may be
    free in a minute: so what may be the chip is reported as the chip's.

    Args:
        path: The file.
        why: What the driver said.
        is_first: Whether no file was loaded before it: then nothing of the set fills the chip.
        cmm_info: Where the driver reports memory; None = it is not this system's.

    Returns:
        A DeviceError where another file was loaded or free memory is less than the file, else a
        ModelFileError.
    """
    free = free_chip_bytes(cmm_info) if cmm_info else None
    size = path.stat().st_size
    if is_first and (free is None or free >= size):
        return ModelFileError(
            f'{path}: the driver cannot load it (a file for another chip, of a newer compiler, or '
            f'damaged): {why}'
        )
    told = '' if free is None else f', {free / _MIB:.0f} MiB are free'
    damaged = '' if is_first else '; if it has room, this file is for another chip or damaged'
    return DeviceError(
        f'{path}: chip memory full, or the NPU is busy with another program: see {CMM_INFO} '
        f'(card: axcl-smi){damaged} (it has {size / _MIB:.0f} MiB{told}; {why})'
    )
