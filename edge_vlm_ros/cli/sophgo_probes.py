"""Looking for a Sophgo chip: driver, libsophon, sophon-sail, memory and how it is shared out.

Where the formats come from: `/proc/bmsophon/driver_version` as sophgo/LLM-TPU's guide and
sophgo/sophon-tools' get_info.sh read it ('release version:0.5.0   release date: 20240304-175610');
the heaps' `summary` files as sophgo/sophon-demo's FAQ and libsophon's documentation print them;
memory_edit.sh as sophon-demo's READMEs use it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from edge_vlm_ros.cli.findings import Finding, State
from edge_vlm_ros.cli.machine import Machine, is_older, output_of, version_in
from edge_vlm_ros.cli.probes import find_devices
from edge_vlm_ros.cli.sail_probe import find_sail

TOPIC = 'Sophgo BM1684X, BM1688'
OLDEST_LIBSOPHON = (0, 5, 1)
"""On BM1684X, which V24.04.01 brings. BM1688 counts its SDK otherwise (v1.7.0)."""
_MEBIBYTE = 1 << 20
_DEVICES = ('/dev/bm-sophon*', '/dev/bm-tpu*')
_DRIVER = '/proc/bmsophon/driver_version'
_LIBSOPHON = '/opt/sophon/libsophon-current'
_HEAPS = '/sys/kernel/debug/ion/*_heap_dump/summary'
_HEAP = re.compile(r'(\w+) heap size:(\d+) bytes, used:(\d+) bytes')
_RELEASE = re.compile(r'release version:\s*(\S+)')
_ASK_MEMORY = 'import sophon.sail as sail; print(*sail.get_dev_stat(0))'
_KIT = "with the vendor's DeviceMemoryModificationKit"


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Memory that models may use, MiB.

    Attributes:
        total_mb: All of it; 0 = not known.
        heaps_mb: On a SoC, by heap: 'npu', 'vpu', 'vpp'.
    """

    total_mb: int = 0
    heaps_mb: Mapping[str, int] = field(default_factory=dict)


def find_sophgo(machine: Machine) -> Iterator[Finding]:
    """Look for the runtime, the device, its driver and its memory."""
    yield replace(find_sail(machine, is_bm1688=is_bm1688(machine)), topic=TOPIC)
    device = find_devices(TOPIC, machine, _DEVICES)
    yield device
    if device.state is State.ABSENT:
        return
    yield find_libsophon(machine)
    memory = sophgo_memory(machine)
    if memory.heaps_mb:
        found = ', '.join(f'{heap} {size}' for heap, size in memory.heaps_mb.items())
        yield Finding(TOPIC, 'memory', State.OK, f'{found} MiB, {memory.total_mb} MiB in all')
    elif memory.total_mb:
        yield Finding(TOPIC, 'memory', State.OK, f'{memory.total_mb} MiB')
    else:
        found = f'{_HEAPS} cannot be read'
        yield Finding(TOPIC, 'memory', State.WARNING, found, 'as root: sudo edge-vlm doctor')


def find_libsophon(machine: Machine) -> Finding:
    """Look at the driver's version (cards) or at the installed library's (SoC)."""
    text, source = _libsophon(machine)
    version = version_in(text)
    if not version:
        found = f'no {_DRIVER}, no {_LIBSOPHON}'
        return Finding(TOPIC, 'libsophon', State.WARNING, found, 'install libsophon')
    found = f'{text} ({source})'
    if is_older(version, OLDEST_LIBSOPHON) and not is_bm1688(machine):
        remedy = 'models are built for SDK V24.04.01 (libsophon 0.5.1) or later: update the SDK'
        return Finding(TOPIC, 'libsophon', State.WARNING, found, remedy)
    return Finding(TOPIC, 'libsophon', State.OK, found)


def libsophon_version(machine: Machine) -> tuple[int, ...]:
    """Read the driver's or the installed library's version; () = not known."""
    return version_in(_libsophon(machine)[0])


def _libsophon(machine: Machine) -> tuple[str, str]:
    """Return what names the version, and where that stands."""
    release = _RELEASE.search(machine.read(_DRIVER))
    if release:
        return release[1], _DRIVER
    link = machine.at(_LIBSOPHON)
    named = str(link.readlink()) if link.is_symlink() else ''
    return named.rpartition('/')[2], _LIBSOPHON


def is_bm1688(machine: Machine) -> bool:
    """Return whether the machine is a BM1688 SoC."""
    return 'bm1688' in machine.read('/proc/cpuinfo').lower()


def sophgo_memory(machine: Machine) -> DeviceMemory:
    """Read how much memory models have: from the SoC's heaps, else from sophon-sail."""
    summaries = (machine.read(machine.name_of(path)) for path in machine.found(_HEAPS))
    heaps = parse_heaps(''.join(summaries))
    if heaps:
        return DeviceMemory(sum(heaps.values()), heaps)
    numbers = output_of(sys.executable, '-c', _ASK_MEMORY).split()[-3:]
    is_there = len(numbers) == 3 and numbers[0].isdigit()
    return DeviceMemory(int(numbers[0]) if is_there else 0)


def parse_heaps(text: str) -> dict[str, int]:
    """Read heap sizes, MiB by name, from the text of the `summary` files."""
    return {name: int(size) // _MEBIBYTE for name, size, _ in _HEAP.findall(text)}


def memory_remedy(command: str, machine: Machine) -> str:
    """Say how a SoC's memory is divided again.

    Args:
        command: `memory_edit.sh -c ...`.
        machine: Whose boot image it is.
    """
    image = 'boot.itb' if is_bm1688(machine) else 'emmcboot.itb'
    return (
        f'{_KIT}: ./memory_edit.sh -p shows it, {command} makes {image};'
        f' then sudo cp {image} /boot/{image} && sync && sudo reboot'
    )
