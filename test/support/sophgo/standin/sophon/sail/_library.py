"""The vendor's libraries in this process, and the one emulated device."""

from __future__ import annotations

import atexit
import ctypes as c
import os
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from sophon import _ledger
from sophon._counters import MisuseError, counters
from sophon.sail import _options
from sophon.sail._abi import BMLIB, BMRT, DeviceMemory, Pointer, declare
from sophon.sail._types import SailDeviceError

CHIP_NAMES: Final = {0x1686: 'BM1684X', 0x1686A200: 'BM1688'}
# Symbolic addresses of address mode 2 have a tag in the bits from here on; the emulator's memory
# ends far below.
TAG_SHIFT: Final = 36


class Library:
    """libbmlib and libbmrt, loaded once: their chip cannot change within a process."""

    _loaded: ClassVar[Library | None] = None
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, folder: Path) -> None:
        # libbmlib loads libcmodel.so from its own folder when a device is asked for.
        self.bmlib = c.CDLL(str(folder / 'libbmlib.so.0'), mode=c.RTLD_GLOBAL)
        self.bmrt = c.CDLL(str(folder / 'libbmrt.so.1.0'), mode=c.RTLD_GLOBAL)
        declare(self.bmlib, BMLIB)
        declare(self.bmrt, BMRT)
        self._devices: dict[int, Device] = {}

    @classmethod
    def of_this_process(cls) -> Library:
        """Return the libraries.

        Raises:
            ImportError: There are none, as on a machine without Sophgo's SDK.
        """
        with cls._lock:
            if cls._loaded is None:
                folder = _options.library_folder()
                if folder is None or not folder.is_dir():
                    raise ImportError(
                        'libbmrt.so.1.0: cannot open shared object file: No such file or '
                        f'directory (EDGE_VLM_EMULATOR_LIBS is {str(folder or "")!r})'
                    )
                send_output_to(_options.log_file())
                try:
                    cls._loaded = cls(folder)
                except OSError as error:
                    raise ImportError(str(error)) from error
            return cls._loaded

    def device(self, number: int) -> Device:
        """Return a device, opened at the first call.

        Raises:
            SailDeviceError: There is no such device.
        """
        if number != 0:
            raise SailDeviceError('init device failure')
        with self._lock:
            if number not in self._devices:
                self._devices[number] = Device(self, number)
            return self._devices[number]

    def open_devices(self) -> list[Device]:
        """Return the devices that were asked for so far."""
        return list(self._devices.values())


def send_output_to(log: Path | None) -> None:
    """Let the libraries, which print hundreds of lines a launch, print into a file.

    They write to the file descriptors 1 and 2, so these become the file, and Python's own
    streams move to copies of what the descriptors were.
    """
    if log is None:
        return
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for name, number in (('stdout', 1), ('stderr', 2)):
        stream = getattr(sys, name)
        if stream is not None:
            stream.flush()
        ours = os.fdopen(os.dup(number), 'w', buffering=1, encoding='utf-8', errors='replace')
        setattr(sys, name, ours)
        setattr(sys, f'__{name}__', ours)
        os.dup2(file, number)
    os.close(file)


class Loaded(Protocol):
    """A loaded model, as its device knows it."""

    @property
    def is_open(self) -> bool:
        """Whether it is still loaded."""
        ...

    def unload(self) -> None:
        """Unload it."""
        ...


class Block:
    """A range of device memory. Views share the block that they lie in.

    Args:
        device: Where it lies.
        memory: The range; its owner frees it.
        is_alive: Tells whether the owner still has it.
    """

    def __init__(self, device: Device, memory: DeviceMemory, is_alive: Callable[[], bool]) -> None:
        self.device = device
        self._memory = memory
        self._is_alive = is_alive

    def range(self, offset: int, size: int) -> DeviceMemory:
        """Return a part of it, in bytes.

        Raises:
            MisuseError: The memory is gone, or was never more than a symbol.
        """
        if not self._is_alive():
            raise MisuseError('device memory is used after its owner freed it')
        if self._memory.address >> TAG_SHIFT:
            raise MisuseError(
                f'address {self._memory.address:#x} is a symbol of address mode 2, no memory'
            )
        return DeviceMemory(
            self._memory.address + offset,
            self._memory.reserved,
            self._memory.dmabuf_fd,
            self._memory.flags,
            size,
        )


class Device:
    """One emulated chip: memory and copies. Every read waits until the chip has come to rest."""

    def __init__(self, library: Library, number: int) -> None:
        self.number = number
        self._bmlib = library.bmlib
        self.handle = Pointer()
        if self._bmlib.bm_dev_request(c.byref(self.handle), number) != 0:
            raise SailDeviceError('init device failure')
        chip = c.c_uint()
        self._check(self._bmlib.bm_get_chipid(self.handle, c.byref(chip)), 'bm_get_chipid')
        self.chip_name = CHIP_NAMES.get(chip.value, f'{chip.value:#x}')
        self.memory_bytes = _options.memory_bytes()
        self._live: dict[int, DeviceMemory] = {}
        self.model_bytes = 0  # what loaded models hold, roughly: the size of their files
        self.has_settled = True  # nothing runs that was not waited for
        self._engines: weakref.WeakSet[Loaded] = weakref.WeakSet()
        self._lock = threading.Lock()
        atexit.register(self._close)

    def usable_prefix(self, engine: Loaded) -> None:
        """Take note of a loaded model, for as long as somebody holds it."""
        self._engines.add(engine)

    def engines(self) -> list[Loaded]:
        """Return what is loaded now."""
        return [engine for engine in self._engines if engine.is_open]

    @property
    def live_bytes(self) -> int:
        """Device memory that tensors hold."""
        return sum(m.size for m in self._live.values())

    @property
    def free_bytes(self) -> int:
        """Device memory that nothing holds."""
        return self.memory_bytes - self.live_bytes - self.model_bytes

    def allocate(self, size: int) -> tuple[Block, Callable[[], None]]:
        """Return zeroed memory and what frees it.

        Raises:
            RuntimeError: There is not enough; so arrives sail's SailRuntimeError in Python.
        """
        if size > self.free_bytes:
            raise RuntimeError('no enough device memory')
        memory = DeviceMemory()
        with self._lock:
            status = self._bmlib.bm_malloc_device_byte(self.handle, c.byref(memory), size)
        if status != 0:
            raise RuntimeError('no enough device memory')
        address = int(memory.address)
        self._live[address] = memory
        _ledger.note(_ledger.BLOCK, address, size)
        counters().allocations.add(size)
        block = Block(self, memory, lambda: self._live.get(address) is memory)
        self.fill(block.range(0, size), bytes(4 if size % 4 == 0 else 1))
        return block, lambda: self._give_back(address, memory)

    def _give_back(self, address: int, memory: DeviceMemory) -> None:
        if self._live.get(address) is memory:
            _ledger.strike(_ledger.BLOCK, address)
            self._free(address, memory)

    def _free(self, address: int, memory: DeviceMemory) -> None:
        if self._live.get(address) is memory:
            del self._live[address]
            with self._lock:
                self._bmlib.bm_free_device(self.handle, memory)

    def fill(self, memory: DeviceMemory, pattern: bytes) -> None:
        """Repeat a pattern of 1, 2 or 4 bytes over memory.

        Through the host on the BM1688, whose emulator takes up to 0.4 s for it on the device.
        """
        counters().memset.add(memory.size)
        if self.chip_name == 'BM1688':
            element = np.frombuffer(pattern, f'u{len(pattern)}')[0]
            self._copy_in(memory, np.full(memory.size // len(pattern), element))
            return
        value = c.create_string_buffer(pattern, max(4, len(pattern)))
        self.has_settled = False
        with self._lock:
            status = self._bmlib.bm_memset_device_ext(
                self.handle, c.byref(value), len(pattern), memory
            )
        self._check(status, 'bm_memset_device_ext')

    def to_device(self, memory: DeviceMemory, data: NDArray[Any]) -> None:
        """Copy a contiguous host array to the start of device memory."""
        counters().s2d.add(data.nbytes)
        self._copy_in(memory, data)

    def to_host(self, memory: DeviceMemory, data: NDArray[Any]) -> None:
        """Fill a contiguous host array from the start of device memory."""
        counters().d2s.add(data.nbytes)
        self._copy_out(memory, data)

    def on_device(self, target: DeviceMemory, source: DeviceMemory) -> None:
        """Copy device memory of the same size.

        The chips can do it; the emulator of the BM1688 aborts in it or copies wrong data, so the
        copy goes through the host there.
        """
        counters().d2d.add(source.size)
        if self.chip_name == 'BM1688':
            bounce = np.empty(source.size, np.uint8)
            self._copy_out(source, bounce)
            self._copy_in(target, bounce)
            return
        self.has_settled = False
        with self._lock:
            status = self._bmlib.bm_memcpy_d2d_byte(self.handle, target, 0, source, 0, source.size)
        self._check(status, 'bm_memcpy_d2d_byte')

    def wait(self) -> None:
        """Wait until everything that was started has ended.

        Raises:
            RuntimeError: The chip reports an error.
        """
        self._check(self._bmlib.bm_thread_sync(self.handle), 'bm_thread_sync')
        self.has_settled = True

    def _copy_in(self, memory: DeviceMemory, data: NDArray[Any]) -> None:
        with self._lock:
            status = self._bmlib.bm_memcpy_s2d_partial_offset(
                self.handle, memory, data.ctypes.data, data.nbytes, 0
            )
        self._check(status, 'bm_memcpy_s2d_partial')

    def _copy_out(self, memory: DeviceMemory, data: NDArray[Any]) -> None:
        if not self.has_settled:  # the emulator of the BM1688 takes 0.2 s to say that it has
            self.wait()
        with self._lock:
            status = self._bmlib.bm_memcpy_d2s_partial_offset(
                self.handle, data.ctypes.data, memory, data.nbytes, 0
            )
        self._check(status, 'bm_memcpy_d2s_partial')

    @staticmethod
    def _check(status: int, call: str) -> None:
        if status != 0:
            raise RuntimeError(f'{call} failed: {status}')

    def _close(self) -> None:
        """Give everything back at the end: the emulator ends a process that does not with 255."""
        for engine in self.engines():
            engine.unload()
        for address, memory in list(self._live.items()):
            self._free(address, memory)
        self._bmlib.bm_dev_free(self.handle)
