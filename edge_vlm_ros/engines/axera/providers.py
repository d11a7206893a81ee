"""Which way to the chip is taken where several could be meant: its own board, or a card.

A board may have both libraries, libax_engine and libaxcl_rt. Wheels of axengine up to 0.1.3.rc2
then name the card's first, whether or not there is a card. So we choose by what is there.

Source: AXERA-TECH/pyaxengine (_providers.py, its history); the vendor's number on the PCI bus is
that of the public PCI ID repository (1f4b, Axera Semiconductor).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

from edge_vlm_ros.core import SetupError

ProviderName: TypeAlias = Literal['auto', 'chip', 'card']

ON_CHIP: Final = 'AxEngineExecutionProvider'
ON_CARD: Final = 'AXCLRTExecutionProvider'
NO_CARD: Final = 'find total 0 device'
"""What the package says when the card's driver lists none."""

_NAMES: Final = {'chip': ON_CHIP, 'card': ON_CARD}
_LIBRARIES: Final = {ON_CHIP: 'libax_engine and libax_sys', ON_CARD: 'libaxcl_rt'}
_CARD_DEVICE: Final = 'dev/axcl_host'
_PCI: Final = 'sys/bus/pci/devices'
_PCI_VENDOR: Final = '0x1f4b'


def choose_provider(
    wanted: ProviderName, available: Sequence[str], index: int, root: Path = Path('/')
) -> str:
    """Choose a provider of axengine.

    Args:
        wanted: 'auto' = by what is there.
        available: Those whose libraries the package found, in its order.
        index: Of the device that was asked for; the chip on its own board is 0 alone.
        root: What stands for `/`.

    Raises:
        SetupError: The one that was asked for has no library here.
    """
    if wanted != 'auto':
        name = _NAMES[wanted]
        if name not in available:
            raise SetupError(
                f'provider {wanted}: axengine finds no {_LIBRARIES[name]} (it found '
                f'{", ".join(available)}): install the SDK that brings them and add their folder '
                'to /etc/ld.so.conf.d, or choose provider auto'
            )
        return name
    if not is_ambiguous(wanted, available):
        return available[0]
    return ON_CARD if index or has_card(root) else ON_CHIP


def is_ambiguous(wanted: ProviderName, available: Sequence[str]) -> bool:
    """Return whether both ways are open and nobody has said which is meant."""
    return wanted == 'auto' and {ON_CHIP, ON_CARD} <= set(available)


def has_card(root: Path = Path('/')) -> bool:
    """Return whether the card's driver is loaded and the PCI bus has a card.

    Where the bus cannot be seen (some containers), the driver is taken at its word.
    """
    if not (root / _CARD_DEVICE).exists():
        return False
    vendors = list((root / _PCI).glob('*/vendor'))
    return not vendors or any(_text(path) == _PCI_VENDOR for path in vendors)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding='ascii', errors='replace').strip().lower()
    except OSError:
        return ''
