"""A stand-in for the axmodel format: shape groups in plain text, weights as an npz after them.

    AXSTUB 1
    kind layer                    layer, post or vit
    chip ax650                    ax650, ax630c or any
    group 7483                    one for each shape group: microseconds that a run takes
    in K_cache bf16 1 1 64        the group's tensors, in file order
    out output bf16 1 16 64
    end
    <npz>                         weights; may be absent: a run then leaves its outputs alone

The vendor's own format is a protobuf container that only the vendor's compiler writes; this one
holds what its C library says of a model (`AX_ENGINE_GetGroupIOInfo`), and what to compute.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

MAGIC: Final = b'AXSTUB 1\n'
_END: Final = b'\nend\n'

DTYPES: Final[dict[str, np.dtype[Any]]] = {
    'bf16': np.dtype(ml_dtypes.bfloat16),
    'f32': np.dtype(np.float32),
    's16': np.dtype(np.int16),
    's32': np.dtype(np.int32),
    's8': np.dtype(np.int8),
    'u16': np.dtype(np.uint16),
    'u32': np.dtype(np.uint32),
    'u8': np.dtype(np.uint8),
}
"""numpy's types by the names of the file; the types that pyaxengine maps."""

Kind: TypeAlias = Literal['layer', 'post', 'vit']
_KINDS: Final = ('layer', 'post', 'vit')
CHIPS: Final = ('ax650', 'ax630c', 'any')


class AxmodelError(ValueError):
    """The bytes are no model of this format; the message names the line."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a shape group.

    Attributes:
        name: As `get_inputs` gives it.
        dtype: A key of `DTYPES`.
        shape: All sizes fixed.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The element type; bf16 is ml_dtypes' own, as in pyaxengine."""
        return DTYPES[self.dtype]

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.shape) * self.numpy_dtype.itemsize


@dataclass(frozen=True, slots=True)
class Group:
    """One shape group.

    Attributes:
        inputs: In file order, which the buffers' order is.
        outputs: Likewise.
        delay_us: How long the chip takes for a run.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    delay_us: int = 0


@dataclass(frozen=True, slots=True)
class Axmodel:
    """One model.

    Attributes:
        kind: Which formula `layers` computes.
        chip: The chip it was compiled for.
        groups: All with as many inputs and outputs as the first.
        arrays: Weights and sizes by name; empty = nothing is computed.
    """

    kind: Kind
    chip: str
    groups: tuple[Group, ...]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)


def write_axmodel(path: Path, model: Axmodel) -> Path:
    """Write a model, its folder too; return the path."""
    lines = [f'kind {model.kind}', f'chip {model.chip}']
    for group in model.groups:
        lines.append(f'group {group.delay_us}')
        lines += [_tensor_line('in', tensor) for tensor in group.inputs]
        lines += [_tensor_line('out', tensor) for tensor in group.outputs]
    content = MAGIC + '\n'.join([*lines, 'end', '']).encode()
    if model.arrays:
        packed = io.BytesIO()
        np.savez(packed, **cast('dict[str, Any]', dict(model.arrays)))
        content += packed.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def read_axmodel(source: Path | bytes) -> Axmodel:
    """Read a model from a file, or from its bytes.

    Raises:
        AxmodelError: The bytes are no such model; says what was met.
        OSError: The file cannot be read.
    """
    content = source if isinstance(source, bytes) else source.read_bytes()
    if not content.startswith(MAGIC):
        raise AxmodelError(f'starts with {content[: len(MAGIC)]!r}, not with {MAGIC!r}')
    end = content.find(_END)
    if end < 0:
        raise AxmodelError('no line "end"')
    return _parse(content[len(MAGIC) : end].decode(), content[end + len(_END) :])


def _parse(header: str, packed: bytes) -> Axmodel:
    lines = [line.split() for line in header.splitlines()]
    if len(lines) < 3 or lines[0][:1] != ['kind'] or lines[1][:1] != ['chip']:
        raise AxmodelError('the first lines are not kind, chip and group')
    kind, chip = lines[0][1:], lines[1][1:]
    if len(kind) != 1 or kind[0] not in _KINDS:
        raise AxmodelError(f'kind {kind}: one of {", ".join(_KINDS)}')
    if len(chip) != 1 or chip[0] not in CHIPS:
        raise AxmodelError(f'chip {chip}: one of {", ".join(CHIPS)}')
    groups = _groups(lines[2:])
    sizes = {(len(group.inputs), len(group.outputs)) for group in groups}
    if len(sizes) != 1:
        raise AxmodelError(f'groups differ in the number of tensors: {sorted(sizes)}')
    return Axmodel(cast('Kind', kind[0]), chip[0], groups, _arrays(packed))


def _groups(lines: list[list[str]]) -> tuple[Group, ...]:
    found: list[tuple[int, list[Tensor], list[Tensor]]] = []
    for words in lines:
        if words[:1] == ['group']:
            found.append((_number(words[1:]), [], []))
        elif words[:1] in (['in'], ['out']) and found:
            _, ins, outs = found[-1]
            (ins if words[0] == 'in' else outs).append(_tensor(words))
        else:
            raise AxmodelError(f'line {" ".join(words)!r}: expected group, in or out')
    return tuple(Group(tuple(ins), tuple(outs), delay) for delay, ins, outs in found)


def _number(words: list[str]) -> int:
    if len(words) != 1 or not words[0].isdigit():
        raise AxmodelError(f'group {" ".join(words)!r}: expected microseconds')
    return int(words[0])


def _tensor(words: list[str]) -> Tensor:
    if len(words) < 4 or words[2] not in DTYPES or not all(w.isdigit() for w in words[3:]):
        raise AxmodelError(f'line {" ".join(words)!r}: expected name, dtype and sizes')
    return Tensor(words[1], words[2], tuple(map(int, words[3:])))


def _tensor_line(direction: str, tensor: Tensor) -> str:
    return ' '.join([direction, tensor.name, tensor.dtype, *map(str, tensor.shape)])


def _arrays(packed: bytes) -> dict[str, NDArray[Any]]:
    if not packed:
        return {}
    try:
        with np.load(io.BytesIO(packed)) as found:
            return {name: found[name] for name in found.files}
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise AxmodelError(f'the npz after the header: {error}') from error
    except Exception as error:  # zipfile.BadZipFile among others
        raise AxmodelError(f'the npz after the header: {error}') from error
