"""The decoder's layers: what all of them have in common, read from their nets and checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import prod

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.engines.sophgo.expect import (
    Wanted,
    expect,
    expect_rank,
    half_of,
    input_of,
    misfit,
)
from edge_vlm_ros.engines.sophgo.nets import (
    AddressMode,
    DType,
    NetInfo,
    Nets,
    Shape,
    TensorInfo,
)

_BLOCK = re.compile(r'block_(\d+)')
_CACHE = re.compile(r'block_cache_(\d+)')


class LayerKind(Enum):
    """What a decoder layer attends to."""

    SELF = 'self'
    CROSS = 'cross'


@dataclass(frozen=True, slots=True)
class CrossShapes:
    """The cache of a cross-attention layer: (1, heads, rows, head_dim).

    Attributes:
        heads: The query's: keys and values were repeated before they were cached.
        rows: Of all tiles.
        head_dim: Of one head.
    """

    heads: int
    rows: int
    head_dim: int


@dataclass(frozen=True, slots=True)
class DecoderShapes:
    """What all decoder layers have in common.

    Attributes:
        kinds: By layer.
        half: Type of hidden states, caches and masks.
        hidden: Width of the hidden state.
        kv_heads: Of a self-attention layer's cache, (1, context, kv_heads, head_dim).
        head_dim: Of one head.
        context: Rows of the cache.
        position_shape: Of the prefill positions: (1, rows), (3, rows) or (3, 1, rows).
        capacities: Cache rows that each decode stage sees, by stage, largest first.
        cache_in_net: Whether the cache is the decode nets' own input memory; otherwise it is ours
            and the runtime copies it for every token.
        blocks_alias: Whether a prefill block may write into a history that it reads: the runtime
            copies what it reads before the run.
        cross: Of the cross-attention layers; None = there are none.
        deepstack: Layers, from the first on, after which the net `add` adds features of an image.
    """

    kinds: tuple[LayerKind, ...]
    half: DType
    hidden: int
    kv_heads: int
    head_dim: int
    context: int
    position_shape: Shape
    capacities: tuple[int, ...]
    cache_in_net: bool
    blocks_alias: bool
    cross: CrossShapes | None
    deepstack: int

    @property
    def first(self) -> int:
        """The first self-attention layer, which stands for the others."""
        return self.kinds.index(LayerKind.SELF)

    @property
    def position_rows(self) -> int:
        """1, or 3 for M-RoPE."""
        return self.position_shape[0]

    @property
    def row_size(self) -> int:
        """Elements of one cached token, in K as in V."""
        return self.kv_heads * self.head_dim

    @property
    def cache_bytes(self) -> int:
        """Of all layers."""
        own = self.context * self.row_size
        cross = prod((self.cross.heads, self.cross.rows, self.cross.head_dim)) if self.cross else 0
        sizes = (own if kind is LayerKind.SELF else cross for kind in self.kinds)
        return 2 * self.half.nbytes * sum(sizes)

    def kv(self, rows: int) -> Shape:
        """Return the shape of K or V of so many tokens."""
        return (1, rows, self.kv_heads, self.head_dim)


def read_layers(nets: Nets) -> DecoderShapes:
    """Read what the layers have in common off the first self-attention layer.

    Raises:
        ModelFileError: Layers are missing, or of no kind that is known.
    """
    layers = _count_layers(nets)
    kinds = tuple(_layer_kind(nets[f'block_cache_{i}']) for i in range(layers))
    if LayerKind.SELF not in kinds:
        raise ModelFileError('no self-attention layer among the nets block_cache_<i>')
    first = kinds.index(LayerKind.SELF)
    cache, block = nets[f'block_cache_{first}'], nets[f'block_{first}']
    past = input_of(cache, 3)
    expect_rank(cache, past, 4)
    return DecoderShapes(
        kinds=kinds,
        half=half_of(cache, past),
        hidden=input_of(block, 0).shape[-1],
        kv_heads=past.shape[2],
        head_dim=past.shape[3],
        context=past.shape[1],
        position_shape=_position_shape(block, input_of(block, 1)),
        capacities=tuple(shape[1] for shape in past.shapes),
        cache_in_net=_cache_in_net(nets, layers),
        blocks_alias=block.address_mode is AddressMode.BASIC and not block.is_dynamic,
        cross=_cross_shapes(nets, kinds),
        deepstack=_deepstack(nets),
    )


def expect_block(net: NetInfo, shapes: DecoderShapes, rows: int, more: Sequence[Wanted]) -> None:
    """Check a prefill net of a self-attention layer.

    Args:
        net: Which.
        shapes: What all layers have in common.
        rows: Tokens of one run.
        more: What it takes after hidden state and positions.

    Raises:
        ModelFileError: A tensor is not what the first layer's is.
    """
    half = shapes.half
    hidden: Wanted = ((1, rows, shapes.hidden), half)
    kv: Wanted = (shapes.kv(rows), half)
    expect(net, [hidden, (shapes.position_shape, DType.INT32), *more], [hidden, kv, kv])


def expect_step(net: NetInfo, shapes: DecoderShapes) -> None:
    """Check a decode net of a self-attention layer, in all its stages.

    Raises:
        ModelFileError: A tensor is not what the first layer's is.
    """
    half = shapes.half
    hidden: Wanted = ((1, 1, shapes.hidden), half)
    position: Wanted = ((*shapes.position_shape[:-1], 1), DType.INT32)
    row: Wanted = (shapes.kv(1), half)
    for stage, capacity in enumerate(shapes.capacities):
        mask: Wanted = ((1, 1, 1, capacity + 1), half)
        past: Wanted = (shapes.kv(capacity), half)
        expect(net, [hidden, position, mask, past, past], [hidden, row, row], stage)


def _count_layers(nets: Nets) -> int:
    blocks = {int(match[1]) for match in map(_BLOCK.fullmatch, nets) if match}
    caches = {int(match[1]) for match in map(_CACHE.fullmatch, nets) if match}
    layers = len(blocks)
    wanted = set(range(layers))
    if not layers or blocks != wanted or caches != wanted:
        listed = ', '.join(sorted(nets)[:12])
        raise ModelFileError(
            f'expected nets block_0 ... block_<n> and block_cache_0 ... block_cache_<n>, '
            f'found {len(blocks)} and {len(caches)} of them among: {listed}'
        )
    return layers


def _layer_kind(cache: NetInfo) -> LayerKind:
    counts = (len(cache.inputs), len(cache.outputs))
    if counts == (5, 3):
        return LayerKind.SELF
    if counts == (4, 1):
        return LayerKind.CROSS
    raise ModelFileError(
        f'net {cache.name}: expected 5 inputs and 3 outputs (self-attention) or 4 and 1 '
        f'(cross-attention), found {counts[0]} and {counts[1]}'
    )


def _position_shape(block: NetInfo, positions: TensorInfo) -> Shape:
    shape = positions.shape
    if (len(shape), shape[0]) in {(2, 1), (2, 3), (3, 3)}:
        return shape
    raise misfit(block, positions, '(1, rows), (3, rows) or (3, 1, rows)', f'{shape}')


def _cache_in_net(nets: Nets, layers: int) -> bool:
    modes = {nets[f'block_cache_{i}'].address_mode for i in range(layers)}
    if modes == {AddressMode.IO_ALONE}:
        return True
    if modes == {AddressMode.BASIC}:
        return False
    found = ', '.join(sorted(mode.name for mode in modes))
    raise ModelFileError(
        f'nets block_cache_<i>: expected address mode 1 (io_alone) or 0 (basic) in all layers, '
        f'found {found}'
    )


def _deepstack(nets: Nets) -> int:
    """Count what the vision tower gives beside the features that stand in the prompt."""
    tower = nets.get('vit')
    return len(tower.outputs) - 1 if tower is not None and tower.outputs else 0


def _cross_shapes(nets: Nets, kinds: Sequence[LayerKind]) -> CrossShapes | None:
    if LayerKind.CROSS not in kinds:
        return None
    cache = nets[f'block_cache_{kinds.index(LayerKind.CROSS)}']
    keys = input_of(cache, 2)
    expect_rank(cache, keys, 4)
    return CrossShapes(*keys.shape[1:])
