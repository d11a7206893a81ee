"""`sail.EngineLLM`."""

from __future__ import annotations

import ctypes as c
import math
import os
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from sophon._counters import MisuseError, Traffic, counters
from sophon.sail import _options
from sophon.sail._abi import (
    MOST_DIMS,
    NO_STORE_MODE,
    DeviceMemory,
    NetInfo,
    NetTensor,
    Pointer,
    Shape,
)
from sophon.sail._library import Block, Device, Library
from sophon.sail._tensor import Handle, OwnTensor, Tensor
from sophon.sail._types import Dtype, SailDeviceError, SailEngineError

_Item = TypeVar('_Item')
_IO_ALONE: Final = 1
_FLAGS: Final = (True, True)  # memory and store mode are the caller's, as in sail


@dataclass(frozen=True)
class _Port:
    """One input or output: its shapes and addresses in every stage."""

    name: str
    dtype: Dtype
    shapes: list[list[int]]
    memories: list[DeviceMemory]


class _Net:
    """What the runtime says about one net."""

    def __init__(self, info: NetInfo) -> None:
        self.is_dynamic = bool(info.is_dynamic)
        self.addr_mode = int(info.addr_mode)
        self.stage_num = int(info.stage_num)
        self.inputs = [_port(info, i, is_input=True) for i in range(info.input_num)]
        self.outputs = [_port(info, i, is_input=False) for i in range(info.output_num)]


def _port(info: NetInfo, index: int, *, is_input: bool) -> _Port:
    side = 'input' if is_input else 'output'
    stages = [info.stages[s] for s in range(info.stage_num)]
    return _Port(
        name=getattr(info, f'{side}_names')[index].decode(),
        dtype=Dtype(getattr(info, f'{side}_dtypes')[index]),
        shapes=[_shape_of(getattr(s, f'{side}_shapes')[index]) for s in stages],
        memories=[_copy(getattr(s, f'{side}_mems')[index]) for s in stages],
    )


def _shape_of(shape: Shape) -> list[int]:
    return [int(n) for n in shape.dims[: shape.num_dims]]


def _copy(memory: DeviceMemory) -> DeviceMemory:
    """Copy a structure out of memory that belongs to the runtime."""
    return DeviceMemory.from_buffer_copy(memory)


class EngineLLM:
    """A bmodel on one chip.

    Raises:
        SailEngineError: The file is not there or the runtime refuses it.
        SailDeviceError: There is no such chip.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._runtime: Pointer | None = None
        self._running = threading.Lock()
        self._wrapped: dict[tuple[str, bool], list[list[Tensor]]] = {}
        names: tuple[str, ...] = ('bmodel_path', 'tpu_ids')
        if len(args) + len(kwargs) == 3:
            first = args[0] if args else kwargs.get('bmodel_path', kwargs.get('bmodel_bytes'))
            from_bytes = isinstance(first, bytes)
            middle = ('bmodel_bytes', 'bmodel_size') if from_bytes else ('bmodel_path', 'flags')
            names = (*middle, 'tpu_ids')
        self._load(_bound(names, args, kwargs))
        self._device.keep(self)

    def _load(self, given: dict[str, Any]) -> None:
        flags = given.get('flags')
        if flags is not None and (_options.is_old_release() or not hasattr(flags, '__index__')):
            raise TypeError('__init__(): incompatible constructor arguments: flags')
        self._device_ids = [int(i) for i in given['tpu_ids']]
        if not self._device_ids and 'bmodel_bytes' not in given:
            raise SailEngineError('EngineLLM device_ids error!')
        path = given.get('bmodel_path')
        if path is not None and not Path(path).exists():
            raise SailEngineError('EngineLLM bmodel error!')
        self._device = self._open_device()
        data = given.get('bmodel_bytes')
        if data is not None and given['bmodel_size'] != len(data):
            raise SailEngineError('EngineLLM related error!')
        self._create(None if flags is None else flags.__index__())
        try:
            self._load_model(path, data)
            self._nets = self._read_nets()
        except BaseException:
            self.close()
            raise

    def _open_device(self) -> Device:
        try:
            devices = [Handle(i).device for i in self._device_ids]
        except SailDeviceError as error:
            raise SailDeviceError('Device related error!') from error
        if len(devices) != 1:
            raise MisuseError('the emulator is one chip')
        return devices[0]

    def _create(self, flags: int | None) -> None:
        bmrt = Library.of_this_process().bmrt
        handles = (Pointer * 1)(self._device.handle)
        with counters().in_library():
            self._runtime = Pointer(bmrt.bmrt_create_ex(handles, 1))
            if flags is not None:
                bmrt.bmrt_set_flags(self._runtime, flags)

    def _load_model(self, path: str | None, data: bytes | None) -> None:
        size = len(data) if data is not None else Path(str(path)).stat().st_size
        # The emulator ends the process where its memory runs out; a chip's driver says no, the
        # runtime returns false.
        if size > self._device.free_bytes:
            raise SailEngineError('EngineLLM related error!')
        bmrt = Library.of_this_process().bmrt
        with counters().in_library():
            if data is None:
                done = bmrt.bmrt_load_bmodel(self._runtime, os.fsencode(str(path)))
            else:
                done = bmrt.bmrt_load_bmodel_data(self._runtime, data, len(data))
        if not done:
            raise SailEngineError('EngineLLM related error!')
        self._model_bytes = size
        self._device.model_bytes += size

    def _read_nets(self) -> dict[str, _Net]:
        bmrt = Library.of_this_process().bmrt
        count = bmrt.bmrt_get_network_number(self._runtime)
        names = c.POINTER(c.c_char_p)()
        bmrt.bmrt_get_network_names(self._runtime, c.byref(names))
        nets = {
            names[i].decode(): _Net(bmrt.bmrt_get_network_info(self._runtime, names[i]).contents)
            for i in range(count)
        }
        _free_names(names)
        return nets

    @property
    def is_open(self) -> bool:
        """Whether the model is loaded. Not in the real binding."""
        return self._runtime is not None

    def close(self) -> None:
        """Unload the model, as `del` does. Not in the real binding."""
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            self._device.model_bytes -= getattr(self, '_model_bytes', 0)
            Library.of_this_process().bmrt.bmrt_destroy(runtime)

    def __del__(self) -> None:
        if getattr(self, '_runtime', None) is not None:
            self.close()

    # -- questions ------------------------------------------------------------------------------

    def get_device_ids(self) -> list[int]:
        """Return the chips' numbers."""
        return list(self._device_ids)

    def get_graph_names(self) -> list[str]:
        """Return the nets, in the file's order, which is not that of the layers."""
        return list(self._nets)

    def get_addr_mode(self, graph_name: str) -> int:
        """Return 0 (shared scratch), 1 (memory of its own) or 2 (symbols)."""
        return self._net(graph_name).addr_mode

    def get_is_dynamic(self, graph_name: str) -> bool:
        """Tell whether it takes shapes below its largest."""
        return self._net(graph_name).is_dynamic

    def get_stage_num(self, graph_name: str) -> int:
        """Return how many sets of shapes it has."""
        return self._net(graph_name).stage_num

    def get_input_num(self, graph_name: str) -> int:
        """Return the number of inputs."""
        return len(self._net(graph_name).inputs)

    def get_output_num(self, graph_name: str) -> int:
        """Return the number of outputs."""
        return len(self._net(graph_name).outputs)

    def get_input_name(self, graph_name: str, index: int) -> str:
        """Return the name of an input."""
        return _at(self._net(graph_name).inputs, index).name

    def get_output_name(self, graph_name: str, index: int) -> str:
        """Return the name of an output."""
        return _at(self._net(graph_name).outputs, index).name

    def get_input_names(self, graph_name: str) -> list[str]:
        """Return the names of all inputs."""
        return [p.name for p in self._net(graph_name).inputs]

    def get_output_names(self, graph_name: str) -> list[str]:
        """Return the names of all outputs."""
        return [p.name for p in self._net(graph_name).outputs]

    def get_input_shape(self, graph_name: str, index: int, stage: int = 0) -> list[int]:
        """Return the shape of an input."""
        return list(_at(_at(self._net(graph_name).inputs, index).shapes, stage))

    def get_output_shape(self, graph_name: str, index: int, stage: int = 0) -> list[int]:
        """Return the shape of an output."""
        return list(_at(_at(self._net(graph_name).outputs, index).shapes, stage))

    def get_input_max_shape(self, graph_name: str, index: int) -> list[int]:
        """Return the shape in stage 0, which need not be the largest."""
        return self.get_input_shape(graph_name, index)

    def get_output_max_shape(self, graph_name: str, index: int) -> list[int]:
        """Return the shape in stage 0, which need not be the largest."""
        return self.get_output_shape(graph_name, index)

    def get_input_min_shape(self, graph_name: str, index: int) -> list[int]:
        """Return the shape in stage 0, which need not be the smallest."""
        return self.get_input_shape(graph_name, index)

    def get_output_min_shape(self, graph_name: str, index: int) -> list[int]:
        """Return the shape in stage 0, which need not be the smallest."""
        return self.get_output_shape(graph_name, index)

    def get_input_dtype(self, graph_name: str, index: int) -> Dtype:
        """Return the element type of an input."""
        return _at(self._net(graph_name).inputs, index).dtype

    def get_output_dtype(self, graph_name: str, index: int) -> Dtype:
        """Return the element type of an output."""
        return _at(self._net(graph_name).outputs, index).dtype

    def get_input_tensor_devid(self, graph_name: str, index: int) -> int:
        """Return the chip an input lies on."""
        _at(self._net(graph_name).inputs, index)
        return self._device.number

    def get_output_tensor_devid(self, graph_name: str, index: int) -> int:
        """Return the chip an output lies on."""
        _at(self._net(graph_name).outputs, index)
        return self._device.number

    # -- tensors --------------------------------------------------------------------------------

    def get_input_tensors(
        self, graph_name: str, tensor_name: str | int = 0, stage: int = 0
    ) -> dict[int, Tensor]:
        """Return a net's own inputs; an empty dictionary unless its address mode is 1."""
        return self._own_tensors(graph_name, tensor_name, stage, is_input=True)

    def get_output_tensors(
        self, graph_name: str, tensor_name: str | int = 0, stage: int = 0
    ) -> dict[int, Tensor]:
        """Return a net's own outputs; an empty dictionary unless its address mode is 1."""
        return self._own_tensors(graph_name, tensor_name, stage, is_input=False)

    def _own_tensors(
        self, graph_name: str, tensor_name: str | int, stage: int, *, is_input: bool
    ) -> dict[int, Tensor]:
        net = self._net(graph_name)
        if net.addr_mode != _IO_ALONE:
            return {}
        if not isinstance(tensor_name, str):
            tensor_name, stage = '', int(tensor_name) or stage
        ports = net.inputs if is_input else net.outputs
        tensors = _at(self._wrap(graph_name, is_input=is_input), stage)
        return {
            i: t
            for i, (port, t) in enumerate(zip(ports, tensors, strict=True))
            if tensor_name in ('', port.name)
        }

    def get_input_tensor(self, graph_name: str, index: int, stage: int = 0) -> Tensor | None:
        """Return one of a net's own inputs; None unless its address mode is 1."""
        if self._net(graph_name).addr_mode != _IO_ALONE:
            return None
        return _at(_at(self._wrap(graph_name, is_input=True), stage), index)

    def get_output_tensor(self, graph_name: str, index: int, stage: int = 0) -> Tensor | None:
        """Return one of a net's own outputs; None unless its address mode is 1."""
        if self._net(graph_name).addr_mode != _IO_ALONE:
            return None
        return _at(_at(self._wrap(graph_name, is_input=False), stage), index)

    def get_input_tensors_addrmode0(self, graph_name: str, stage: int = 0) -> dict[int, Tensor]:
        """Return a net's inputs whatever its address mode; nets of mode 0 overlap."""
        return dict(enumerate(_at(self._wrap(graph_name, is_input=True), stage)))

    def get_output_tensors_addrmode0(self, graph_name: str, stage: int = 0) -> dict[int, Tensor]:
        """Return a net's outputs whatever its address mode; nets of mode 0 overlap."""
        return dict(enumerate(_at(self._wrap(graph_name, is_input=False), stage)))

    def _wrap(self, graph_name: str, *, is_input: bool) -> list[list[Tensor]]:
        """Return tensors over a net's own memory, stage by stage; made once, as in the binding."""
        key = (graph_name, is_input)
        if key not in self._wrapped:
            net = self._net(graph_name)
            ports = net.inputs if is_input else net.outputs
            me = weakref.ref(self)
            self._wrapped[key] = [
                [_wrapped_port(self._device, port, stage, me) for port in ports]
                for stage in range(net.stage_num)
            ]
        return self._wrapped[key]

    def create_max_input_tensors(self, graph_name: str) -> dict[int, Tensor]:
        """Allocate a tensor for each input, of the shape in stage 0."""
        return self._create_tensors(self._net(graph_name).inputs)

    def create_max_output_tensors(self, graph_name: str) -> dict[int, Tensor]:
        """Allocate a tensor for each output, of the shape in stage 0."""
        return self._create_tensors(self._net(graph_name).outputs)

    def _create_tensors(self, ports: list[_Port]) -> dict[int, Tensor]:
        handle = Handle(self._device.number)
        return {
            i: Tensor(handle, p.shapes[0], p.dtype, False, True)  # noqa: FBT003
            for i, p in enumerate(ports)
        }

    # -- launches -------------------------------------------------------------------------------

    def process(
        self,
        graph_name: str,
        input: dict[int, Tensor],  # noqa: A002, the binding calls it so
        output: dict[int, Tensor],
        core_list: Sequence[int] = (0,),
    ) -> None:
        """Run a net and wait for it. The shapes come from the tensors.

        Raises:
            IndexError: There is no such net.
            SailEngineError: The runtime refuses the shapes.
            MisuseError: The real binding would have gone wrong without a word.
        """
        for given in (input, output):
            _check_is_dict(given)
        _ = [int(i) for i in core_list]  # looked at by nobody, as in the binding
        net = self._net(graph_name)
        with self._alone(graph_name):
            inputs = _attach(graph_name, net.inputs, input)
            outputs = _attach(graph_name, net.outputs, output)
            stage = _stage_of(net, inputs)
            _check_rooms(graph_name, net, stage, outputs)
            self._launch(graph_name, inputs, outputs)
            _check_written(graph_name, outputs)
            _count(graph_name, net, stage, inputs, outputs)

    @contextmanager
    def _alone(self, graph_name: str) -> Iterator[None]:
        """Hold the arguments' memory, which belongs to the engine."""
        if not self._running.acquire(blocking=False):
            raise MisuseError(f'process({graph_name!r}) while another process() runs')
        try:
            yield
        finally:
            self._running.release()

    def _launch(
        self, graph_name: str, inputs: c.Array[NetTensor], outputs: c.Array[NetTensor]
    ) -> None:
        bmrt = Library.of_this_process().bmrt
        name = graph_name.encode()
        self._device.has_settled = False
        with counters().in_library():
            done = bmrt.bmrt_launch_tensor_ex(
                self._runtime, name, inputs, len(inputs), outputs, len(outputs), *_FLAGS
            )
        if not done:
            raise SailEngineError('Engine related error!')
        try:
            self._device.wait()
        except RuntimeError as error:
            raise SailEngineError('Engine related error!') from error

    def _net(self, graph_name: str) -> _Net:
        if self._runtime is None:
            raise MisuseError('the engine is closed')
        if graph_name not in self._nets:
            raise IndexError('map::at')
        return self._nets[graph_name]


def _bound(
    names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return arguments by name.

    Raises:
        TypeError: Too many, too few or unknown ones.
    """
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if len(args) > len(names) or set(given) != set(names):
        raise TypeError('__init__(): incompatible constructor arguments')
    if isinstance(given['tpu_ids'], (str, bytes)) or not isinstance(given['tpu_ids'], Sequence):
        raise TypeError('__init__(): incompatible constructor arguments: tpu_ids')
    return given


def _at(items: Sequence[_Item], index: int) -> _Item:
    """Return an item; a negative index is out of range in C++.

    Raises:
        IndexError: It is.
    """
    if not 0 <= index < len(items):
        raise IndexError('vector::_M_range_check')
    return items[index]


def _check_is_dict(given: object) -> None:
    """Check an argument of `process`.

    Raises:
        TypeError: It is no dictionary.
    """
    if not isinstance(given, dict):
        raise TypeError('process(): incompatible function arguments')


def _wrapped_port(
    device: Device, port: _Port, stage: int, engine: weakref.ref[EngineLLM]
) -> Tensor:
    def is_alive() -> bool:
        owner = engine()
        return owner is not None and owner.is_open

    block = Block(device, port.memories[stage], is_alive)
    return OwnTensor(device, port.shapes[stage], port.dtype, block)


def _free_names(names: Any) -> None:
    """Free the array of names, which belongs to the caller."""
    libc = c.CDLL(None)
    libc.free.argtypes = (Pointer,)
    libc.free.restype = None
    libc.free(c.cast(names, Pointer))


def _attach(graph_name: str, ports: list[_Port], given: dict[int, Tensor]) -> c.Array[NetTensor]:
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


def _stage_of(net: _Net, inputs: c.Array[NetTensor]) -> int:
    """Return the stage that the runtime takes; -1 where no static one fits.

    Source: libsophon, tpu-runtime/src/bmruntime.cpp: with one stage only the number of elements
    counts, with several the shapes; a dynamic net takes the first stage that is large enough.
    """
    given = [_shape_of(t.shape) for t in inputs]
    if net.stage_num == 1:
        same = all(
            math.prod(g) == math.prod(p.shapes[0]) for g, p in zip(given, net.inputs, strict=True)
        )
        return 0 if same or net.is_dynamic else -1
    for stage in range(net.stage_num):
        if all(g == p.shapes[stage] for g, p in zip(given, net.inputs, strict=True)):
            return stage
    return 0 if net.is_dynamic else -1


def _check_rooms(graph_name: str, net: _Net, stage: int, outputs: c.Array[NetTensor]) -> None:
    """Check that a static net's outputs fit in what it is given for them.

    Raises:
        MisuseError: One does not: the chip writes on.
    """
    if net.is_dynamic or stage < 0:
        return
    for port, tensor in zip(net.outputs, outputs, strict=True):
        needed = math.prod(port.shapes[stage]) * port.dtype.host.itemsize
        if needed > tensor.memory.size:
            raise MisuseError(
                f'{graph_name}: {port.name} is {needed} bytes, the tensor {tensor.memory.size}'
            )


def _check_written(graph_name: str, outputs: c.Array[NetTensor]) -> None:
    """Check that a dynamic net, which tells the shapes it wrote, wrote within its outputs.

    Raises:
        MisuseError: It did not; what lies behind is damaged.
    """
    for index, tensor in enumerate(outputs):
        width = Dtype(tensor.dtype).host.itemsize
        written = math.prod(_shape_of(tensor.shape)) * width
        if written > tensor.memory.size:
            raise MisuseError(
                f'{graph_name}: output {index} took {written} bytes, '
                f'the tensor has {tensor.memory.size}'
            )


def _count(
    graph_name: str,
    net: _Net,
    stage: int,
    inputs: c.Array[NetTensor],
    outputs: c.Array[NetTensor],
) -> None:
    counted = counters()
    counted.launches[graph_name] = counted.launches.get(graph_name, 0) + 1
    if net.is_dynamic or net.addr_mode not in (0, _IO_ALONE):
        return
    hidden = counted.launch_copies.setdefault(graph_name, Traffic())
    for ports, tensors in ((net.inputs, inputs), (net.outputs, outputs)):
        for port, tensor in zip(ports, tensors, strict=True):
            if tensor.memory.address != port.memories[max(stage, 0)].address:
                hidden.add(math.prod(port.shapes[max(stage, 0)]) * port.dtype.host.itemsize)
