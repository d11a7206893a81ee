"""The nets of a loaded bmodel as the vendor's runtime declares them: names, shapes, types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import numpy as np

Shape: TypeAlias = tuple[int, ...]


class DType(Enum):
    """Element types; the value is the name in reports and messages."""

    FLOAT32 = 'float32'
    FLOAT16 = 'float16'
    BFLOAT16 = 'bfloat16'
    INT8 = 'int8'
    UINT8 = 'uint8'
    INT16 = 'int16'
    UINT16 = 'uint16'
    INT32 = 'int32'
    UINT32 = 'uint32'

    @property
    def host(self) -> np.dtype[np.generic]:
        """The numpy type that crosses the vendor's edge: both half types go as uint16 bits."""
        return np.dtype('uint16') if self.is_half else np.dtype(self.value)

    @property
    def is_half(self) -> bool:
        """Whether it is one of the 16 bit floats."""
        return self in {DType.FLOAT16, DType.BFLOAT16}

    @property
    def nbytes(self) -> int:
        """Bytes of one element."""
        return self.host.itemsize


class AddressMode(Enum):
    """Where the runtime keeps a net's inputs and outputs (libsophon, `addr_mode`).

    BASIC: in scratch memory that all nets share. IO_ALONE: in memory of the net's own, which keeps
    its content. IO_TAG: nowhere; every launch brings its own, the declared addresses are symbols.
    """

    BASIC = 0
    IO_ALONE = 1
    IO_TAG = 2
    IO_TAG_FUSE = 3


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output of a net.

    Attributes:
        name: As the compiler wrote it: outputs carry suffixes, so nets are wired by index.
        dtype: Its type.
        shapes: By stage.
    """

    name: str
    dtype: DType
    shapes: tuple[Shape, ...]

    @property
    def shape(self) -> Shape:
        """The shape in the first stage, the largest."""
        return self.shapes[0]


@dataclass(frozen=True, slots=True)
class NetInfo:
    """One net.

    Attributes:
        name: By which the runtime knows it.
        is_dynamic: Whether the real sizes may be below the declared ones.
        address_mode: Where its inputs and outputs live.
        inputs: In order.
        outputs: In order.
    """

    name: str
    is_dynamic: bool
    address_mode: AddressMode
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    @property
    def stages(self) -> int:
        """How many sets of shapes it was compiled for."""
        return len(self.inputs[0].shapes)


Nets: TypeAlias = Mapping[str, NetInfo]
"""By name. The order in a file is not the layers' order."""
