"""sophon-sail, thin and typed. The only module that imports it; nothing above sees its errors.

What is guarded here, because the binding does not (sophon-sail 3.9.1 to 3.10.7, `src/bind.cpp`,
`src/engine_llm.cpp`, `src/tensor.cpp`):

* A tensor of another type than a net's is taken and its bits read as that type; an index missing
  among a net's tensors ends the process: every `Launch` is checked when it is made.
* `update_data` takes int64, float64 and float16 arrays by an overload for float32 and stores the
  wrong bits: arrays of exactly the tensor's type cross this edge, nothing else.
* A view does not keep alive what it looks into: ours do.
* `memory_set` fills with an expired local before 3.10.7: memory is zeroed by copying zeros.
* Tensors that wrap a net's own memory are cached mappings on a SoC: they are filled by explicit
  copies, never through the mapping.
* Sizes and offsets are 32 bit numbers.
* Releases before 3.9.1 have no views and end the process on a wrong shape: refused.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from importlib import import_module
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import DeviceError, ModelFileError, NotReadyError
from edge_vlm_ros.engines.sophgo.nets import AddressMode, DType, NetInfo, Shape, TensorInfo

_log = logging.getLogger(__name__)

_MIB = 2**20
_MOST_BYTES = 2**31 - 1
_ZEROS = 2**20
"""Elements of the host memory that device memory is zeroed from."""

_Result = TypeVar('_Result')


class Device:
    """One Sophgo chip.

    Args:
        chip: 'bm1684x' or 'bm1688'.
        index: Among those of the machine.

    Raises:
        DeviceError: The library is missing, too old or broken, there is no such device, or it is
            of another kind.
    """

    def __init__(self, chip: str, index: int) -> None:
        self._sail = _import_sail()
        # Below errors it warns of each use of scratch memory, which is meant here.
        _call('set_loglevel', self._sail.set_loglevel, self._sail.LogLevel.ERROR)
        found = _call('get_available_tpu_num', self._sail.get_available_tpu_num)
        if not 0 <= index < found:
            raise DeviceError(f'there is no Sophgo device {index}: this machine has {found}')
        self._handle = _call(f'device {index}', self._sail.Handle, index)
        self.index = index
        self.chip = chip
        target = str(_call('get_target', self._handle.get_target))
        if target.lower() != chip:
            raise DeviceError(f'device {index} is a {target}, this model runs on {chip.upper()}')

    def free_bytes(self) -> int | None:
        """Return the device memory that is not in use; None where the library does not tell."""
        if not hasattr(self._sail, 'get_dev_stat'):
            return None
        stat = _call('get_dev_stat', self._sail.get_dev_stat, self.index)
        total_mib, used_mib = int(stat[0]), int(stat[1])
        return (total_mib - used_mib) * _MIB if total_mib else None

    def check_memory(self, needed: int, what: Path) -> None:
        """Refuse a model that the free memory cannot hold.

        Raises:
            DeviceError: It cannot.
        """
        free = self.free_bytes()
        if free is not None and needed > free:
            raise DeviceError(
                f'{what}: needs {needed / _MIB:.0f} MiB of device memory, device {self.index} has '
                f'{free / _MIB:.0f} MiB free (on a SoC the share of the NPU can be made larger '
                'with memory_edit.sh of the DeviceMemoryModificationKit)'
            )

    def load(self, path: Path) -> Runtime:
        """Load a bmodel.

        Raises:
            ModelFileError: The runtime library refuses the file.
        """
        return Runtime(self._sail, self._handle, self, path)


class Runtime:
    """A loaded bmodel: its nets, and device memory to run them with. One thread uses it.

    Made by `Device.load`.

    Attributes:
        path: The file.
        nets: By name.
        make_view: The binding's constructor of views: raw tensor, shape, offset in elements.
    """

    def __init__(self, sail: ModuleType, handle: Any, device: Device, path: Path) -> None:
        self._sail = sail
        self._handle = handle
        # Without the flag, which came with 3.9.4, BM1688 gives every net scratch memory of its
        # own, whose addresses are not known before a launch (libsophon, bmruntime.cpp).
        self._shares_scratch = hasattr(sail, 'BmrtFlag') or device.chip == 'bm1684x'
        self.make_view: Callable[[Any, list[int], int], Any] = sail.Tensor
        self._dtypes = {getattr(sail.Dtype, name): dtype for name, dtype in _DTYPES.items()}
        self._sail_dtypes = {dtype: name for name, dtype in self._dtypes.items()}
        self.path = path
        self._tensors: list[DeviceTensor] = []
        self._launches: WeakSet[Launch] = WeakSet()
        self._zeros: dict[DType, Any] = {}
        self._engine: Any = self._open(device.index)
        names: list[str] = list(_call('get_graph_names', self._engine.get_graph_names))
        self.nets = {name: self._describe(name) for name in names}

    @property
    def is_open(self) -> bool:
        """Whether `close` was not called yet."""
        return self._engine is not None

    def allocate(self, shape: Shape, dtype: DType) -> DeviceTensor:
        """Make device memory, filled with zeros.

        Raises:
            DeviceError: There is not enough.
        """
        nbytes = prod(shape) * dtype.nbytes
        if nbytes > _MOST_BYTES:
            raise DeviceError(f'{nbytes} bytes in one tensor: sophon-sail takes {_MOST_BYTES}')
        raw = self._tensor(f'{nbytes} bytes of device memory', shape, dtype, on_device=True)
        return self._keep(DeviceTensor(self, raw, shape, dtype))

    def allocate_host(self, values: NDArray[Any], dtype: DType) -> HostTensor:
        """Make host memory that device tensors are filled from again and again."""
        raw = self._tensor('host memory', values.shape, dtype, on_device=False)
        _call('update_data', raw.update_data, _exact(values, dtype))
        return HostTensor(raw, values.size, dtype)

    def own_inputs(self, name: str) -> tuple[DeviceTensor, ...]:
        """Give the memory that an io_alone net keeps its inputs in, filled with zeros by nobody.

        Raises:
            DeviceError: The net has none.
        """
        info = self.nets[name]
        raws = _call(name, self._engine.get_input_tensors, name)
        if len(raws) != len(info.inputs):
            raise DeviceError(f'net {name}: no input memory of its own')
        return tuple(
            self._keep(DeviceTensor(self, raws[i], tensor.shape, tensor.dtype))
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
            raise DeviceError(
                f'net {name} reads its history where it was compiled to: on this chip that takes '
                'sophon-sail 3.9.4 or later, with BmrtFlag'
            )
        raws = _call(name, self._engine.get_input_tensors_addrmode0, name)
        return tuple(
            self._keep(DeviceTensor(self, raws[i], tensor.shape, tensor.dtype))
            for i, tensor in enumerate(info.inputs)
        )

    def launch(
        self, name: str, inputs: Sequence[DeviceTensor], outputs: Sequence[DeviceTensor]
    ) -> None:
        """Run a net once."""
        Launch(self, name, inputs, outputs).run()

    def close(self) -> None:
        """Free all device memory and the model; safe to call twice."""
        for launch in self._launches:
            launch.release()
        for tensor in self._tensors:
            tensor.release()
        self._tensors.clear()
        self._zeros.clear()
        self._engine = None
        gc.collect()  # what still hangs in cycles holds device memory

    def zeros_of(self, dtype: DType) -> Any:
        """Give host memory of zeros, `_ZEROS` elements."""
        if dtype not in self._zeros:
            values = np.zeros(_ZEROS, dtype.host)
            self._zeros[dtype] = self.allocate_host(values, dtype).raw
        return self._zeros[dtype]

    def view_of(self, raw: Any, shape: Shape, offset: int) -> Any:
        """Make a tensor that looks into another's device memory; offset in elements."""
        return self.make_view(raw, list(shape), offset)

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
            raise DeviceError(f'net {name} failed: {_brief(error)}') from error

    def _tensor(self, what: str, shape: Shape, dtype: DType, *, on_device: bool) -> Any:
        kind = self._sail_dtypes[dtype]
        make = self._sail.Tensor
        return _call(what, make, self._handle, list(shape), kind, not on_device, on_device)

    def _open(self, index: int) -> Any:
        """Load the file, with one scratch memory for all nets where the release knows the flag."""
        sail, path = self._sail, str(self.path)
        flags = getattr(sail, 'BmrtFlag', None)
        try:
            if flags is None:
                return sail.EngineLLM(path, [index])
            return sail.EngineLLM(path, flags.BM_RUNTIME_SHARE_MEM, [index])
        except (Exception, SystemExit) as error:
            # What is wrong with the file itself was found before, by reading it.
            raise DeviceError(
                f'{self.path}: the runtime library cannot load it: {_brief(error)}; '
                f'device {index} may be full or held by another process, or its SDK too old '
                '(edge-vlm doctor)'
            ) from error

    def _keep(self, tensor: DeviceTensor) -> DeviceTensor:
        self._tensors.append(tensor)
        return tensor

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
        if found not in self._dtypes:
            raise ModelFileError(f'{self.path}: net {name}: a tensor of unknown type {found}')
        return self._dtypes[found]


class HostTensor:
    """Host memory of the binding's, to copy from."""

    __slots__ = ('dtype', 'raw', 'size')

    def __init__(self, raw: Any, size: int, dtype: DType) -> None:
        self.raw = raw
        self.size = size
        self.dtype = dtype


class DeviceTensor:
    """Device memory: allocated, a net's own, or a view into another tensor.

    Attributes:
        shape: Its sizes.
        dtype: Its type.
        raw: The binding's tensor; None once released.
    """

    __slots__ = ('_parent', '_runtime', 'dtype', 'raw', 'shape', 'size')

    def __init__(
        self,
        runtime: Runtime,
        raw: Any,
        shape: Shape,
        dtype: DType,
        parent: DeviceTensor | None = None,
    ) -> None:
        self._runtime = runtime
        self._parent = parent
        self.raw = raw
        self.shape = shape
        self.size = prod(shape)
        self.dtype = dtype

    def view(self, shape: Shape, offset: int = 0) -> DeviceTensor:
        """Look at a run of this memory, `offset` elements from its start; nothing is copied."""
        size = prod(shape)
        assert 0 <= offset <= self.size - size, (self.shape, shape, offset)
        raw = self._runtime.view_of(self.raw, shape, offset)
        return DeviceTensor(self._runtime, raw, shape, self.dtype, self)

    def shorter(self, shape: Shape, room: int, offset: int = 0) -> DeviceTensor:
        """Look at `room` elements of this memory, but say that there are only those of `shape`.

        A dynamic net reads the real sizes from the shapes, and the runtime library ends the
        process where the memory behind them is smaller than the net's largest sizes.

        Source: libsophon, tpu-runtime (the assertion in fill_dynamic_tensor_info); sophon-sail,
        Tensor_CC::reset: a tensor that does not own its memory keeps it when it is reshaped.
        """
        size = prod(shape)
        assert 0 <= offset <= self.size - room, (self.shape, room, offset)
        assert size <= room, (shape, room)
        raw = self._runtime.view_of(self.raw, (room,), offset)
        _call('reshape', raw.reshape, list(shape))
        return DeviceTensor(self._runtime, raw, shape, self.dtype, self)

    def write(self, values: NDArray[Any], offset: int = 0) -> None:
        """Copy an array of exactly this type to the device, `offset` elements from the start.

        Raises:
            DeviceError: The copy failed.
        """
        target = self if values.size == self.size else self.view((values.size,), offset)
        exact = _exact(values, self.dtype).reshape(target.shape)
        _call('copy to the device', target.raw.update_data, exact)

    def read(self, count: int = 0, offset: int = 0) -> NDArray[Any]:
        """Copy `count` elements (0 = all) to the host: (count,), in memory of its own.

        Raises:
            DeviceError: The copy failed.
        """
        count = count or self.size
        source = self if count == self.size else self.view((count,), offset)
        values: NDArray[Any] = _call('copy from the device', source.raw.asnumpy)
        return np.ascontiguousarray(values).reshape(-1)

    def copy_from_host(self, source: HostTensor, start: int, offset: int, count: int) -> None:
        """Copy `count` elements of kept host memory to the device."""
        assert start + count <= source.size
        assert offset + count <= self.size
        assert source.dtype is self.dtype
        _call('copy to the device', self.raw.sync_s2d, source.raw, start, offset, count)

    def copy_from(self, source: DeviceTensor, start: int, offset: int, count: int) -> None:
        """Copy `count` elements from another tensor, on the device."""
        assert start + count <= source.size
        assert offset + count <= self.size
        assert source.dtype is self.dtype
        _call('copy on the device', self.raw.sync_d2d, source.raw, start, offset, count)

    def zero(self) -> None:
        """Fill with zeros."""
        zeros = self._runtime.zeros_of(self.dtype)
        for start in range(0, self.size, _ZEROS):
            count = min(_ZEROS, self.size - start)
            _call('copy to the device', self.raw.sync_s2d, zeros, 0, start, count)

    def release(self) -> None:
        """Let go of the memory."""
        self.raw = None


class Launch:
    """A net with its tensors bound and checked; run again and again.

    Args:
        runtime: That loaded it.
        name: The net's.
        inputs: In the net's order.
        outputs: In the net's order. Where an input and an output of a static net are the same
            memory the runtime library still gets it right: it copies in before, out behind.
    """

    __slots__ = ('__weakref__', '_inputs', '_kept', '_make_view', '_name', '_outputs', '_runtime')

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
        self._make_view = runtime.make_view
        self._name = name
        self._kept = [*inputs, *outputs]
        self._inputs = {i: tensor.raw for i, tensor in enumerate(inputs)}
        self._outputs = {i: tensor.raw for i, tensor in enumerate(outputs)}
        runtime.note(self)

    def run(self) -> None:
        """Run the net and wait for it.

        Raises:
            DeviceError: It failed.
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
        self._outputs[index] = self._make_view(tensor.raw, shape, offset)

    def release(self) -> None:
        """Let go of the tensors."""
        self._kept.clear()
        self._inputs.clear()
        self._outputs.clear()


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


def _exact(values: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """Give the bits that cross the edge, in order and of exactly the right type."""
    if values.dtype == np.float16 and dtype is DType.FLOAT16:
        values = values.view(np.uint16)
    assert values.dtype == dtype.host, (values.dtype, dtype)
    return np.ascontiguousarray(values)


_DTYPES = {
    'BM_FLOAT32': DType.FLOAT32,
    'BM_FLOAT16': DType.FLOAT16,
    'BM_BFLOAT16': DType.BFLOAT16,
    'BM_INT8': DType.INT8,
    'BM_UINT8': DType.UINT8,
    'BM_INT16': DType.INT16,
    'BM_UINT16': DType.UINT16,
    'BM_INT32': DType.INT32,
    'BM_UINT32': DType.UINT32,
}


def _import_sail() -> ModuleType:
    """Import sophon-sail and check that it is no older than 3.9.1.

    Its `__version__` may be a build date, so its abilities are looked at: views and the tensor
    getters came with 3.9.1, `EngineLLM` is left out of builds for an old SDK.
    """
    try:
        sail = import_module('sophon.sail')
    except (Exception, SystemExit) as error:
        raise DeviceError(
            f'sophon-sail cannot be loaded: {_brief(error)}; it comes with the SDK of the board '
            '(libsophon and sophon-sail 3.9.1 or later)'
        ) from error
    version = getattr(sail, '__version__', 'unknown')
    tensor = getattr(sail, 'Tensor', None)
    for owner, name in ((sail, 'EngineLLM'), (sail, 'Tensor'), (tensor, 'element_size')):
        if not hasattr(owner, name):
            raise DeviceError(
                f'sophon-sail {version} has no {name}: 3.9.1 or later is needed, built for an SDK '
                'that knows addr_mode'
            )
    return sail


def _call(what: str, function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Call the binding; its failures, its attempts to exit among them, become `DeviceError`."""
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        raise DeviceError(f'{what}: {_brief(error)}') from error


def _brief(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
