"""What a launch is given, and what it would get wrong without a word."""

from __future__ import annotations

import ctypes as c
import math
import os
import sys

from sophon._counters import MisuseError, Traffic, counters
from sophon.sail._abi import MOST_DIMS, NO_STORE_MODE, NetTensor, Shape
from sophon.sail._nets import IO_ALONE, Net, Port, shape_of
from sophon.sail._tensor import Tensor
from sophon.sail._types import Dtype


def attach(graph_name: str, ports: list[Port], given: dict[int, Tensor]) -> c.Array[NetTensor]:
    """Fill the launch's arguments.

    Raises:
        MisuseError: A tensor of another type: the binding goes by the net's.
    """
    array = (NetTensor * len(ports))()
    for index, port in enumerate(ports):
        if index not in given:
            crash(f'process({graph_name!r}) lacks index {index}: a null pointer')
        tensor = given[index]
        if tensor.dtype() is not port.dtype:
            raise MisuseError(
                f'{graph_name}: {port.name} is {port.dtype.name}, the tensor is '
                f'{tensor.dtype().name}: its bits would be taken for the other'
            )
        shape = tensor.shape()
        if len(shape) > MOST_DIMS:
            raise MisuseError(f'{graph_name}: {port.name} has {len(shape)} dimensions')
        dims = (c.c_int32 * MOST_DIMS)(*shape)
        array[index] = NetTensor(
            port.dtype.value,
            Shape(len(shape), dims),
            tensor.memory(size=tensor.room()),
            NO_STORE_MODE,
        )
    return array


def crash(reason: str) -> None:
    """End the process as a segmentation fault does, with a word why."""
    print(f'sophon.sail stand-in: {reason}', file=sys.stderr, flush=True)
    os.abort()


def stage_of(net: Net, inputs: c.Array[NetTensor]) -> int:
    """Return the stage that the runtime takes; -1 where no static one fits.

    Source: libsophon, tpu-runtime/src/bmruntime.cpp: with one stage only the number of elements
    counts, with several the shapes; a dynamic net takes the first stage that is large enough.
    """
    given = [shape_of(t.shape) for t in inputs]
    if net.stage_num == 1:
        same = all(
            math.prod(g) == math.prod(p.shapes[0]) for g, p in zip(given, net.inputs, strict=True)
        )
        return 0 if same or net.is_dynamic else -1
    for stage in range(net.stage_num):
        if all(g == p.shapes[stage] for g, p in zip(given, net.inputs, strict=True)):
            return stage
    return 0 if net.is_dynamic else -1


def check_rooms(graph_name: str, net: Net, stage: int, outputs: c.Array[NetTensor]) -> None:
    """Check that a static net's outputs fit in what it is given for them.

    Raises:
        MisuseError: An output is larger than its tensor: the chip writes on.
    """
    if net.is_dynamic or stage < 0:
        return
    for port, tensor in zip(net.outputs, outputs, strict=True):
        needed = math.prod(port.shapes[stage]) * port.dtype.host.itemsize
        if needed > tensor.memory.size:
            raise MisuseError(
                f'{graph_name}: {port.name} is {needed} bytes, the tensor {tensor.memory.size}'
            )


def check_written(graph_name: str, outputs: c.Array[NetTensor]) -> None:
    """Check that a dynamic net, which reports the shapes it wrote, wrote within its outputs.

    Raises:
        MisuseError: It did not; what lies after them is damaged.
    """
    for index, tensor in enumerate(outputs):
        width = Dtype(tensor.dtype).host.itemsize
        written = math.prod(shape_of(tensor.shape)) * width
        if written > tensor.memory.size:
            raise MisuseError(
                f'{graph_name}: output {index} took {written} bytes, '
                f'the tensor has {tensor.memory.size}'
            )


def count(
    graph_name: str,
    net: Net,
    stage: int,
    inputs: c.Array[NetTensor],
    outputs: c.Array[NetTensor],
) -> None:
    """Count a launch, and the copies it makes of what lies elsewhere than the net has it."""
    counted = counters()
    counted.launches[graph_name] = counted.launches.get(graph_name, 0) + 1
    if net.is_dynamic or net.addr_mode not in (0, IO_ALONE):
        return
    hidden = counted.launch_copies.setdefault(graph_name, Traffic())
    for ports, tensors in ((net.inputs, inputs), (net.outputs, outputs)):
        for port, tensor in zip(ports, tensors, strict=True):
            if tensor.memory.address != port.memories[max(stage, 0)].address:
                hidden.add(math.prod(port.shapes[max(stage, 0)]) * port.dtype.host.itemsize)
