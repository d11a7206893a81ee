"""Stands in for safetensors where Sophgo's compiler reads a checkpoint: NumPy instead of torch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_TYPES: dict[str, tuple[type[np.generic], torch.dtype]] = {
    'BF16': (np.uint16, torch.bfloat16),
    'F16': (np.float16, torch.float16),
    'F32': (np.float32, torch.float32),
    'I8': (np.int8, torch.int8),
    'I32': (np.int32, torch.int32),
    'I64': (np.int64, torch.int64),
    'U8': (np.uint8, torch.uint8),
}


class _Tensor:
    """A NumPy array that answers as a torch tensor does; bfloat16 is held as float32."""

    def __init__(self, values: NDArray[Any], dtype: torch.dtype) -> None:
        self._values = values
        self.dtype = dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self._values.shape

    def float(self) -> _Tensor:
        return _Tensor(self._values.astype(np.float32), torch.float32)

    def numpy(self) -> NDArray[Any]:
        return self._values


class safe_open:  # noqa: N801, the library's name
    """Read a file tensor by tensor."""

    def __init__(self, path: str, framework: object = None, device: object = None) -> None:
        self._bytes = np.memmap(path, np.uint8, 'r')
        length = int(self._bytes[:8].view(np.uint64)[0])
        self._header = json.loads(bytes(self._bytes[8 : 8 + length]))
        self._header.pop('__metadata__', None)
        self._start = 8 + length

    def __enter__(self) -> safe_open:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def keys(self) -> list[str]:
        return list(self._header)

    def get_tensor(self, name: str) -> _Tensor:
        entry = self._header[name]
        first, last = entry['data_offsets']
        host, dtype = _TYPES[entry['dtype']]
        values: NDArray[Any] = np.array(self._bytes[self._start + first : self._start + last]).view(host)
        if dtype is torch.bfloat16:
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return _Tensor(values.reshape(entry['shape']), dtype)
