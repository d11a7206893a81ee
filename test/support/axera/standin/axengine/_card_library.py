"""libaxcl_rt through ctypes, as far as sessions need it.

Source: the declarations that pyaxengine 0.1.3.rc3 compiles in.
"""

from __future__ import annotations

import ctypes as c
from pathlib import Path
from typing import Any, ClassVar

from support.axera.stub.compute import Stub

NAME = 'libaxcl_rt.so'
TO_DEVICE, TO_HOST = 1, 2
Fields = list[tuple[str, Any]]


class DeviceList(c.Structure):
    """axclrtDeviceList."""

    _fields_: ClassVar[Fields] = [('num', c.c_uint32), ('devices', c.c_int32 * 256)]


class Dims(c.Structure):
    """axclrtEngineIODims."""

    _fields_: ClassVar[Fields] = [('dimCount', c.c_int32), ('dims', c.c_int32 * 32)]


_P, _U32, _U64, _INT = c.c_void_p, c.c_uint32, c.c_uint64, c.c_int
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    'axclInit': (_INT, (c.c_char_p,)),
    'axclFinalize': (_INT, ()),
    'axclrtGetSocName': (c.c_char_p, ()),
    'axclrtGetDeviceList': (_INT, (c.POINTER(DeviceList),)),
    'axclrtSetDevice': (_INT, (c.c_int32,)),
    'axclrtGetCurrentContext': (_INT, (c.POINTER(_P),)),
    'axclrtSetCurrentContext': (_INT, (_P,)),
    'axclrtMalloc': (_INT, (c.POINTER(_P), c.c_size_t, _INT)),
    'axclrtMemcpy': (_INT, (_P, _P, c.c_size_t, _INT)),
    'axclrtFree': (_INT, (_P,)),
    'axclrtEngineInit': (_INT, (_INT,)),
    'axclrtEngineGetVNpuKind': (_INT, (c.POINTER(_INT),)),
    'axclrtEngineFinalize': (_INT, ()),
    'axclrtEngineLoadFromFile': (_INT, (c.c_char_p, c.POINTER(_U64))),
    'axclrtEngineCreateContext': (_INT, (_U64, c.POINTER(_U64))),
    'axclrtEngineUnload': (_INT, (_U64,)),
    'axclrtEngineGetIOInfo': (_INT, (_U64, c.POINTER(_P))),
    'axclrtEngineGetShapeGroupsCount': (_INT, (_P, c.POINTER(c.c_int32))),
    'axclrtEngineCreateIO': (_INT, (_P, c.POINTER(_P))),
    'axclrtEngineDestroyIO': (_INT, (_P,)),
    'axclrtEngineExecute': (_INT, (_U64, _U64, _U32, _P)),
} | {
    f'axclrtEngine{name}'.replace('?', side): signature
    for side in ('Input', 'Output')
    for name, signature in {
        'GetNum?s': (_U32, (_P,)),
        'Get?SizeByIndex': (_U64, (_P, _U32, _U32)),
        'Get?Dims': (_INT, (_P, _U32, _U32, c.POINTER(Dims))),
        'Get?NameByIndex': (c.c_char_p, (_P, _U32)),
        'Get?DataType': (_INT, (_P, _U32, c.POINTER(_INT))),
        'Set?BufferByIndex': (_INT, (_P, _U32, _P, _U64)),
        'Get?BufferByIndex': (_INT, (_P, _U32, c.POINTER(_P), c.POINTER(_U64))),
    }.items()
}


def open_library(folder: Path) -> tuple[Any, Stub]:
    """Load the library; give it, and its hooks, which compute from now on."""
    library = c.CDLL(str(folder / NAME))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    stub = Stub(folder, NAME)
    stub.compute()
    return library, stub
