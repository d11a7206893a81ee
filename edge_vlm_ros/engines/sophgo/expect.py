"""What a net should be, compared with what it is; a misfit is said with both.

Nets are wired by index: the names of outputs carry compiler suffixes. What does not fit is refused
with the net, the tensor, what was expected and what was found.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.engines.sophgo.nets import DType, NetInfo, Nets, Shape, TensorInfo

Wanted = tuple[Shape, DType]
"""Shape and type of one tensor."""


def expect(
    net: NetInfo, inputs: Sequence[Wanted], outputs: Sequence[Wanted], stage: int = 0
) -> None:
    """Compare shapes and types of all tensors of a net's stage with those wanted.

    Raises:
        ModelFileError: One differs; ones among the sizes mean nothing.
    """
    for kind, found, wanted in (('input', net.inputs, inputs), ('output', net.outputs, outputs)):
        if len(found) != len(wanted):
            raise ModelFileError(
                f'net {net.name}: expected {len(wanted)} {kind}s, found {len(found)}'
            )
        for tensor, (shape, dtype) in zip(found, wanted, strict=True):
            expect_dtype(net, tensor, dtype)
            if stage >= len(tensor.shapes):
                raise misfit(net, tensor, f'{stage + 1} stages', f'{len(tensor.shapes)}')
            # Ones in front and between differ between exporters and mean nothing.
            if _without_ones(tensor.shapes[stage]) != _without_ones(shape):
                raise misfit(net, tensor, f'{shape}', f'{tensor.shapes[stage]}')


def expect_dtype(net: NetInfo, tensor: TensorInfo, dtype: DType) -> None:
    """Compare one tensor's type.

    Raises:
        ModelFileError: It is of another type.
    """
    if tensor.dtype is not dtype:
        raise misfit(net, tensor, dtype.value, tensor.dtype.value)


def expect_rank(net: NetInfo, tensor: TensorInfo, rank: int) -> None:
    """Compare how many sizes a tensor has.

    Raises:
        ModelFileError: It has more or fewer.
    """
    if len(tensor.shape) != rank:
        raise misfit(net, tensor, f'{rank} dimensions', f'{tensor.shape}')


def expect_dynamic(net: NetInfo) -> None:
    """Want a net that runs real sizes.

    Raises:
        ModelFileError: It was compiled for one size.
    """
    if not net.is_dynamic:
        raise ModelFileError(f'net {net.name}: expected a dynamic net, found a static one')


def half_of(net: NetInfo, tensor: TensorInfo) -> DType:
    """Return which 16 bit float a tensor is of.

    Raises:
        ModelFileError: It is of another type.
    """
    if not tensor.dtype.is_half:
        raise misfit(net, tensor, 'bfloat16 or float16', tensor.dtype.value)
    return tensor.dtype


def net_of(nets: Nets, name: str) -> NetInfo:
    """Return a net by its name.

    Raises:
        ModelFileError: There is none of that name.
    """
    if name not in nets:
        raise ModelFileError(f'expected a net {name}, found none')
    return nets[name]


def input_of(net: NetInfo, index: int) -> TensorInfo:
    """Return an input by its number.

    Raises:
        ModelFileError: The net has fewer.
    """
    if index >= len(net.inputs):
        raise ModelFileError(
            f'net {net.name}: expected more than {index} inputs, found {len(net.inputs)}'
        )
    return net.inputs[index]


def output_of(net: NetInfo, index: int) -> TensorInfo:
    """Return an output by its number.

    Raises:
        ModelFileError: The net has fewer.
    """
    if index >= len(net.outputs):
        raise ModelFileError(
            f'net {net.name}: expected more than {index} outputs, found {len(net.outputs)}'
        )
    return net.outputs[index]


def misfit(net: NetInfo, tensor: TensorInfo, expected: str, found: str) -> ModelFileError:
    """Say which tensor of which net does not fit."""
    return ModelFileError(f'net {net.name}: {tensor.name}: expected {expected}, found {found}')


def _without_ones(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)
