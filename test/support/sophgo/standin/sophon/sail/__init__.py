"""A stand-in for `sophon.sail` that runs real bmodels on Sophgo's own chip emulator.

Put `test/support/sophgo/standin` on PYTHONPATH and name the folder of a chip's libraries in
EDGE_VLM_EMULATOR_LIBS (`test/support/sophgo/emulator.py` does both). Without the folder the import
fails, as it does on a machine without Sophgo's SDK. Launches, memory and copies are those of the
vendor's runtime library; this package only gives it the shape of sophon-sail's Python binding.

What is here, with names, argument names and order as in sophon-sail 3.10.7 (`src/bind.cpp`):

* `Handle(dev_id)`: get_device_id, get_sn, get_target
* `Tensor(handle, shape, dtype, own_sys_data, own_dev_data)`, `Tensor(handle, data, ...)`, and the
  view `Tensor(src, shape, offset, no_copy)`, whose offset counts elements: shape, reshape, dtype,
  size, element_size, nbytes, device_id, own_sys_data, own_dev_data, is_dev_data_valid,
  is_sys_data_valid, update_data, asnumpy, sync_s2d, sync_d2s, sync_d2d, memory_set, zeros, ones
* `EngineLLM(path, tpu_ids)`, `(path, flags, tpu_ids)`, `(bytes, size, tpu_ids)`: every getter but
  those of the scales, every `get_*_tensor*`, create_max_input_tensors, create_max_output_tensors,
  process
* `Dtype`, `BmrtFlag`, `LogLevel`, set_loglevel, get_available_tpu_num, get_dev_stat, the
  exceptions, `__version__` (a build date, as in every release)

EDGE_VLM_SAIL_RELEASE chooses what an older release did: '3.9.1' has no `BmrtFlag` and no flags
constructor, `update_data` does not look at the dtype, and `memory_set` fills with whatever lies
after its argument. The default is '3.10.7'.

EDGE_VLM_EMULATOR_MEMORY makes the device's memory smaller than 3 GiB (bytes): an allocation or a
model file beyond it is refused as a chip's driver refuses it. The emulator itself would end the
process. EDGE_VLM_EMULATOR_LOG names the file that the libraries print into.

Where it is stricter than the real binding (each of these passes there and goes wrong later), it
raises `sophon.standin.MisuseError`: a tensor of another dtype than the net's, an output too small
for what a net writes, a view or a net's own tensor used after its memory is gone, two `process`
calls of one engine at once, an address that is only a symbol (address mode 2).
Where the real binding ends the process (an index missing in `process`), this one does so too.

Counters of copies and launches are in `sophon.standin`.
"""

from __future__ import annotations

from sophon.sail import _options
from sophon.sail._engine import EngineLLM
from sophon.sail._library import Library
from sophon.sail._tensor import Handle, Tensor
from sophon.sail._types import (
    BmrtFlag,
    DataTypeError,
    Dtype,
    LogLevel,
    MemoryError,  # noqa: A004, the binding calls it so
    NotSupport,
    SailDeviceError,
    SailEngineError,
    SailTensorError,
)

# Fail here, not at the first call, where there are no libraries.
Library.of_this_process()

__version__ = 'master(20251114_213701)'

BM_FLOAT32 = Dtype.BM_FLOAT32
BM_FLOAT16 = Dtype.BM_FLOAT16
BM_BFLOAT16 = Dtype.BM_BFLOAT16
BM_INT8 = Dtype.BM_INT8
BM_UINT8 = Dtype.BM_UINT8
BM_INT16 = Dtype.BM_INT16
BM_UINT16 = Dtype.BM_UINT16
BM_INT32 = Dtype.BM_INT32
BM_UINT32 = Dtype.BM_UINT32
if _options.is_old_release():
    del BmrtFlag

_DEVICES = 1  # the emulator is one chip


def set_loglevel(loglevel: LogLevel) -> int:
    """Accept a log level: this package logs nothing."""
    if not isinstance(loglevel, LogLevel):
        raise TypeError('set_loglevel(): incompatible function arguments')
    return 0


def get_available_tpu_num() -> int:
    """Return how many chips there are."""
    return _DEVICES


def get_dev_stat(dev_id: int) -> list[int]:
    """Return memory in all, memory in use (MiB) and the load in percent."""
    device = Handle(dev_id).device
    mib = 1 << 20
    return [device.memory_bytes // mib, -(-device.live_bytes // mib), 0]


__all__ = [
    'BM_BFLOAT16',
    'BM_FLOAT16',
    'BM_FLOAT32',
    'BM_INT8',
    'BM_INT16',
    'BM_INT32',
    'BM_UINT8',
    'BM_UINT16',
    'BM_UINT32',
    'BmrtFlag',
    'DataTypeError',
    'Dtype',
    'EngineLLM',
    'Handle',
    'LogLevel',
    'MemoryError',
    'NotSupport',
    'SailDeviceError',
    'SailEngineError',
    'SailTensorError',
    'Tensor',
    'get_available_tpu_num',
    'get_dev_stat',
    'set_loglevel',
]
