"""Structures and signatures of libbmlib and libbmrt on 64-bit Linux.

Source: libsophon's public headers; sizes checked by use with `tpu_mlir` 1.30.2.
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Mapping
from typing import Any, Final

Pointer = c.c_void_p
MOST_DIMS: Final = 8
NO_STORE_MODE: Final = 0  # "1N", the plain layout


class DeviceMemory(c.Structure):
    """bm_device_mem_t: an address range; passed by value."""

    _fields_ = (
        ('address', c.c_uint64),
        ('reserved', c.c_uint32),
        ('dmabuf_fd', c.c_int32),
        ('flags', c.c_uint32),
        ('size', c.c_uint32),
    )


class Shape(c.Structure):
    """bm_shape_t."""

    _fields_ = (('num_dims', c.c_int32), ('dims', c.c_int32 * MOST_DIMS))


class NetTensor(c.Structure):
    """bm_tensor_t: what a launch is given for each input and output."""

    _fields_ = (
        ('dtype', c.c_int32),
        ('shape', Shape),
        ('memory', DeviceMemory),
        ('store_mode', c.c_int32),
    )


class StageInfo(c.Structure):
    """bm_stage_info_t."""

    _fields_ = (
        ('input_shapes', c.POINTER(Shape)),
        ('output_shapes', c.POINTER(Shape)),
        ('input_mems', c.POINTER(DeviceMemory)),
        ('output_mems', c.POINTER(DeviceMemory)),
    )


class NetInfo(c.Structure):
    """bm_net_info_t."""

    _fields_ = (
        ('name', c.c_char_p),
        ('is_dynamic', c.c_bool),
        ('input_num', c.c_int32),
        ('input_names', c.POINTER(c.c_char_p)),
        ('input_dtypes', c.POINTER(c.c_int32)),
        ('input_scales', c.POINTER(c.c_float)),
        ('output_num', c.c_int32),
        ('output_names', c.POINTER(c.c_char_p)),
        ('output_dtypes', c.POINTER(c.c_int32)),
        ('output_scales', c.POINTER(c.c_float)),
        ('stage_num', c.c_int32),
        ('stages', c.POINTER(StageInfo)),
        ('max_input_bytes', c.POINTER(c.c_size_t)),
        ('max_output_bytes', c.POINTER(c.c_size_t)),
        ('input_zero_points', c.POINTER(c.c_int32)),
        ('output_zero_points', c.POINTER(c.c_int32)),
        ('input_devices', c.POINTER(c.c_int32)),
        ('output_devices', c.POINTER(c.c_int32)),
        ('core_num', c.c_int32),
        ('addr_mode', c.c_int32),
    )


_MEM = DeviceMemory
_TENSORS = c.POINTER(NetTensor)
# name -> (result, arguments)
BMLIB: Final = {
    'bm_dev_request': (c.c_int, (c.POINTER(Pointer), c.c_int)),
    'bm_dev_free': (None, (Pointer,)),
    'bm_get_chipid': (c.c_int, (Pointer, c.POINTER(c.c_uint))),
    'bm_malloc_device_byte': (c.c_int, (Pointer, c.POINTER(_MEM), c.c_uint)),
    'bm_free_device': (None, (Pointer, _MEM)),
    'bm_memcpy_s2d_partial_offset': (c.c_int, (Pointer, _MEM, Pointer, c.c_uint, c.c_uint)),
    'bm_memcpy_d2s_partial_offset': (c.c_int, (Pointer, Pointer, _MEM, c.c_uint, c.c_uint)),
    'bm_memcpy_d2d_byte': (
        c.c_int,
        (Pointer, _MEM, c.c_size_t, _MEM, c.c_size_t, c.c_size_t),
    ),
    'bm_memset_device_ext': (c.c_int, (Pointer, Pointer, c.c_int, _MEM)),
    'bm_thread_sync': (c.c_int, (Pointer,)),
}
BMRT: Final = {
    'bmrt_create_ex': (Pointer, (c.POINTER(Pointer), c.c_int)),
    'bmrt_destroy': (None, (Pointer,)),
    'bmrt_set_flags': (None, (Pointer, c.c_uint32)),
    'bmrt_load_bmodel': (c.c_bool, (Pointer, c.c_char_p)),
    'bmrt_load_bmodel_data': (c.c_bool, (Pointer, c.c_char_p, c.c_size_t)),
    'bmrt_get_network_number': (c.c_int, (Pointer,)),
    'bmrt_get_network_names': (None, (Pointer, c.POINTER(c.POINTER(c.c_char_p)))),
    'bmrt_get_network_info': (c.POINTER(NetInfo), (Pointer, c.c_char_p)),
    'bmrt_launch_tensor_ex': (
        c.c_bool,
        (Pointer, c.c_char_p, _TENSORS, c.c_int, _TENSORS, c.c_int, c.c_bool, c.c_bool),
    ),
}


def declare(library: c.CDLL, signatures: Mapping[str, tuple[Any, tuple[Any, ...]]]) -> None:
    """Tell ctypes the signatures: without them it cuts pointers to 32 bits."""
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
