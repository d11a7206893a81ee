"""One Sophgo chip, and the binding sophon-sail, which is imported here and nowhere else.

What is guarded here, because the binding does not (sophon-sail 3.9.1 to 3.10.7, `src/bind.cpp`):

* Releases before 3.9.1 have no views and end the process on a wrong shape: refused.
* Whatever it raises, its attempts to end the process among them, becomes a `DeviceError`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from edge_vlm_ros.core import DeviceError, SetupError
from edge_vlm_ros.engines.vendor_words import brief

_MIB = 2**20

_Result = TypeVar('_Result')


class Device:
    """One Sophgo chip.

    Args:
        chip: 'bm1684x' or 'bm1688'.
        index: Among those of the machine.

    Raises:
        DeviceError: The library is missing, too old or broken, there is no such device, or it is
            of another kind.

    Attributes:
        index: Among those of the machine.
        chip: Its kind.
        sail: The binding.
        handle: The binding's, of this device; None once closed.
    """

    def __init__(self, chip: str, index: int) -> None:
        self.sail = _import_sail()
        # Below errors it warns of each use of scratch memory, which is meant here.
        call('set_loglevel', self.sail.set_loglevel, self.sail.LogLevel.ERROR)
        found = call('get_available_tpu_num', self.sail.get_available_tpu_num)
        if not 0 <= index < found:
            # None at all may be one whose driver starts later than this.
            kind = SetupError if found else DeviceError
            raise kind(f'there is no Sophgo device {index}: this machine has {found}')
        self.handle: Any = call(f'device {index}', self.sail.Handle, index)
        self.index = index
        self.chip = chip
        target = str(call('get_target', self.handle.get_target))
        if target.lower() != chip:
            raise SetupError(f'device {index} is a {target}, this model runs on {chip.upper()}')

    def close(self) -> None:
        """Let go of the device; safe to call twice."""
        self.handle = None

    @property
    def shares_scratch(self) -> bool:
        """Whether all nets of a file share one scratch memory, at addresses that are known.

        Without the flag, which came with 3.9.4, BM1688 gives nets scratch memory of their own,
        whose addresses are not known before a launch (libsophon, bmruntime.cpp).
        """
        return hasattr(self.sail, 'BmrtFlag') or self.chip == 'bm1684x'

    def free_bytes(self) -> int | None:
        """Return the device memory that is not in use; None where the library does not say."""
        if not hasattr(self.sail, 'get_dev_stat'):
            return None
        stat = call('get_dev_stat', self.sail.get_dev_stat, self.index)
        total_mib, used_mib = int(stat[0]), int(stat[1])
        return (total_mib - used_mib) * _MIB if total_mib else None

    def check_memory(self, needed: int, what: Path) -> None:
        """Refuse a model that the free memory cannot hold.

        Raises:
            DeviceError: It needs more than is free.
        """
        free = self.free_bytes()
        if free is not None and needed > free:
            raise DeviceError(
                f'{what}: needs {needed / _MIB:.0f} MiB of device memory, device {self.index} has '
                f'{free / _MIB:.0f} MiB free (on a SoC the share of the NPU can be made larger '
                'with memory_edit.sh of the DeviceMemoryModificationKit)'
            )


def _import_sail() -> ModuleType:
    """Import sophon-sail and check that it is no older than 3.9.1.

    Its `__version__` may be a build date, so its abilities are looked at: views and the tensor
    getters came with 3.9.1, `EngineLLM` is left out of builds for an old SDK.
    """
    try:
        sail = import_module('sophon.sail')
    except (Exception, SystemExit) as error:
        raise SetupError(
            f'sophon-sail cannot be loaded: {brief(error)}; edge-vlm doctor says which version '
            "this board wants and how this Python gets it (doc/models.md, 'Getting sophon-sail')"
        ) from error
    version = getattr(sail, '__version__', 'unknown')
    tensor = getattr(sail, 'Tensor', None)
    for owner, name in ((sail, 'EngineLLM'), (sail, 'Tensor'), (tensor, 'element_size')):
        if not hasattr(owner, name):
            raise SetupError(
                f'sophon-sail {version} has no {name}: 3.9.1 or later is needed, built for an SDK '
                'that knows addr_mode'
            )
    return sail


def call(what: str, function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Call the binding; its failures, its attempts to exit among them, become `DeviceError`."""
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        raise DeviceError(f'{what}: {brief(error)}') from error
