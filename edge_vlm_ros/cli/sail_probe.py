"""Looking for sophon-sail: which version, what an old one lacks, and how this Python gets one.

Where the facts come from: sophgo/sophon-sail (releases and docs/source_en/3_build.rst), the wheels
that the READMEs of sophgo/sophon-demo hand out. A build of the source without media libraries was
run with this package on the vendor's emulator (Python 3.11).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Final

from edge_vlm_ros.cli.findings import Finding, State
from edge_vlm_ros.cli.machine import Machine, version_in
from edge_vlm_ros.cli.probes import find_vendor_module

MODULE: Final = 'sophon.sail'
OLDEST_SAIL: Final = (3, 9, 1)
"""The first whose mistakes are exceptions and that is made for Python 3.10 and later."""
SHARES_SCRATCH: Final = (3, 9, 4)
"""The first that loads all nets of a BM1688 into one scratch memory (BmrtFlag)."""
SOURCE: Final = 'github.com/sophgo/sophon-sail'
BUILD_DOC: Final = "doc/models.md, 'Getting sophon-sail'"


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel that the vendor hands out.

    Attributes:
        name: As far as it is known.
        python: Version it is for.
        board: Which, with whose samples.
    """

    name: str
    python: tuple[int, int]
    board: str


WHEELS: Final = (
    Wheel('sophon_arm-3.8.0', (3, 8), 'BM1688 SoC (SDK v1.7), with sophon-demo'),
    Wheel('sophon_arm-3.9.0', (3, 8), 'BM1684X SoC (SDK V24.04.01), with InternVL2 and Llama'),
    Wheel('sophon_arm-3.9.2', (3, 8), 'BM1684X SoC (SDK V24.04.01), with Qwen2-VL'),
)
"""`dfss --install sail` brings one of the like for the Python of the board's image."""

_LACKS: Final = (
    ((3, 9, 0), 'has no EngineLLM in its public release, and no address modes'),
    (OLDEST_SAIL, 'ends the process at a wrong shape, and is not made for Python 3.10 and later'),
    (SHARES_SCRATCH, 'gives each net of a BM1688 its own scratch memory (no BmrtFlag)'),
)
"""Up to which version, what it lacks."""


def find_sail(machine: Machine, *, is_bm1688: bool) -> Finding:
    """Look for sophon-sail; the finding's topic is the caller's to set.

    Args:
        machine: Its device says whether a card or a SoC is there.
        is_bm1688: Whether the chip is a BM1688, which needs more of it.
    """
    remedy = f'{how_to_get(machine)}; not needed for other chips'
    found = find_vendor_module('', MODULE, 'sophon', remedy)
    version = version_in(found.found)
    if found.state is not State.OK or not version:
        return found
    lacking = lacks(version)
    if not lacking:
        return found
    needed = SHARES_SCRATCH if is_bm1688 else OLDEST_SAIL
    state = State.WARNING if version < needed else State.OK
    told = f'{found.found}, which {"; ".join(lacking)}'
    wanted = '.'.join(map(str, SHARES_SCRATCH))
    advice = f'{wanted} or later: {how_to_get(machine)}' if state is State.WARNING else ''
    return replace(found, state=state, found=told, remedy=advice)


def lacks(version: tuple[int, ...]) -> list[str]:
    """Say what a version lacks of what this package uses; empty = nothing."""
    return [what for until, what in _LACKS if version < until]


def how_to_get(machine: Machine, python: tuple[int, int] = sys.version_info[:2]) -> str:
    """Say how a Python of this version gets sophon-sail on this machine."""
    dotted = '.'.join(map(str, python))
    fitting = [wheel for wheel in WHEELS if wheel.python == python]
    if fitting:
        names = ', '.join(f'{wheel.name}: {wheel.board}' for wheel in fitting)
        return f"the vendor's wheels for Python {dotted} ({names})"
    others = sorted({'.'.join(map(str, wheel.python)) for wheel in WHEELS})
    kind = 'pcie' if machine.found('/dev/bm-sophon*') and not _is_soc(machine) else 'soc'
    return (
        f"the vendor's wheels are for Python {', '.join(others)}, this is {dotted}: build "
        f'{SOURCE} for it without media libraries (-DONLY_RUNTIME=ON, wheel in python/{kind}), as '
        f'{BUILD_DOC} says'
    )


def _is_soc(machine: Machine) -> bool:
    return bool(machine.found('/dev/bm-tpu*'))
