"""Why axengine does not open a file or itself, in words of who can act.

The package raises whatever it meets: a ModuleNotFoundError at the first session, when it imports
what it needs itself, a ValueError where another program shares the NPU out, a RuntimeError for all
that the driver says.

Source: AXERA-TECH/pyaxengine, 0.1.3 (_axe.py, _axclrt.py, _axe_capi.py).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final, Protocol

from edge_vlm_ros.core import DeviceError, EdgeVlmError, SetupError
from edge_vlm_ros.engines.axera.chip_memory import cannot_load
from edge_vlm_ros.engines.axera.providers import NO_CARD
from edge_vlm_ros.engines.vendor_words import brief

SDK_WITH_BF16: Final = {'ax650': '2.18', 'ax630c': '3.12'}
"""Oldest board SDK whose driver knows bfloat16 tensors; source: pyaxengine's README."""

_NEEDS: Final = {'cffi': 'cffi', '_cffi_backend': 'cffi', 'ml_dtypes': 'ml-dtypes'}
"""What the package imports with its first session: the module, and the package that brings it."""
_VNPU: Final = re.compile(r'vnpu is inited as\s+(?:VNPUType\.)?(\w+)', re.IGNORECASE)


class Where(Protocol):
    """What of a device a message names; see `runtime.Device`."""

    @property
    def chip(self) -> str: ...  # noqa: D102 (told there)
    @property
    def index(self) -> int | None: ...  # noqa: D102
    @property
    def is_card(self) -> bool: ...  # noqa: D102
    @property
    def cmm_info(self) -> Path: ...  # noqa: D102
    @property
    def loaded(self) -> set[Path]: ...  # noqa: D102


class NoCardError(DeviceError):
    """The card's driver lists no card."""


def why_not_imported(error: ImportError) -> SetupError:
    """Make the error of a part of axengine, or of what it needs, that cannot be imported."""
    needed = _missing_need(error)
    if not needed:
        return SetupError(no_library(error))
    is_absent = isinstance(error, ModuleNotFoundError) and error.name in {
        needed,
        needed.replace('-', '_'),
    }
    state = 'is not there' if is_absent else 'is damaged or was made for another Python'
    version = f'{sys.version_info.major}.{sys.version_info.minor}'
    return SetupError(
        f'axengine needs the Python package {needed}, which {state}; this is Python {version}: '
        f'{sys.executable} -m pip install --force-reinstall {needed} ({brief(error)})'
    )


def no_library(error: BaseException) -> str:
    """Say what to do where the package finds no C library."""
    return (
        f'axengine found no NPU library ({brief(error)}): libax_engine and libax_sys (on the '
        'board), or libaxcl_rt (for a card), must be known to ldconfig: add their folder, '
        'often /soc/lib or /opt/lib, to /etc/ld.so.conf.d and run ldconfig as root'
    )


def why_not_opened(device: Where, path: Path, error: Exception) -> EdgeVlmError:
    """Make the error of a session that the package could not open."""
    if isinstance(error, ImportError):
        return why_not_imported(error)
    found = _of_system(device, path, error) or _of_state(path, error)
    if found is not None:
        return found
    if device.is_card:
        return _of_card(device, path, error)
    is_first = not device.loaded
    return cannot_load(path, brief(error), is_first=is_first, cmm_info=device.cmm_info)


def _of_system(device: Where, path: Path, error: Exception) -> DeviceError | None:
    """Say what is wrong with the board's software, if it is that."""
    text = brief(error)
    if 'nsupported data type' in text:
        needed = SDK_WITH_BF16.get(device.chip, '')
        return SetupError(
            f'{path.name}: the board SDK does not know a tensor type of this model, bfloat16: '
            f'{device.chip or "the board"} needs SDK {needed or "newer"} or newer ({text})'
        )
    if isinstance(error, AssertionError | OSError) and 'librar' in text:
        return DeviceError(no_library(error))
    if 'initialize' in text:
        return DeviceError(
            f'the NPU driver does not start ({text}): are its kernel modules loaded, and may this '
            'user open /dev/ax_*?'
        )
    return None


def _of_state(path: Path, error: Exception) -> DeviceError | None:
    """Say what other programs do to the chip, if it is that: it may end by itself."""
    text = brief(error)
    mode = _VNPU.search(text)
    if mode:
        return DeviceError(
            f'{path.name}: the NPU is in the virtual mode {mode[1]}, which another program has '
            'set, and in it files for all of its cores do not run: end that program (sudo fuser '
            '-v /dev/ax_sys names it), or have it open the NPU undivided, with '
            f'AX_ENGINE_VIRTUAL_NPU_DISABLE ({text})'
        )
    if 'allocate memory' in text or 'Malloc' in text:
        return DeviceError(
            f'{path.name}: the chip has no memory left for it ({text}): stop other programs that '
            'use the NPU, or choose a smaller model'
        )
    return None


def _of_card(device: Where, path: Path, error: Exception) -> EdgeVlmError:
    text = brief(error)
    if isinstance(error, AttributeError) and 'vnpu' in text.lower():
        # The package stumbles over its own message when it finds the NPU initialised.
        return DeviceError(
            f"card {device.index}: another program has initialised the card's NPU ({text}): "
            'stop it; axcl-smi lists what uses the card'
        )
    if NO_CARD in text:
        return NoCardError(
            f'card {device.index}: the driver lists no card ({text}): lspci -d 1f4b: shows '
            'whether the bus has it; after a crash a card may need its power cut'
        )
    if 'device' in text.lower():
        return DeviceError(f'card {device.index}: {text}')
    return cannot_load(path, text, is_first=not device.loaded, cmm_info=None)


def _missing_need(error: ImportError) -> str:
    """Name the package that an import failed for; '' = none, but a library.

    A package of another Python fails below its own name: in its native part, or in numpy's.
    """
    name = (error.name or '').partition('.')[0]
    if name in _NEEDS:
        return _NEEDS[name]
    trace, found = error.__traceback__, ''
    while trace is not None:
        places = Path(trace.tb_frame.f_code.co_filename).parts
        found = next((_NEEDS[place] for place in places if place in _NEEDS), found)
        trace = trace.tb_next
    if found or not isinstance(error, ModuleNotFoundError):
        return found
    return name
