"""What a bmodel file says of itself, read without the vendor's library.

A file is 64 bytes of header, a flatbuffer that describes the nets, and the binary data (weights,
commands) that it points into. Reading the description takes milliseconds and no device, so a file
of another chip, a truncated one and one too large for the device are refused before anything is
loaded: the vendor's library answers some of these with the end of the process.

Source: sophgo/tpu-mlir, bmodel.fbs and bmodel.hpp (field numbers and the header's layout); sizes
checked against the listings of the vendor's `model_tool --info`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.engines.sophgo.nets import AddressMode, DType, NetInfo, TensorInfo

_MAGIC = 0xFF55AAEE
_HEADER_BYTES = 64
_LARGEST_DESCRIPTION = 1 << 29
_READS_A_BYTE = 4
"""Bytes read of a description for each byte it has: an honest one is read about once. A file whose
tables refer to one another thousands of times would be read for ever."""

# Field numbers of the tables in bmodel.fbs.
_MODEL_VERSION, _MODEL_TIME, _MODEL_CHIP, _MODEL_NETS = 1, 2, 3, 4
_NET_NAME, _NET_STAGES, _NET_ADDRESS_MODE = 0, 3, 5
_STAGE_INPUTS, _STAGE_OUTPUTS, _STAGE_IS_DYNAMIC = 0, 1, 5
_TENSOR_NAME, _TENSOR_TYPE, _TENSOR_SHAPES = 0, 1, 5
_SHAPE_SIZES = 0
_STAGE_CTX_SIZE, _STAGE_COEFF, _STAGE_CMD_GROUPS = 3, 4, 8
_STAGE_IR, _STAGE_SUBNETS, _STAGE_CTX_SIZES, _STAGE_CORES = 11, 12, 14, 16
_STAGE_IO_SIZE = 18
_COEFF_BINARY = 2
_GROUP_BDC, _GROUP_GDMA = 2, 3
_SUBNET_CMD_GROUPS, _SUBNET_CORE_COMMANDS = 1, 14
_CORE_GROUPS = 0


# Numbers of the element types, those of the runtime library's bm_data_type_t.
_DTYPES = (
    *(DType.FLOAT32, DType.FLOAT16, DType.INT8, DType.UINT8, DType.INT16),
    *(DType.UINT16, DType.INT32, DType.UINT32, DType.BFLOAT16),
)


@dataclass(frozen=True, slots=True)
class BmodelFile:
    """One bmodel, as its description says.

    Attributes:
        path: The file.
        chip: In lower case: 'bm1684x', 'bm1688', ...
        compiler: The compiler's version.
        compiled: When it was compiled, in the compiler's words.
        nets: By name, as the runtime library declares them once they are loaded.
        cores: By net; the largest number of cores any of its stages was compiled for.
        weight_bytes: Of all nets, shared weights counted once.
        command_bytes: Of all nets.
        scratch_sizes: Scratch memory that nets need, largest first, each size once.
        own_io_bytes: Own input and output memory of the nets that have one; all stages of a net
            share it.
    """

    path: Path
    chip: str
    compiler: str
    compiled: str
    nets: dict[str, NetInfo]
    cores: dict[str, int]
    weight_bytes: int
    command_bytes: int
    scratch_sizes: tuple[int, ...]
    own_io_bytes: int

    @property
    def device_bytes(self) -> int:
        """Device memory that loading the file takes, with one scratch memory for all nets."""
        return self.loaded_bytes(shares_scratch=True)

    def loaded_bytes(self, *, shares_scratch: bool) -> int:
        """Count the device memory that loading the file takes, to 1 %.

        Args:
            shares_scratch: Whether all nets share one scratch memory, the largest; a file for
                two cores has both cores' in it. Otherwise there is one of each size, or some
                fewer.

        Source: what the vendor's runtime library asked for when it loaded this project's compiled
        models on the emulators.
        """
        scratch = self.scratch_sizes[:1] if shares_scratch else self.scratch_sizes
        return self.weight_bytes + self.command_bytes + self.own_io_bytes + sum(scratch)


def read_bmodel(path: Path) -> BmodelFile:
    """Read a file's description.

    Raises:
        ModelFileError: Missing, truncated, or no bmodel.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ModelFileError(f'{path}: no regular file')
    try:
        with path.open('rb') as file:
            header = file.read(_HEADER_BYTES)
            described = _described_bytes(path, header, path.stat().st_size)
            flat = file.read(described)
    except FileNotFoundError:
        raise ModelFileError(f'{path}: no such file') from None
    except OSError as error:
        raise ModelFileError(f'{path}: cannot be read: {error}') from error
    try:
        return _describe(path, _Table.root(_Description(flat)), _HEADER_BYTES + described)
    except (struct.error, LookupError, ValueError) as error:
        raise ModelFileError(f'{path}: the description of the nets is damaged') from error


def _described_bytes(path: Path, header: bytes, size: int) -> int:
    """Check the header against the file's size; return the bytes of the description."""
    if len(header) < _HEADER_BYTES:
        raise ModelFileError(
            f'{path}: truncated: {size} bytes, a bmodel has {_HEADER_BYTES} first'
        )
    magic, header_bytes, flat_bytes, binary_bytes = struct.unpack_from('<4I', header)
    if magic != _MAGIC:
        raise ModelFileError(f'{path}: no bmodel: it begins with {header[:4].hex()}')
    # binary_bytes has 32 bits, which files above 4 GiB overflow: the size is known modulo 2**32.
    wanted = header_bytes + flat_bytes + binary_bytes
    if header_bytes != _HEADER_BYTES or size < header_bytes + flat_bytes:
        raise ModelFileError(f'{path}: truncated: {size} bytes, its header promises {wanted}')
    if size < wanted:
        raise ModelFileError(f'{path}: truncated: {size} bytes, its header promises {wanted}')
    if flat_bytes > _LARGEST_DESCRIPTION:
        raise ModelFileError(
            f'{path}: damaged: its description has {flat_bytes} bytes, the limit is '
            f'{_LARGEST_DESCRIPTION}'
        )
    return int(flat_bytes)


def _describe(path: Path, model: _Table, binary_start: int) -> BmodelFile:
    tally = _Tally()
    cores: dict[str, int] = {}
    nets: dict[str, NetInfo] = {}
    for net in model.tables(_MODEL_NETS):
        stages, name = list(net.tables(_NET_STAGES)), net.text(_NET_NAME)
        if not stages:
            raise ModelFileError(f'{path}: net {name} has no stage')
        cores[name] = max(s.u32(_STAGE_CORES) or 1 for s in stages)
        nets[name] = _read_net(path, net, name, stages)
        tally.add(stages)
    binary_end = binary_start + tally.end
    available = path.stat().st_size
    if binary_end > available:
        raise ModelFileError(
            f'{path}: truncated: its nets refer to {binary_end} bytes, the file has {available}'
        )
    return BmodelFile(
        path=path,
        chip=model.text(_MODEL_CHIP).lower(),
        compiler=model.text(_MODEL_VERSION).strip(),
        compiled=model.text(_MODEL_TIME).strip(),
        nets=nets,
        cores=cores,
        weight_bytes=sum(tally.weights.values()),
        command_bytes=sum(tally.commands.values()),
        scratch_sizes=tuple(sorted(tally.scratch, reverse=True)),
        own_io_bytes=tally.own_io,
    )


def _read_net(path: Path, net: _Table, name: str, stages: list[_Table]) -> NetInfo:
    def tensors(field: int) -> tuple[TensorInfo, ...]:
        by_stage = [list(stage.tables(field)) for stage in stages]
        return tuple(_read_tensor(path, name, found) for found in zip(*by_stage, strict=True))

    return NetInfo(
        name=name,
        is_dynamic=bool(stages[0].u32(_STAGE_IS_DYNAMIC)),
        address_mode=AddressMode(net.u32(_NET_ADDRESS_MODE)),
        inputs=tensors(_STAGE_INPUTS),
        outputs=tensors(_STAGE_OUTPUTS),
    )


def _read_tensor(path: Path, net: str, by_stage: tuple[_Table, ...]) -> TensorInfo:
    name, number = by_stage[0].text(_TENSOR_NAME), by_stage[0].u32(_TENSOR_TYPE)
    if number >= len(_DTYPES):
        raise ModelFileError(f'{path}: net {net}: {name}: a tensor of unknown type {number}')
    return TensorInfo(
        name, _DTYPES[number], tuple(_shape(path, net, name, tensor) for tensor in by_stage)
    )


def _shape(path: Path, net: str, name: str, tensor: _Table) -> tuple[int, ...]:
    shape = next(tensor.tables(_TENSOR_SHAPES), None)
    if shape is None:
        raise ModelFileError(f'{path}: net {net}: {name}: a tensor without a shape')
    return tuple(shape.u64s(_SHAPE_SIZES))


class _Tally:
    """Adds up what the nets need; binaries that several nets share count once."""

    def __init__(self) -> None:
        self.weights: dict[int, int] = {}
        self.commands: dict[int, int] = {}
        self.scratch: set[int] = set()
        self.own_io = 0
        self.end = 0

    def add(self, stages: Sequence[_Table]) -> None:
        """Count a net: the binaries of each stage, its own memory once."""
        for stage in stages:
            self._add_stage(stage)
        self.own_io += max(stage.u64(_STAGE_IO_SIZE) for stage in stages)

    def _add_stage(self, stage: _Table) -> None:
        coeff = stage.table(_STAGE_COEFF)
        if coeff is not None:
            self._binary(self.weights, coeff.binary(_COEFF_BINARY))
        self._binary(self.commands, stage.binary(_STAGE_IR))
        for group in self._groups(stage):
            self._binary(self.commands, group.binary(_GROUP_BDC))
            self._binary(self.commands, group.binary(_GROUP_GDMA))
        sizes = stage.u64s(_STAGE_CTX_SIZES)
        self.scratch.add(sum(sizes) or stage.u64(_STAGE_CTX_SIZE))

    @staticmethod
    def _groups(stage: _Table) -> Iterator[_Table]:
        yield from stage.tables(_STAGE_CMD_GROUPS)
        for subnet in stage.tables(_STAGE_SUBNETS):
            yield from subnet.tables(_SUBNET_CMD_GROUPS)
            for core in subnet.tables(_SUBNET_CORE_COMMANDS):
                yield from core.tables(_CORE_GROUPS)

    def _binary(self, into: dict[int, int], found: tuple[int, int] | None) -> None:
        if found is None:
            return
        start, size = found
        into[start] = max(into.get(start, 0), size)
        self.end = max(self.end, start + size)


class _Description:
    """The bytes of a flatbuffer, of which no more are read than an honest one has.

    Every place is checked to lie inside; struct alone would count a negative one from the end.

    Args:
        flat: The flatbuffer.
    """

    def __init__(self, flat: bytes) -> None:
        self._flat = flat
        self._left = _READS_A_BYTE * len(flat)

    def __len__(self) -> int:
        return len(self._flat)

    def number(self, form: str, at: int) -> int:
        """Return one number.

        Raises:
            IndexError: It lies outside.
            ValueError: More was read than an honest description has.
        """
        return self.numbers(form, at)[0]

    def numbers(self, form: str, at: int) -> tuple[int, ...]:
        """Return numbers that follow each other; errors as for `number`."""
        size = struct.calcsize(form)
        return struct.unpack(form, self.part(at, size))

    def part(self, at: int, size: int) -> bytes:
        """Return bytes; errors as for `number`."""
        if at < 0 or at + size > len(self._flat):
            raise IndexError(at)
        self._left -= size
        if self._left < 0:
            raise ValueError('tables refer to each other over and over')
        return self._flat[at : at + size]


class _Table:
    """One table of a flatbuffer.

    Source: the FlatBuffers internals page (vtables, offsets relative to where they stand).
    """

    def __init__(self, flat: _Description, position: int) -> None:
        self._flat = flat
        self._position = position
        self._vtable = position - flat.number('<i', position)
        self._vtable_bytes = flat.number('<H', self._vtable)

    @staticmethod
    def root(flat: _Description) -> _Table:
        return _Table(flat, flat.number('<I', 0))

    def u32(self, field: int) -> int:
        return self._scalar(field, '<I')

    def u64(self, field: int) -> int:
        return self._scalar(field, '<Q')

    def u64s(self, field: int) -> list[int]:
        at = self._at(field)
        if not at:
            return []
        start, count = self._vector(at)
        return list(self._flat.numbers(f'<{count}Q', start))

    def text(self, field: int) -> str:
        at = self._at(field)
        if not at:
            return ''
        start, count = self._vector(at)
        return self._flat.part(start, count).decode()

    def binary(self, field: int) -> tuple[int, int] | None:
        """Return start and size of binary data, the start counted from the description's end."""
        at = self._at(field)
        if not at:
            return None
        start, size = self._flat.numbers('<2Q', at)
        return start, size

    def table(self, field: int) -> _Table | None:
        at = self._at(field)
        return _Table(self._flat, self._target(at)) if at else None

    def tables(self, field: int) -> Iterator[_Table]:
        at = self._at(field)
        if not at:
            return
        start, count = self._vector(at)
        for i in range(count):
            yield _Table(self._flat, self._target(start + 4 * i))

    def _scalar(self, field: int, form: str) -> int:
        at = self._at(field)
        return self._flat.number(form, at) if at else 0

    def _at(self, field: int) -> int:
        """Return where a field stands; 0 = it is absent."""
        slot = 4 + 2 * field
        if slot >= self._vtable_bytes:
            return 0
        offset = self._flat.number('<H', self._vtable + slot)
        return self._position + offset if offset else 0

    def _target(self, at: int) -> int:
        return at + self._flat.number('<I', at)

    def _vector(self, at: int) -> tuple[int, int]:
        """Return start and length of a vector."""
        start = self._target(at)
        count = self._flat.number('<I', start)
        if count > len(self._flat):
            raise IndexError(count)
        return start + 4, count
