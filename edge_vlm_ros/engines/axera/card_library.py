"""The C library of AXCL cards: ctypes, thin and typed.

pyaxengine's sessions copy every input to the card and every output back at every run. Here are the
calls beneath, as the package's own binding declares them, so that caches stay on the card and only
what is new crosses PCIe.

The first session that axengine opens on a card initialises the library, chooses the device and
leaves a context in its thread; at the interpreter's end it undoes that. So a session is opened
first, and nothing here calls Init, SetDevice or Finalize. The library's calls belong to the
context of the thread that makes them: `attach` brings it to another thread. The interpreter lock
is given up during each call.

Source: pyaxengine 0.1.3 (_axclrt_capi.py: names, arguments, constants; _axclrt.py: their order).
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from threading import get_ident
from typing import Any, Final

from edge_vlm_ros.core import DeviceError, SetupError
from edge_vlm_ros.engines.axera.library import failed, load_library
from edge_vlm_ros.engines.axera.load_progress import BeforeFile, never_stopped

RUNTIME_NAME = 'libaxcl_rt.so'
NORMAL_PAGES: Final = 2
"""axclrtMemMallocPolicy that the package uses."""
TO_DEVICE, TO_HOST, ON_DEVICE = 1, 2, 3
"""axclrtMemcpyKind."""
_MOST_DIMS = 32


class IoDims(ctypes.Structure):
    """axclrtEngineIODims."""

    count: int
    dims: Any
    _fields_ = (('count', c_int32), ('dims', c_int32 * _MOST_DIMS))


_INFO = c_void_p
_IO = c_void_p
_BUFFER = (_IO, c_uint32, c_void_p, c_uint64)
_CODES: dict[str, tuple[Any, ...]] = {
    'axclrtGetCurrentContext': (POINTER(c_void_p),),
    'axclrtSetCurrentContext': (c_void_p,),
    'axclrtMalloc': (POINTER(c_void_p), c_size_t, c_int),
    'axclrtFree': (c_void_p,),
    'axclrtMemcpy': (c_void_p, c_void_p, c_size_t, c_int),
    'axclrtEngineLoadFromFile': (c_char_p, POINTER(c_uint64)),
    'axclrtEngineUnload': (c_uint64,),
    'axclrtEngineCreateContext': (c_uint64, POINTER(c_uint64)),
    'axclrtEngineGetIOInfo': (c_uint64, POINTER(_INFO)),
    'axclrtEngineGetShapeGroupsCount': (_INFO, POINTER(c_int32)),
    'axclrtEngineGetInputDims': (_INFO, c_uint32, c_uint32, POINTER(IoDims)),
    'axclrtEngineGetOutputDims': (_INFO, c_uint32, c_uint32, POINTER(IoDims)),
    'axclrtEngineGetInputDataType': (_INFO, c_uint32, POINTER(c_int)),
    'axclrtEngineGetOutputDataType': (_INFO, c_uint32, POINTER(c_int)),
    'axclrtEngineCreateIO': (_INFO, POINTER(_IO)),
    'axclrtEngineDestroyIO': (_IO,),
    'axclrtEngineSetInputBufferByIndex': _BUFFER,
    'axclrtEngineSetOutputBufferByIndex': _BUFFER,
    'axclrtEngineExecute': (c_uint64, c_uint64, c_uint32, _IO),
}
_VALUES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    'axclrtEngineGetNumInputs': (c_uint32, (_INFO,)),
    'axclrtEngineGetNumOutputs': (c_uint32, (_INFO,)),
    'axclrtEngineGetInputSizeByIndex': (c_uint64, (_INFO, c_uint32, c_uint32)),
    'axclrtEngineGetOutputSizeByIndex': (c_uint64, (_INFO, c_uint32, c_uint32)),
    'axclrtEngineGetInputNameByIndex': (c_char_p, (_INFO, c_uint32)),
    'axclrtEngineGetOutputNameByIndex': (c_char_p, (_INFO, c_uint32)),
}


class CardLibrary:
    """libaxcl_rt, loaded, and initialised by an axengine session before, in this thread.

    Args:
        folder: Where it lies; None = the one that this process already uses, else what the loader
            finds.

    Raises:
        DeviceError: Not found, not initialised, or without a function.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.loaded: set[Path] = set()
        """Files that it has loaded; `CardModel` adds to it."""
        self.before_file: BeforeFile = never_stopped
        """Called by `CardModel` before it loads a file; may stop the load."""
        self._functions: dict[str, Any] = {}
        self._bare: dict[str, Any] = {}
        self._loaded = loaded = load_library(RUNTIME_NAME, folder)
        for name, argument_types in _CODES.items():
            self._bind(loaded, name, c_int32, argument_types)
        for name, (result, argument_types) in _VALUES.items():
            self._bind(loaded, name, result, argument_types)
        self._context = c_void_p()
        if self._functions['axclrtGetCurrentContext'](ctypes.byref(self._context)):
            raise DeviceError("no card is in use by this thread: open one of axengine's sessions")
        self._thread = get_ident()

    def attach(self) -> None:
        """Have the calls of this thread go to the card.

        Raises:
            DeviceError: The driver failed.
        """
        if self._thread != get_ident():
            self.call('axclrtSetCurrentContext', self._context)
            self._thread = get_ident()

    def function(self, name: str) -> Any:
        """Give a C function by name."""
        return self._functions[name]

    def bare(self, name: str) -> Any:
        """Give a C function that takes ctypes' own objects as they are; see `Library.bare`."""
        if name not in self._bare:
            self._bare[name] = self._loaded[name]  # one object that no `function` knows
            self._bare[name].restype = c_int32
        return self._bare[name]

    def call(self, name: str, *arguments: object) -> None:
        """Call a C function that returns a code.

        Raises:
            DeviceError: The code is not 0.
        """
        code = self._functions[name](*arguments)
        if code:
            raise failed(name, code)

    def _bind(
        self, loaded: ctypes.CDLL, name: str, result: Any, argument_types: tuple[Any, ...]
    ) -> None:
        function = getattr(loaded, name, None)
        if function is None:
            raise SetupError(f"the card's library has no {name}: the axcl package is too old")
        function.argtypes, function.restype = argument_types, result
        self._functions[name] = function
