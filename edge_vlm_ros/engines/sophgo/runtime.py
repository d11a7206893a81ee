"""A loaded bmodel: its nets, launched on tensors that were checked.

What is guarded here, because the binding does not (sophon-sail 3.9.1 to 3.10.7, `src/bind.cpp`,
`src/engine_llm.cpp`):

* A tensor of another type than a net's is taken and its bits read as that type; an index missing
  among a net's tensors ends the process: every `Launch` is checked when it is made.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import ExitStack
from math import prod
from pathlib import Path
from typing import Any
from weakref import WeakSet

from numpy.typing import NDArray

from edge_vlm_ros.core import (
    DeviceError,
    EndNeeds,
    ModelFileError,
    NotReadyError,
    SetupError,
    needing,
)
from edge_vlm_ros.engines.sophgo.device import Device, call
from edge_vlm_ros.engines.sophgo.nets import AddressMode, DType, NetInfo, Shape, TensorInfo
from edge_vlm_ros.engines.sophgo.tensors import DeviceTensor, HostTensor, Memory
from edge_vlm_ros.engines.vendor_words import brief

_END_NEEDS = EndNeeds(grace_s=10.0)
"""The driver takes memory back from a process that is gone, but a chip that is cut off in a launch
may take its time: it is asked first. Source: libsophon, the driver's release of a file."""


class Runtime:
    """A loaded bmodel: its nets, and device memory to run them with. One thread uses it.

    Args:
        device: Where.
        path: The file.

    Raises:
        DeviceError: The runtime library cannot load it.
        ModelFileError: A net has a tensor of a type that is not known here.

    Attributes:
        path: The file.
        nets: By name.
        free_bytes: Tells the device memory that is not in use; None = not known.
    """

    def __init__(self, device: Device, path: Path) -> None:
        self._shares_scratch = device.shares_scratch
        self._memory = Memory(device)
        self.free_bytes = device.free_bytes
        self._device = device
        self.path = path
        self._launches: WeakSet[Launch] = WeakSet()
        with ExitStack() as opening:
            opening.enter_context(needing(_END_NEEDS))
            self._engine: Any = _load(device, path)
            names: list[str] = list(call('get_graph_names', self._engine.get_graph_names))
            self.nets = {name: self._describe(name) for name in names}
            self._closing = opening.pop_all()

    def allocate(self, shape: Shape, dtype: DType) -> DeviceTensor:
        """Make device memory, filled with zeros.

        Raises:
            DeviceError: The device has too little free memory.
        """
        return self._memory.allocate(shape, dtype)

    def allocate_host(self, values: NDArray[Any], dtype: DType) -> HostTensor:
        """Make host memory that device tensors are filled from again and again."""
        return self._memory.allocate_host(values, dtype)

    def own_inputs(self, name: str) -> tuple[DeviceTensor, ...]:
        """Give the memory that an io_alone net keeps its inputs in; it is not zero-filled.

        Raises:
            DeviceError: The net has none.
        """
        info = self.nets[name]
        raws = call(name, self._engine.get_input_tensors, name)
        if len(raws) != len(info.inputs):
            raise DeviceError(f'net {name}: no input memory of its own')
        return tuple(
            self._memory.wrap(raws[i], tensor.shape, tensor.dtype)
            for i, tensor in enumerate(info.inputs)
        )

    def compiled_inputs(self, name: str) -> tuple[DeviceTensor, ...]:
        """Give the memory that a net was compiled to read its inputs from.

        Of a net in address mode 0 this is scratch memory: every launch of any net may write there.

        Raises:
            DeviceError: The net's addresses are symbols.
        """
        info = self.nets[name]
        if info.address_mode not in {AddressMode.BASIC, AddressMode.IO_ALONE}:
            raise DeviceError(f'net {name}: no input memory, its addresses are symbols')
        if info.address_mode is AddressMode.BASIC and not self._shares_scratch:
            raise SetupError(
                f'net {name} reads its history where it was compiled to: on this chip that takes '
                'sophon-sail 3.9.4 or later, with BmrtFlag'
            )
        raws = call(name, self._engine.get_input_tensors_addrmode0, name)
        return tuple(
            self._memory.wrap(raws[i], tensor.shape, tensor.dtype)
            for i, tensor in enumerate(info.inputs)
        )

    def launch(
        self, name: str, inputs: Sequence[DeviceTensor], outputs: Sequence[DeviceTensor]
    ) -> None:
        """Run a net once."""
        Launch(self, name, inputs, outputs).run()

    def close(self) -> None:
        """Free all device memory, the model and the device; safe to call twice."""
        for launch in self._launches:
            launch.release()
        self._memory.release()
        self._engine = None
        gc.collect()  # what still hangs in cycles holds device memory
        self._device.close()
        self._closing.close()

    def note(self, launch: Launch) -> None:
        """Remember a launch, to take its tensors away at the end."""
        self._launches.add(launch)

    def process(self, name: str, inputs: dict[int, Any], outputs: dict[int, Any]) -> None:
        """Run a net on checked tensors.

        Raises:
            DeviceError: The launch failed.
        """
        if self._engine is None:
            raise NotReadyError('the engine is closed')
        try:
            self._engine.process(name, inputs, outputs)
        except (Exception, SystemExit) as error:
            raise DeviceError(f'net {name} failed: {brief(error)}') from error

    def _describe(self, name: str) -> NetInfo:
        engine = self._engine
        stages = range(engine.get_stage_num(name))
        return NetInfo(
            name=name,
            is_dynamic=bool(engine.get_is_dynamic(name)),
            address_mode=AddressMode(int(engine.get_addr_mode(name))),
            inputs=tuple(
                TensorInfo(
                    engine.get_input_name(name, i),
                    self._dtype(name, engine.get_input_dtype(name, i)),
                    tuple(tuple(engine.get_input_shape(name, i, stage)) for stage in stages),
                )
                for i in range(engine.get_input_num(name))
            ),
            outputs=tuple(
                TensorInfo(
                    engine.get_output_name(name, i),
                    self._dtype(name, engine.get_output_dtype(name, i)),
                    tuple(tuple(engine.get_output_shape(name, i, stage)) for stage in stages),
                )
                for i in range(engine.get_output_num(name))
            ),
        )

    def _dtype(self, name: str, found: Any) -> DType:
        dtype = self._memory.dtype_of(found)
        if dtype is None:
            raise ModelFileError(f'{self.path}: net {name}: a tensor of unknown type {found}')
        return dtype


class Launch:
    """A net with its tensors bound and checked; run again and again.

    Args:
        runtime: That loaded it.
        name: The net's.
        inputs: In the net's order.
        outputs: In the net's order. Where an input and an output of a static net are the same
            memory the runtime library still gets it right: it copies in before, out after.
    """

    __slots__ = ('__weakref__', '_inputs', '_kept', '_name', '_outputs', '_runtime')

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        inputs: Sequence[DeviceTensor],
        outputs: Sequence[DeviceTensor],
    ) -> None:
        info = runtime.nets[name]
        _check_bound(info, 'input', info.inputs, inputs)
        _check_bound(info, 'output', info.outputs, outputs)
        self._runtime = runtime
        self._name = name
        self._kept = [*inputs, *outputs]
        self._inputs = {i: tensor.raw for i, tensor in enumerate(inputs)}
        self._outputs = {i: tensor.raw for i, tensor in enumerate(outputs)}
        runtime.note(self)

    def run(self) -> None:
        """Run the net and wait for it.

        Raises:
            DeviceError: The launch failed.
        """
        self._runtime.process(self._name, self._inputs, self._outputs)

    def bind_input(self, index: int, tensor: DeviceTensor) -> None:
        """Read an input elsewhere; type and size are those of the tensor bound before."""
        self._inputs[index] = tensor.raw

    def bind_output(self, index: int, tensor: DeviceTensor) -> None:
        """Write an output elsewhere; type and size are those of the tensor bound before."""
        self._outputs[index] = tensor.raw

    def bind_output_run(
        self, index: int, tensor: DeviceTensor, shape: list[int], offset: int
    ) -> None:
        """Write an output to a run of a tensor that outlives this: `bind_output` of a view.

        Without what else a `DeviceTensor` is good for: decoding does this twice a layer and token.
        """
        self._outputs[index] = tensor.raw_view(shape, offset)

    def release(self) -> None:
        """Let go of the tensors."""
        self._kept.clear()
        self._inputs.clear()
        self._outputs.clear()


def _load(device: Device, path: Path) -> Any:
    """Load the file, with one scratch memory for all nets where the release knows the flag."""
    sail, index = device.sail, device.index
    flags = getattr(sail, 'BmrtFlag', None)
    try:
        if flags is None:
            return sail.EngineLLM(str(path), [index])
        return sail.EngineLLM(str(path), flags.BM_RUNTIME_SHARE_MEM, [index])
    except (Exception, SystemExit) as error:
        # What is wrong with the file itself was found before, by reading it.
        raise DeviceError(
            f'{path}: the runtime library cannot load it: {brief(error)}; '
            f'device {index} may be full or held by another process, or its SDK too old '
            '(edge-vlm doctor)'
        ) from error


def _check_bound(
    info: NetInfo, kind: str, wanted: Sequence[TensorInfo], given: Sequence[DeviceTensor]
) -> None:
    """Refuse tensors that the binding would take and the net misread. Our own invariants."""
    assert len(wanted) == len(given), (info.name, kind, len(wanted), len(given))
    for tensor, bound in zip(wanted, given, strict=True):
        assert bound.dtype is tensor.dtype, (info.name, tensor.name, bound.dtype)
        sizes = [prod(shape) for shape in tensor.shapes]
        fits = bound.size <= max(sizes) if info.is_dynamic else bound.size in sizes
        assert fits, (info.name, tensor.name, bound.shape, tensor.shapes)
