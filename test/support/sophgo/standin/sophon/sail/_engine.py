"""`sail.EngineLLM`."""

from __future__ import annotations

import ctypes as c
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from sophon import _ledger
from sophon._counters import MisuseError
from sophon.sail import _options
from sophon.sail._abi import (
    NetTensor,
    Pointer,
)
from sophon.sail._launch import attach, check_rooms, check_written, count, stage_of
from sophon.sail._library import Block, Device, Library
from sophon.sail._nets import IO_ALONE, Net, Port, read_nets
from sophon.sail._tensor import Handle, OwnTensor, Tensor
from sophon.sail._types import Dtype, SailDeviceError, SailEngineError

_Item = TypeVar('_Item')
_FLAGS: Final = (True, True)  # memory and store mode are the caller's, as in sail


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
        self._device.usable_prefix(self)

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
        self._runtime = runtime = self._create(None if flags is None else flags.__index__())
        try:
            self._load_model(path, data)
            self._nets = read_nets(Library.of_this_process().bmrt, runtime)
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

    def _create(self, flags: int | None) -> Pointer:
        bmrt = Library.of_this_process().bmrt
        handles = (Pointer * 1)(self._device.handle)
        runtime = Pointer(bmrt.bmrt_create_ex(handles, 1))
        if flags is not None:
            bmrt.bmrt_set_flags(runtime, flags)
        return runtime

    def _load_model(self, path: str | None, data: bytes | None) -> None:
        size = len(data) if data is not None else Path(str(path)).stat().st_size
        # The emulator ends the process where its memory runs out; a chip's driver says no, the
        # runtime returns false.
        if size > self._device.free_bytes:
            raise SailEngineError('EngineLLM related error!')
        bmrt = Library.of_this_process().bmrt
        if data is None:
            done = bmrt.bmrt_load_bmodel(self._runtime, os.fsencode(str(path)))
        else:
            done = bmrt.bmrt_load_bmodel_data(self._runtime, data, len(data))
        if not done:
            raise SailEngineError('EngineLLM related error!')
        self._model_bytes = size
        _ledger.note(_ledger.HANDLE, id(self), size)
        self._device.model_bytes += size

    @property
    def is_open(self) -> bool:
        """Whether the model is loaded. Not in the real binding."""
        return self._runtime is not None

    def close(self) -> None:
        """Unload the model, as `del` does. Not in the real binding."""
        if self._runtime is not None:
            _ledger.strike(_ledger.HANDLE, id(self))
        self.unload()

    def unload(self) -> None:
        """Unload it, whoever asks for it. Not in the real binding."""
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
        """Return whether it takes shapes below its largest."""
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
        if net.addr_mode != IO_ALONE:
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
        if self._net(graph_name).addr_mode != IO_ALONE:
            return None
        return _at(_at(self._wrap(graph_name, is_input=True), stage), index)

    def get_output_tensor(self, graph_name: str, index: int, stage: int = 0) -> Tensor | None:
        """Return one of a net's own outputs; None unless its address mode is 1."""
        if self._net(graph_name).addr_mode != IO_ALONE:
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

    def _create_tensors(self, ports: list[Port]) -> dict[int, Tensor]:
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
        _ = [int(i) for i in core_list]  # ignored, as in the binding
        net = self._net(graph_name)
        with self._alone(graph_name):
            inputs = attach(graph_name, net.inputs, input)
            outputs = attach(graph_name, net.outputs, output)
            stage = stage_of(net, inputs)
            check_rooms(graph_name, net, stage, outputs)
            self._launch(graph_name, inputs, outputs)
            check_written(graph_name, outputs)
            count(graph_name, net, stage, inputs, outputs)

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
        done = bmrt.bmrt_launch_tensor_ex(
            self._runtime, name, inputs, len(inputs), outputs, len(outputs), *_FLAGS
        )
        if not done:
            raise SailEngineError('Engine related error!')
        try:
            self._device.wait()
        except RuntimeError as error:
            raise SailEngineError('Engine related error!') from error

    def _net(self, graph_name: str) -> Net:
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
        IndexError: `index` is negative or past the end.
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
    device: Device, port: Port, stage: int, engine: weakref.ref[EngineLLM]
) -> Tensor:
    def is_alive() -> bool:
        owner = engine()
        return owner is not None and owner.is_open

    block = Block(device, port.memories[stage], is_alive)
    return OwnTensor(device, port.shapes[stage], port.dtype, block)
