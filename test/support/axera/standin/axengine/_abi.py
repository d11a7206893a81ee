"""The C structures of libax_engine on 64-bit machines.

Source: the declarations that pyaxengine 0.1.3.rc3 compiles in, the vendor's ax_engine_type.h.
"""

# The fields keep the vendor's names.
from __future__ import annotations

import ctypes as c
from typing import Any, ClassVar

DATA_TYPES = {
    'u8': 1, 'u16': 2, 'f32': 3, 's16': 4, 's8': 5, 's32': 6, 'u32': 7, 'f64': 8, 'bf16': 9,
}  # fmt: skip

Fields = list[tuple[str, Any]]


class NpuAttr(c.Structure):
    """AX_ENGINE_NPU_ATTR_T."""

    _fields_: ClassVar[Fields] = [('eHardMode', c.c_int), ('reserve', c.c_uint32 * 8)]


class HandleExtra(c.Structure):
    """AX_ENGINE_HANDLE_EXTRA_T."""

    _fields_: ClassVar[Fields] = [
        ('nNpuSet', c.c_uint32),
        ('pName', c.c_char_p),
        ('reserve', c.c_uint32 * 8),
    ]


class IoMeta(c.Structure):
    """AX_ENGINE_IO_META_T: one tensor."""

    _fields_: ClassVar[Fields] = [
        ('pName', c.c_char_p),
        ('pShape', c.POINTER(c.c_int32)),
        ('nShapeSize', c.c_uint8),
        ('eLayout', c.c_int),
        ('eMemoryType', c.c_int),
        ('eDataType', c.c_int),
        ('pExtraMeta', c.c_void_p),
        ('nSize', c.c_uint32),
        ('nQuantizationValue', c.c_uint32),
        ('pStride', c.POINTER(c.c_int32)),
        ('u64Reserved', c.c_uint64 * 9),
    ]


class IoInfo(c.Structure):
    """AX_ENGINE_IO_INFO_T: the tensors of a shape group."""

    _fields_: ClassVar[Fields] = [
        ('pInputs', c.POINTER(IoMeta)),
        ('nInputSize', c.c_uint32),
        ('pOutputs', c.POINTER(IoMeta)),
        ('nOutputSize', c.c_uint32),
        ('nMaxBatchSize', c.c_uint32),
        ('bDynamicBatchSize', c.c_int),
        ('u64Reserved', c.c_uint64 * 11),
    ]


class IoBuffer(c.Structure):
    """AX_ENGINE_IO_BUFFER_T: where one tensor lies."""

    _fields_: ClassVar[Fields] = [
        ('phyAddr', c.c_uint64),
        ('pVirAddr', c.c_void_p),
        ('nSize', c.c_uint32),
        ('pStride', c.POINTER(c.c_int32)),
        ('nStrideSize', c.c_uint8),
        ('u64Reserved', c.c_uint64 * 11),
    ]


class Io(c.Structure):
    """AX_ENGINE_IO_T: what a run takes."""

    _fields_: ClassVar[Fields] = [
        ('pInputs', c.POINTER(IoBuffer)),
        ('nInputSize', c.c_uint32),
        ('pOutputs', c.POINTER(IoBuffer)),
        ('nOutputSize', c.c_uint32),
        ('nBatchSize', c.c_uint32),
        ('pIoSetting', c.c_void_p),
        ('u64Reserved', c.c_uint64 * 10),
    ]


_SIZES = {NpuAttr: 36, HandleExtra: 48, IoMeta: 128, IoInfo: 128, IoBuffer: 128, Io: 120}
assert all(c.sizeof(kind) == size for kind, size in _SIZES.items())

_HANDLES = c.POINTER(c.c_void_p)
_MEMORY = (c.c_uint64, c.c_void_p, c.c_uint32)
_ENGINE: dict[str, tuple[Any, tuple[Any, ...]]] = {
    'GetVersion': (c.c_char_p, ()),
    'Init': (c.c_int, (c.POINTER(NpuAttr),)),
    'GetVNPUAttr': (c.c_int, (c.POINTER(NpuAttr),)),
    'Deinit': (c.c_int, ()),
    'GetModelType': (c.c_int, (c.c_void_p, c.c_uint32, c.POINTER(c.c_int))),
    'CreateHandleV2': (c.c_int, (_HANDLES, c.c_void_p, c.c_uint32, c.POINTER(HandleExtra))),
    'CreateContextV2': (c.c_int, (c.c_void_p, _HANDLES)),
    'GetModelToolsVersion': (c.c_char_p, (c.c_void_p,)),
    'GetGroupIOInfoCount': (c.c_int, (c.c_void_p, c.POINTER(c.c_uint32))),
    'GetGroupIOInfo': (c.c_int, (c.c_void_p, c.c_uint32, c.POINTER(c.POINTER(IoInfo)))),
    'GetIOInfo': (c.c_int, (c.c_void_p, c.POINTER(c.POINTER(IoInfo)))),
    'RunSyncV2': (c.c_int, (c.c_void_p, c.c_void_p, c.POINTER(Io))),
    'RunGroupIOSync': (c.c_int, (c.c_void_p, c.c_void_p, c.c_uint32, c.POINTER(Io))),
    'DestroyHandle': (c.c_int, (c.c_void_p,)),
}
_SYS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    'Init': (c.c_int, ()),
    'Deinit': (c.c_int, ()),
    'MemAllocCached': (
        c.c_int,
        (c.POINTER(c.c_uint64), _HANDLES, c.c_uint32, c.c_uint32, c.c_char_p),
    ),
    'MemFree': (c.c_int, _MEMORY[:2]),
    'MflushCache': (c.c_int, _MEMORY),
    'MinvalidateCache': (c.c_int, _MEMORY),
}


def declare(library: Any, prefix: str) -> Any:
    """Tell ctypes the functions of a library; return it."""
    for name, (result, arguments) in (_SYS if prefix == 'AX_SYS' else _ENGINE).items():
        function = getattr(library, f'{prefix}_{name}')
        function.restype, function.argtypes = result, arguments
    return library
