"""Why a chip is slower here than somebody else measured it, read off the machine's files.

Where the formats come from: `/proc/ax_proc/mem_cmm_info` as AXERA's own axcl-smi reads it (blocks
of the NPU are named after their process: `name="npu_m_pid592"`); the clocks of Sophgo's SoCs as
sophgo/sophon-tools' get_info.sh reads them, those of cards as libsophon's documentation lists
`/proc/bmsophon`; temperatures, swap and cpufreq are the kernel's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from edge_vlm_ros.cli.machine import Machine

_CMM: Final = '/proc/ax_proc/mem_cmm_info'
_BLOCK: Final = re.compile(r'length=(\d+)KB[^\n]*?name=\s*"[^"\n]*_pid(\d+)[^"\n]*"')
_MEGAHERTZ: Final = 1_000_000
_SOC_CLOCKS: Final = (
    ('/sys/kernel/debug/clk/tpll_clock/clk_rate', 1000),
    ('/sys/kernel/debug/clk/clk_tpll/clk_rate', 900),
)
"""Of BM1684X and BM1688: where the chip's clock stands, Hz, and its usual rate, MHz."""
_HOST: Final = 'the processor'
_CARDS: Final = '/proc/bmsophon/card*'
_THROTTLED: Final = 0.95
_HOT_C: Final = 95
_LEAST_AVAILABLE_MB: Final = 256
_SWAPPED_MB: Final = 64
_CMM_WORTH_A_WORD_MB: Final = 16


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason.

    Attributes:
        name: In a word.
        found: What was found; one line.
        remedy: What to do about it.
        factor: By how much tokens are slower, as far as that follows; 1 = not known.
    """

    name: str
    found: str
    remedy: str
    factor: float = 1.0


def causes_of_slowness(machine: Machine) -> list[Cause]:
    """Look for all of them."""
    return [*_dead_memory(machine), *_host_memory(machine), *_clock(machine), *_heat(machine)]


def cause_of_copies(way: str, *, is_card: bool) -> Cause | None:
    """Say what the way costs by which an Axera chip is driven; None = nothing.

    Args:
        way: 'in place', 'portable' or ''.
        is_card: Whether the chip sits on a card.
    """
    if way != 'portable':
        return None
    if is_card:
        found = 'whole caches cross PCIe for every token (backend portable on a card)'
    else:
        found = 'whole caches are copied and flushed for every token (backend portable)'
    remedy = 'the log of the load says why backend in_place did not work; option backend=in_place'
    return Cause('copies', found, remedy)


def dead_cmm_mb(machine: Machine) -> tuple[int, tuple[int, ...]]:
    """Add up the chip memory of processes that are no more, MiB; and name them."""
    held: dict[int, int] = {}
    for size_kb, pid in _BLOCK.findall(machine.read(_CMM)):
        held[int(pid)] = held.get(int(pid), 0) + int(size_kb)
    if not machine.at('/proc/self').exists() and not machine.found('/proc/[0-9]*'):
        return 0, ()  # A copy of a board's files without its processes: nobody can tell.
    dead = {pid: size for pid, size in held.items() if not machine.at(f'/proc/{pid}').exists()}
    return sum(dead.values()) // 1024, tuple(sorted(dead))


def _dead_memory(machine: Machine) -> Iterator[Cause]:
    size_mb, pids = dead_cmm_mb(machine)
    if size_mb >= _CMM_WORTH_A_WORD_MB:
        named = ', '.join(map(str, pids[:3]))
        found = f'{size_mb} MiB of CMM belong to processes that are no more ({named})'
        yield Cause('dead memory', found, 'reboot: nothing else gives it back')


def _host_memory(machine: Machine) -> Iterator[Cause]:
    info = machine.read('/proc/meminfo')
    sizes = {name: int(size) // 1024 for name, size in re.findall(r'(\w+):\s+(\d+) kB', info)}
    available, total = sizes.get('MemAvailable'), sizes.get('MemTotal', 0)
    swapped = sizes.get('SwapTotal', 0) - sizes.get('SwapFree', 0)
    remedy = 'end other programs, take a smaller model, or give Linux more of the memory'
    if available is not None and available < _LEAST_AVAILABLE_MB:
        left = f'{available} of {total} MiB of host memory are left'
        found = f'{left}: files are read again and again'
        yield Cause('host memory', found, remedy)
    elif swapped >= _SWAPPED_MB:
        yield Cause('host memory', f'{swapped} MiB are swapped out, of {total} MiB in all', remedy)


def _clock(machine: Machine) -> Iterator[Cause]:
    for what, now, usual in _clocks(machine):
        if 0 < now < _THROTTLED * usual:
            found = f'{what} runs at {now} MHz of {usual}'
            remedy = 'cool it, or raise its power limit: chips slow down when they are hot'
            factor = 1.0 if what == _HOST else usual / now
            yield Cause('clock', found, remedy, factor)


def _clocks(machine: Machine) -> Iterator[tuple[str, int, int]]:
    """Give each chip's clock and the host's: name, now, at its best, MHz."""
    for path, usual in _SOC_CLOCKS:
        rate = _number(machine.read(path))
        if rate:
            yield 'the chip', rate // _MEGAHERTZ, usual
    for card in machine.found(_CARDS):
        folder = machine.name_of(card)
        usual = _number(machine.read(f'{folder}/tpu_maxclk'))
        for chip in machine.found(f'{folder}/bmsophon*'):
            now = _number(machine.read(f'{machine.name_of(chip)}/tpu_freq'))
            yield f'{card.name} {chip.name}', now, usual
    policy = '/sys/devices/system/cpu/cpufreq/policy0'
    limit, best = (
        _number(machine.read(f'{policy}/{name}')) // 1000
        for name in ('scaling_max_freq', 'cpuinfo_max_freq')
    )
    yield _HOST, limit, best


def _heat(machine: Machine) -> Iterator[Cause]:
    zones = machine.found('/sys/class/thermal/thermal_zone*/temp')
    hottest = max((_number(machine.read(machine.name_of(path))) for path in zones), default=0)
    if hottest // 1000 >= _HOT_C:
        found = f'{hottest // 1000} degrees Celsius'
        yield Cause('heat', found, 'cool it: chips slow down when they are hot')


def _number(text: str) -> int:
    found = re.search(r'\d+', text)
    return int(found[0]) if found else 0
