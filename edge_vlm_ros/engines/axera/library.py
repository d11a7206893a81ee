"""The vendor's C library of the chip that this program runs on: ctypes, thin and typed.

pyaxengine offers whole arrays only: it copies and flushes every input in full at every run. Here
are the calls beneath it, so that caches stay on the chip and only written bytes are flushed.

The first session that axengine opens initialises driver and engine (importing it does not yet),
and it undoes both when the interpreter ends. So a session is opened first, and nothing here calls
Init or Deinit. Handles and chip memory opened here are closed by their owner before the end. One
thread calls all of it; the interpreter lock is given up during each call.

Source: headers of the vendor's SDK (ax_sys_api.h, ax_engine_api.h, ax_engine_type.h) as pyaxengine
0.1.3 declares them for 64-bit systems; AX_ENGINE_GetTotalOps and SetAffinity tell the chips apart
there as here.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_int8, c_int32, c_uint8, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

from edge_vlm_ros.core import DeviceError, SetupError
from edge_vlm_ros.engines.axera.chip_memory import CMM_INFO
from edge_vlm_ros.engines.axera.load_progress import BeforeFile, never_stopped

SYS_NAME = 'libax_sys.so'
ENGINE_NAME = 'libax_engine.so'
FOLDERS = (Path('/soc/lib'), Path('/opt/lib'), Path('/usr/local/lib'), Path('/usr/lib'))
"""Where board images keep them, should the loader not know."""


class NpuAttr(ctypes.Structure):
    """AX_ENGINE_NPU_ATTR_T."""

    _fields_ = (('hard_mode', c_int32), ('reserve', c_uint32 * 8))


class HandleExtra(ctypes.Structure):
    """AX_ENGINE_HANDLE_EXTRA_T."""

    _fields_ = (('npu_set', c_uint32), ('name', ctypes.c_char_p), ('reserve', c_uint32 * 8))


class IoMeta(ctypes.Structure):
    """AX_ENGINE_IO_META_T: one tensor as the model declares it."""

    name: bytes
    shape: Any
    rank: int
    data_type: int
    size: int
    _fields_ = (
        ('name', ctypes.c_char_p),
        ('shape', POINTER(c_int32)),
        ('rank', c_uint8),
        ('layout', c_int32),
        ('memory_type', c_int32),
        ('data_type', c_int32),
        ('extra', c_void_p),
        ('size', c_uint32),
        ('quantization', c_uint32),
        ('stride', c_void_p),
        ('reserved', c_uint64 * 9),
    )


class IoInfo(ctypes.Structure):
    """AX_ENGINE_IO_INFO_T: the tensors of one shape group."""

    inputs: Any
    input_count: int
    outputs: Any
    output_count: int
    _fields_ = (
        ('inputs', POINTER(IoMeta)),
        ('input_count', c_uint32),
        ('outputs', POINTER(IoMeta)),
        ('output_count', c_uint32),
        ('max_batch', c_uint32),
        ('dynamic_batch', c_int32),
        ('reserved', c_uint64 * 11),
    )


class IoBuffer(ctypes.Structure):
    """AX_ENGINE_IO_BUFFER_T: where one tensor lies, for the chip and for us."""

    phy: int
    vir: int
    size: int
    _fields_ = (
        ('phy', c_uint64),
        ('vir', c_void_p),
        ('size', c_uint32),
        ('stride', c_void_p),
        ('stride_rank', c_uint8),
        ('reserved', c_uint64 * 11),
    )


class Io(ctypes.Structure):
    """AX_ENGINE_IO_T: what a run reads and writes.

    Newer SDKs read two words after it (nParallelRun); zero = off.
    """

    inputs: Any
    input_count: int
    outputs: Any
    output_count: int
    _fields_ = (
        ('inputs', POINTER(IoBuffer)),
        ('input_count', c_uint32),
        ('outputs', POINTER(IoBuffer)),
        ('output_count', c_uint32),
        ('batch', c_uint32),
        ('setting', c_void_p),
        ('reserved', c_uint64 * 11),
    )


_SYS = {
    'AX_SYS_MemAllocCached': (
        POINTER(c_uint64), POINTER(c_void_p), c_uint32, c_uint32, POINTER(c_int8)
    ),
    'AX_SYS_MemFree': (c_uint64, c_void_p),
    'AX_SYS_MflushCache': (c_uint64, c_void_p, c_uint32),
    'AX_SYS_MinvalidateCache': (c_uint64, c_void_p, c_uint32),
}  # fmt: skip
_ENGINE = {
    'AX_ENGINE_GetVNPUAttr': (POINTER(NpuAttr),),
    'AX_ENGINE_CreateHandleV2': (POINTER(c_void_p), c_void_p, c_uint32, POINTER(HandleExtra)),
    'AX_ENGINE_DestroyHandle': (c_void_p,),
    'AX_ENGINE_CreateContextV2': (c_void_p, POINTER(c_void_p)),
    'AX_ENGINE_GetGroupIOInfoCount': (c_void_p, POINTER(c_uint32)),
    'AX_ENGINE_GetGroupIOInfo': (c_void_p, c_uint32, POINTER(POINTER(IoInfo))),
    'AX_ENGINE_GetIOInfo': (c_void_p, POINTER(POINTER(IoInfo))),
    'AX_ENGINE_RunSyncV2': (c_void_p, c_void_p, POINTER(Io)),
    'AX_ENGINE_RunGroupIOSync': (c_void_p, c_void_p, c_uint32, POINTER(Io)),
}


class Library:
    """libax_sys and libax_engine, loaded, and initialised by an axengine session before.

    Args:
        folder: Where they lie; None = those that this process already uses, else what the loader
            finds, else the usual folders.

    Raises:
        DeviceError: Not found, not initialised, without a function, or the system has 32 bits.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if ctypes.sizeof(c_void_p) != 8:
            raise DeviceError('chip memory is bound in place on 64-bit systems only')
        self.cmm_info = CMM_INFO
        """Where the driver reports the chip's memory."""
        self.loaded: set[Path] = set()
        """Files that it has loaded; `Model` adds to it."""
        self.before_file: BeforeFile = never_stopped
        """Called by `Model` before it loads a file; may stop the load."""
        self._functions: dict[str, Any] = {}
        self._bare: dict[str, Any] = {}
        self._engine = load_library(ENGINE_NAME, folder)
        self._bind(self._engine, _ENGINE)
        self._bind(load_library(SYS_NAME, folder), _SYS)
        if self._functions['AX_ENGINE_GetVNPUAttr'](ctypes.byref(NpuAttr())) != 0:
            raise DeviceError('the NPU is not initialised: open an axengine session first')

    @property
    def chip(self) -> str:
        """'ax650', 'ax630c' or 'm57h', recognised by the functions that the library has."""
        if not hasattr(self._engine, 'AX_ENGINE_SetAffinity'):
            return 'm57h'
        return 'ax630c' if hasattr(self._engine, 'AX_ENGINE_GetTotalOps') else 'ax650'

    def function(self, name: str) -> Any:
        """Give a C function by name; it returns 0 or an error code."""
        return self._functions[name]

    def bare(self, name: str) -> Any:
        """Give a C function that takes ctypes' own objects as they are, unchecked, in less time.

        For what is called for every layer of every token, with arguments that are made once.
        """
        if name not in self._bare:
            self._bare[name] = self._engine[name]  # one object that no `function` knows
            self._bare[name].restype = c_int32
        return self._bare[name]

    def call(self, name: str, *arguments: object) -> None:
        """Call a C function.

        Raises:
            DeviceError: The call returned an error code.
        """
        code = self._functions[name](*arguments)
        if code:
            raise failed(name, code)

    def _bind(self, loaded: ctypes.CDLL, signatures: dict[str, tuple[Any, ...]]) -> None:
        for name, argument_types in signatures.items():
            function = getattr(loaded, name, None)
            if function is None:
                raise SetupError(f'the NPU library has no {name}: the board SDK is too old')
            function.argtypes = argument_types
            function.restype = c_int32
            self._functions[name] = function


def failed(name: str, code: int, what: str = '') -> DeviceError:
    """Make the error of a C function that returned a code other than 0."""
    subject = f'{what}: ' if what else ''
    return DeviceError(f'{subject}{name} failed with code {code} (0x{code & 0xFFFFFFFF:08x})')


def load_library(name: str, folder: Path | None) -> ctypes.CDLL:
    """Load one of the vendor's libraries: the copy that this process uses, where there is one.

    Raises:
        DeviceError: None can be loaded.
    """
    candidates = [str(folder / name)] if folder else [*_in_use(name), name, *_usual(name)]
    reasons = []
    for candidate in candidates:
        loaded = _try_load(candidate)
        if isinstance(loaded, ctypes.CDLL):
            return loaded
        reasons.append(str(loaded))
    raise DeviceError(f'{name} cannot be loaded: {"; ".join(reasons)}')


def _try_load(path: str) -> ctypes.CDLL | OSError:
    try:
        return ctypes.CDLL(path)
    except OSError as error:
        return error


def _in_use(name: str) -> list[str]:
    """Give the path of the copy that axengine has loaded: another one would not be initialised."""
    try:
        lines = Path('/proc/self/maps').read_text().splitlines()
    except OSError:
        return []
    mapped = {Path(line.split(maxsplit=5)[5]) for line in lines if 'libax' in line}
    beside = {path.parent / name for path in mapped}
    return [str(path) for path in sorted(beside) if path.is_file()]


def _usual(name: str) -> list[str]:
    return [str(folder / name) for folder in FOLDERS if (folder / name).is_file()]
