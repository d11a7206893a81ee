"""What the runtime says of the nets of a model."""

from __future__ import annotations

import ctypes as c
from dataclasses import dataclass
from typing import Any, Final

from sophon.sail._abi import DeviceMemory, NetInfo, Pointer, Shape
from sophon.sail._types import Dtype

IO_ALONE: Final = 1
"""The address mode of nets whose inputs and outputs have memory of their own."""


@dataclass(frozen=True)
class Port:
    """One input or output: its shapes and addresses in every stage."""

    name: str
    dtype: Dtype
    shapes: list[list[int]]
    memories: list[DeviceMemory]


class Net:
    """What the runtime says about one net."""

    def __init__(self, info: NetInfo) -> None:
        self.is_dynamic = bool(info.is_dynamic)
        self.addr_mode = int(info.addr_mode)
        self.stage_num = int(info.stage_num)
        self.inputs = [_port(info, i, is_input=True) for i in range(info.input_num)]
        self.outputs = [_port(info, i, is_input=False) for i in range(info.output_num)]


def _port(info: NetInfo, index: int, *, is_input: bool) -> Port:
    side = 'input' if is_input else 'output'
    stages = [info.stages[s] for s in range(info.stage_num)]
    return Port(
        name=getattr(info, f'{side}_names')[index].decode(),
        dtype=Dtype(getattr(info, f'{side}_dtypes')[index]),
        shapes=[shape_of(getattr(s, f'{side}_shapes')[index]) for s in stages],
        memories=[_copy(getattr(s, f'{side}_mems')[index]) for s in stages],
    )


def shape_of(shape: Shape) -> list[int]:
    """Return the dimensions."""
    return [int(n) for n in shape.dims[: shape.num_dims]]


def _copy(memory: DeviceMemory) -> DeviceMemory:
    """Copy a structure out of memory that belongs to the runtime."""
    return DeviceMemory.from_buffer_copy(memory)


def read_nets(bmrt: Any, runtime: Pointer) -> dict[str, Net]:
    """Return the nets of a loaded model by name, in the file's order."""
    count = bmrt.bmrt_get_network_number(runtime)
    names = c.POINTER(c.c_char_p)()
    bmrt.bmrt_get_network_names(runtime, c.byref(names))
    nets = {
        names[i].decode(): Net(bmrt.bmrt_get_network_info(runtime, names[i]).contents)
        for i in range(count)
    }
    _free_names(names)
    return nets


def _free_names(names: Any) -> None:
    """Free the array of names, which belongs to the caller."""
    libc = c.CDLL(None)
    libc.free.argtypes = (Pointer,)
    libc.free.restype = None
    libc.free(c.cast(names, Pointer))
