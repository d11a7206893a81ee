"""Looking for an Axera chip: SDK, axengine, the C libraries, cards, CMM and host memory.

Where the formats come from: `/proc/ax_proc/version` ('Ax_Version V3.6.2_20250731140456') and
`axcl-smi` as AXERA's guides print them; `/proc/ax_proc/mem_cmm_info` as AXERA-TECH/libclip.axera
and ax-llm parse it; `/proc/ax_proc/chip_type` ('AX650C_CHIP', 'AX630C_CHIP') as board guides and
AXERA-TECH/axcl-runtime read it.
"""

from __future__ import annotations

import ctypes.util
import re
from collections.abc import Iterator
from dataclasses import dataclass

from edge_vlm_ros.cli.axengine_probe import find_axengine
from edge_vlm_ros.cli.findings import Finding, State
from edge_vlm_ros.cli.machine import Machine, is_older, output_of, version_in
from edge_vlm_ros.cli.probes import find_devices

TOPIC = 'Axera AX650N, AX630C'
OLDEST_SDK = {'ax650': (2, 18), 'ax630c': (3, 12)}
"""The first whose driver knows bfloat16; source: pyaxengine's README."""
_ON_CHIP = '/dev/ax_sys'
_CARD = '/dev/axcl_host'
_VERSION = '/proc/ax_proc/version'
_CHIP_TYPE = '/proc/ax_proc/chip_type'
_VIRTUAL_MODE = '/proc/ax_proc/npu/vnpu'
_CMM = '/proc/ax_proc/mem_cmm_info'
_CMM_TOTALS = re.compile(r'total size=(\d+)KB.*?used=(\d+)KB.*?remain=(\d+)KB')
_CARD_ROW = re.compile(r'^\|\s*(\d+)\s+(AX\w+)\s+(V[\w.]+)\s*\|', re.MULTILINE | re.IGNORECASE)
_CARD_CMM = re.compile(r'%\s*\|\s*(\d+) MiB\s*/\s*(\d+) MiB\s*\|')
_CARD_DRIVER = re.compile(r'Driver\s+(V[\w.]+)')
_FOLDERS = ('/soc/lib', '/opt/lib', '/usr/lib', '/usr/lib/axcl')


@dataclass(frozen=True, slots=True)
class ChipMemory:
    """Memory of one chip that models may use, MiB.

    Attributes:
        where: 'on chip', or 'card 0', ...
        total_mb: All of it.
        free_mb: What no program holds now.
    """

    where: str
    total_mb: int
    free_mb: int


def find_axera(machine: Machine) -> Iterator[Finding]:
    """Look for the runtime, the device, its SDK and its memory."""
    yield from find_axengine(TOPIC, machine)
    device = find_devices(TOPIC, machine, (_CARD, _ON_CHIP))
    yield device
    if device.state is State.ABSENT:
        return
    is_card = machine.at(_CARD).exists()
    yield find_library(machine, 'axcl_rt' if is_card else 'ax_engine')
    yield from find_cards() if is_card else ()
    if machine.at(_ON_CHIP).exists():
        yield find_sdk(machine)
        yield from find_virtual_mode(machine)
    for memory in axera_memory(machine):
        found = f'{memory.total_mb} MiB, {memory.free_mb} MiB free'
        yield Finding(TOPIC, f'CMM {memory.where}', State.OK, found)
    if not axera_memory(machine):
        found = f'{_CMM} and axcl-smi show none'
        yield Finding(TOPIC, 'CMM', State.WARNING, found, "load the vendor's driver")


def find_library(machine: Machine, name: str) -> Finding:
    """Look for a C library the way axengine does; say where it lies if that fails."""
    found = ctypes.util.find_library(name)
    if found:
        return Finding(TOPIC, f'lib{name}', State.OK, found)
    lying = machine.found(*(f'{folder}/lib{name}.so*' for folder in _FOLDERS))
    if not lying:
        return Finding(TOPIC, f'lib{name}', State.WARNING, 'not found', "install the vendor's SDK")
    folder = machine.name_of(lying[0].parent)
    remedy = f'echo {folder} | sudo tee /etc/ld.so.conf.d/axera.conf && sudo ldconfig'
    told = f'in {folder}, where the loader does not look'
    return Finding(TOPIC, f'lib{name}', State.WARNING, told, remedy)


def find_sdk(machine: Machine) -> Finding:
    """Look at the board's SDK: is it one whose driver knows bfloat16?"""
    text = machine.read(_VERSION).strip()
    chip = chip_of(machine)
    version = sdk_version(machine)
    if not version:
        return Finding(TOPIC, 'SDK', State.WARNING, f'{_VERSION} shows none', 'update the board')
    found = f'{text.rpartition(" ")[2]} ({machine.read(_CHIP_TYPE).strip() or "chip unknown"})'
    oldest = OLDEST_SDK.get(chip, OLDEST_SDK['ax650'])
    if is_older(version, oldest):
        needed = '.'.join(map(str, oldest))
        remedy = f'models use bfloat16, which SDK {needed} brings: update the board'
        return Finding(TOPIC, 'SDK', State.WARNING, found, remedy)
    return Finding(TOPIC, 'SDK', State.OK, found)


def find_virtual_mode(machine: Machine) -> Iterator[Finding]:
    """Say that another program has shared the NPU out: files for all its cores fail then."""
    mode = machine.read(_VIRTUAL_MODE).strip()
    if mode and mode != 'disable':
        remedy = 'end the program that has set it: sudo fuser -v /dev/ax_sys'
        yield Finding(TOPIC, 'NPU', State.WARNING, f'in the virtual mode {mode}', remedy)


def sdk_version(machine: Machine) -> tuple[int, ...]:
    """Read the board's SDK version; () = not known, or a card."""
    return version_in(machine.read(_VERSION))


def chip_of(machine: Machine) -> str:
    """Say which of our chips the board is; '' = not known. A card is an AX650."""
    text = machine.read(_CHIP_TYPE).upper()
    if '650' in text or (not text and machine.at(_CARD).exists()):
        return 'ax650'
    return 'ax630c' if re.search(r'6[23]0', text) else ''


def find_cards() -> list[Finding]:
    """Look at the cards that `axcl-smi` lists, and at the driver's version."""
    text = output_of('axcl-smi')
    driver = _CARD_DRIVER.search(text)
    cards = _CARD_ROW.findall(text)
    if not cards or not driver:
        remedy = "install the vendor's axcl host package and plug the card in"
        return [Finding(TOPIC, 'cards', State.WARNING, 'axcl-smi lists none', remedy)]
    return [_card(*card, driver=driver[1]) for card in cards]


def _card(number: str, name: str, firmware: str, *, driver: str) -> Finding:
    found = f'{name}, firmware {firmware}, driver {driver}'
    if is_older(version_in(firmware), OLDEST_SDK['ax650']):
        remedy = 'models use bfloat16, which 2.18 brings: update firmware and driver'
        return Finding(TOPIC, f'card {number}', State.WARNING, found, remedy)
    return Finding(TOPIC, f'card {number}', State.OK, found)


def axera_memory(machine: Machine) -> list[ChipMemory]:
    """Read what memory models have: of the chip, or of every card."""
    if machine.at(_CARD).exists():
        text = output_of('axcl-smi')
        cards = [number for number, _, _ in _CARD_ROW.findall(text)]
        sizes = [(int(used), int(total)) for used, total in _CARD_CMM.findall(text)]
        pairs = zip(cards, sizes, strict=False)
        return [ChipMemory(f'card {n}', total, total - used) for n, (used, total) in pairs]
    totals = parse_cmm(machine.read(_CMM))
    return [ChipMemory('on chip', *totals)] if totals else []


def parse_cmm(text: str) -> tuple[int, int] | None:
    """Read CMM in all and free, MiB, from the text of mem_cmm_info; None = it shows none."""
    found = _CMM_TOTALS.findall(text)
    if not found:
        return None
    # The line with the sum of all partitions comes last.
    total, _, remain = map(int, found[-1])
    return total // 1024, remain // 1024
