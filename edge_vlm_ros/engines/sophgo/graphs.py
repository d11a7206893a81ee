"""Which contract a bmodel keeps: nets, lengths, heads, read from its nets and checked.

Families and years differ in what the nets take (the tables of `doc/models.md`); all that tells
them apart is in the nets themselves, so nothing is known by a file's name. Nets are found by name
and wired by index: the names of outputs carry compiler suffixes. What does not fit is refused here
with the net, the tensor, what was expected and what was found.

Source: the vendor's drivers and exporters (sophon-demo, LLM-TPU) of 2024 to 2026.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import TypeAlias

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.engines.sophgo.nets import (
    AddressMode,
    DType,
    NetInfo,
    Nets,
    Shape,
    TensorInfo,
)

PATCH_COLUMNS = 3 * 2 * 14 * 14
"""Values of one Qwen2-VL patch: colours, frames, rows, columns."""

_OLD_ROTARY_ROWS = 100
"""Rows of the rotary table in Qwen2-VL vision towers that were exported for video."""

_FIXED_GRIDS = {600: (20, 30)}
"""Rows and columns by patches, of towers with one grid inside: the net tells only how many."""

_BLOCK = re.compile(r'block_(\d+)')
_CACHE = re.compile(r'block_cache_(\d+)')


# --- prefill forms -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StaticPrefill:
    """Blocks of one size: a prompt costs what the longest one costs, and begins an empty cache.

    Attributes:
        rows: Tokens of one run.
    """

    rows: int


@dataclass(frozen=True, slots=True)
class HistoryPrefill:
    """Blocks of one size with a history: a chunk costs the same wherever it stands.

    Attributes:
        rows: Tokens of one chunk.
        history: Cache rows that a chunk may stand behind.
    """

    rows: int
    history: int


@dataclass(frozen=True, slots=True)
class DynamicPrefill:
    """Blocks that run the prompt's real length; it begins an empty cache.

    Attributes:
        rows: Tokens of the longest run.
        takes_mask: Files before May 2026; later ones have the causal mask inside.
    """

    rows: int
    takes_mask: bool


@dataclass(frozen=True, slots=True)
class ChunkPrefill:
    """Blocks that run the real length, and others (`block_kv`) that do so behind a history.

    Attributes:
        rows: Tokens of the longest chunk.
        history: Cache rows that a chunk may stand behind.
    """

    rows: int
    history: int


PrefillForm: TypeAlias = 'StaticPrefill | HistoryPrefill | DynamicPrefill | ChunkPrefill'


# --- vision towers -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TileTower:
    """InternVL: one square tile, some rows.

    Attributes:
        net: 'vit' or, in InternVL2, 'intern_vit'.
        tile_px: Side of the tile.
        rows: Feature rows of a tile.
    """

    net: str
    tile_px: int
    rows: int


@dataclass(frozen=True, slots=True)
class PatchTower:
    """Qwen2-VL: any grid of patches up to a number, four patches to a row.

    Attributes:
        net: 'vit'.
        patches: Most patches of one launch.
        mask: Type of the attention mask.
        is_dynamic: Whether it runs the real number of patches.
        most_side: Most patches along one side; 0 = any.
    """

    net: str
    patches: int
    mask: DType
    is_dynamic: bool
    most_side: int


@dataclass(frozen=True, slots=True)
class FixedGridTower:
    """Qwen2-VL of November 2024: one grid, four patches to a row.

    Attributes:
        net: 'vit'.
        rows: Patches from top to bottom.
        columns: Patches from left to right.
    """

    net: str
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class AspectTower:
    """Llama 3.2 Vision: a canvas of tiles, projected for the cross-attention layers.

    Attributes:
        net: 'vit'.
        tiles: Tiles of one launch, padding among them.
        tile_px: Side of a tile.
        rows: Feature rows of a tile.
    """

    net: str
    tiles: int
    tile_px: int
    rows: int


VisionTower: TypeAlias = 'TileTower | PatchTower | FixedGridTower | AspectTower'


# --- heads ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TokenHead:
    """`lm_head` gives the best token itself."""


class SamplerKind(Enum):
    """Which net samples; they differ in the order of their inputs."""

    SAMPLE = 'sample_head'
    PENALTY = 'penalty_sample_head'


@dataclass(frozen=True, slots=True)
class Sampler:
    """A net that turns logits into candidates with probabilities.

    Attributes:
        kind: Which.
        seen_tokens: Ids it takes for the repetition penalty.
        candidates: It gives at most.
    """

    kind: SamplerKind
    seen_tokens: int
    candidates: int


@dataclass(frozen=True, slots=True)
class LogitsHead:
    """`lm_head` gives logits.

    Attributes:
        vocab: How many.
        has_greedy: Whether `greedy_head` chooses the best on the chip.
        sampler: The net that samples; None = none.
    """

    vocab: int
    has_greedy: bool
    sampler: Sampler | None


Head: TypeAlias = 'TokenHead | LogitsHead'


# --- the whole -----------------------------------------------------------------------------------


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


@dataclass(frozen=True, slots=True)
class Contract:
    """What a bmodel holds.

    Attributes:
        decoder: The layers.
        prefill: How prompts get in.
        head: How tokens come out.
        tower: The vision tower; None = a text model.
        embeds_on_chip: Whether ids become embeddings on the chip; otherwise in a table on disk.
        unknown: Nets that nothing here uses.
    """

    decoder: DecoderShapes
    prefill: PrefillForm
    head: Head
    tower: VisionTower | None
    embeds_on_chip: bool
    unknown: tuple[str, ...]

    @property
    def family(self) -> str:
        """The family whose prompts it takes, as far as the nets tell."""
        if isinstance(self.tower, TileTower):
            return 'internvl'
        if isinstance(self.tower, (PatchTower, FixedGridTower)):
            return 'qwen2_vl'
        return 'mllama' if isinstance(self.tower, AspectTower) else ''


def read_contract(nets: Nets) -> Contract:
    """Tell which contract the nets keep.

    Raises:
        ModelFileError: None that this engine knows; says which tensor does not fit.
    """
    decoder, prefill = _read_decoder(nets)
    head = _read_head(nets, decoder)
    tower = _read_tower(nets, decoder)
    if (decoder.cross is None) == isinstance(tower, AspectTower):
        raise ModelFileError(
            f'cross-attention layers: {"none" if decoder.cross is None else "some"}, which does '
            f'not go with a vision tower of {type(tower).__name__}'
        )
    embeds_on_chip = 'embedding' in nets or 'embedding_cache' in nets
    if embeds_on_chip:
        _check_embedding(nets, 'embedding', prefill.rows, decoder)
        _check_embedding(nets, 'embedding_cache', 1, decoder)
    return Contract(decoder, prefill, head, tower, embeds_on_chip, _unknown(nets))


# --- decoder -------------------------------------------------------------------------------------


def _read_decoder(nets: Nets) -> tuple[DecoderShapes, PrefillForm]:
    layers = _count_layers(nets)
    kinds = tuple(_layer_kind(nets[f'block_cache_{i}']) for i in range(layers))
    if LayerKind.SELF not in kinds:
        raise ModelFileError('no self-attention layer among the nets block_cache_<i>')
    first = kinds.index(LayerKind.SELF)
    cache, block = nets[f'block_cache_{first}'], nets[f'block_{first}']
    past = _input(cache, 3)
    _expect_rank(cache, past, 4)
    positions = _input(block, 1)
    decoder = DecoderShapes(
        kinds=kinds,
        half=_half(cache, past),
        hidden=_input(block, 0).shape[-1],
        kv_heads=past.shape[2],
        head_dim=past.shape[3],
        context=past.shape[1],
        position_shape=_position_shape(block, positions),
        capacities=tuple(shape[1] for shape in past.shapes),
        cache_in_net=_cache_in_net(nets, layers),
        blocks_alias=block.address_mode is AddressMode.BASIC and not block.is_dynamic,
        cross=_cross_shapes(nets, kinds),
    )
    prefill = _prefill_form(nets, first, decoder)
    for i, kind in enumerate(kinds):
        if kind is LayerKind.SELF:
            _check_self_layer(nets, i, decoder, prefill)
        else:
            _check_cross_layer(nets, i, decoder, prefill)
    return decoder, prefill


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
    raise _misfit(block, positions, '(1, rows), (3, rows) or (3, 1, rows)', f'{shape}')


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


def _prefill_form(nets: Nets, first: int, decoder: DecoderShapes) -> PrefillForm:
    block = nets[f'block_{first}']
    rows = _input(block, 0).shape[1]
    inputs = len(block.inputs)
    with_history = nets.get(f'block_kv_{first}')
    if with_history is not None:
        _expect_dynamic(block)
        _expect_dynamic(with_history)
        if with_history.address_mode not in {AddressMode.BASIC, AddressMode.IO_ALONE}:
            raise ModelFileError(
                f'net {with_history.name}: address mode {with_history.address_mode.value}: the '
                'history has no place to be copied to; compile with --addr_mode basic'
            )
        return ChunkPrefill(rows, _input(with_history, 2).shape[1])
    if inputs == 5:
        if not decoder.blocks_alias:
            raise ModelFileError(
                f'net {block.name}: address mode {block.address_mode.value}: keys may be written '
                "over the history behind the runtime's back; compile the block nets with "
                '--addr_mode basic'
            )
        return HistoryPrefill(rows, _input(block, 3).shape[1])
    if block.is_dynamic and inputs in {2, 3}:
        return DynamicPrefill(rows, takes_mask=inputs == 3)
    if inputs == 3:
        return StaticPrefill(rows)
    raise ModelFileError(
        f'net {block.name}: expected 2 (dynamic), 3 or 5 (with history) inputs, found {inputs}'
    )


def _check_self_layer(nets: Nets, index: int, decoder: DecoderShapes, form: PrefillForm) -> None:
    half, rows, row = decoder.half, form.rows, (decoder.kv_heads, decoder.head_dim)
    hidden, kv = (1, rows, decoder.hidden), (1, rows, *row)
    masked: list[tuple[Shape, DType]] = []
    if isinstance(form, HistoryPrefill):
        past = ((1, form.history, *row), half)
        masked = [((1, 1, rows, form.history + rows), half), past, past]
    elif isinstance(form, StaticPrefill) or (isinstance(form, DynamicPrefill) and form.takes_mask):
        masked = [((1, 1, rows, rows), half)]
    positions = (decoder.position_shape, DType.INT32)
    _expect(
        nets[f'block_{index}'],
        [(hidden, half), positions, *masked],
        [(hidden, half), (kv, half), (kv, half)],
    )
    if isinstance(form, ChunkPrefill):
        if f'block_kv_{index}' not in nets:
            raise ModelFileError(f'expected a net block_kv_{index}, found none')
        past = ((1, form.history, *row), half)
        _expect(
            nets[f'block_kv_{index}'],
            [(hidden, half), positions, past, past],
            [(hidden, half), (kv, half), (kv, half)],
        )
    cache = nets[f'block_cache_{index}']
    one_position = (*decoder.position_shape[:-1], 1)
    for stage, capacity in enumerate(decoder.capacities):
        past = ((1, capacity, *row), half)
        one_row: tuple[Shape, DType] = ((1, 1, *row), half)
        one_hidden: tuple[Shape, DType] = ((1, 1, decoder.hidden), half)
        _expect(
            cache,
            [one_hidden, (one_position, DType.INT32), ((1, 1, 1, capacity + 1), half), past, past],
            [one_hidden, one_row, one_row],
            stage,
        )


def _check_cross_layer(nets: Nets, index: int, decoder: DecoderShapes, form: PrefillForm) -> None:
    cross = decoder.cross
    assert cross is not None
    if not isinstance(form, StaticPrefill):
        raise ModelFileError(f'net block_{index}: cross-attention in a build that is not static')
    half, rows = decoder.half, form.rows
    hidden: tuple[Shape, DType] = ((1, rows, decoder.hidden), half)
    cache: tuple[Shape, DType] = ((1, cross.heads, cross.rows, cross.head_dim), half)
    block = nets[f'block_{index}']
    states = (_input(block, 1).shape, half)
    if prod(states[0]) != cross.rows * decoder.hidden:
        raise _misfit(block, _input(block, 1), f'{cross.rows} rows', f'{states[0]}')
    _expect(
        block,
        [hidden, states, ((1, rows, 1), half), ((1, 1, rows, cross.rows), half)],
        [hidden, cache, cache],
    )
    one: tuple[Shape, DType] = ((1, 1, decoder.hidden), half)
    mask: tuple[Shape, DType] = ((1, 1, 1, cross.rows), half)
    _expect(nets[f'block_cache_{index}'], [one, mask, cache, cache], [one])


def _cross_shapes(nets: Nets, kinds: Sequence[LayerKind]) -> CrossShapes | None:
    if LayerKind.CROSS not in kinds:
        return None
    cache = nets[f'block_cache_{kinds.index(LayerKind.CROSS)}']
    keys = _input(cache, 2)
    _expect_rank(cache, keys, 4)
    return CrossShapes(*keys.shape[1:])


# --- head and embedding --------------------------------------------------------------------------


def _read_head(nets: Nets, decoder: DecoderShapes) -> Head:
    head = _net(nets, 'lm_head')
    hidden = _input(head, 0)
    if prod(hidden.shape) != decoder.hidden or hidden.dtype is not decoder.half:
        expected = f'{decoder.hidden} {decoder.half.value}'
        raise _misfit(head, hidden, expected, f'{hidden.shape} {hidden.dtype.value}')
    scores = _output(head, 0)
    if prod(scores.shape) == 1:
        _expect_dtype(head, scores, DType.INT32)
        return TokenHead()
    _expect_dtype(head, scores, DType.FLOAT32)
    vocab = prod(scores.shape)
    has_greedy = 'greedy_head' in nets
    if has_greedy:
        _expect(nets['greedy_head'], [((1, vocab), DType.FLOAT32)], [((1, 1), DType.INT32)])
    return LogitsHead(vocab, has_greedy, _read_sampler(nets, vocab))


def _read_sampler(nets: Nets, vocab: int) -> Sampler | None:
    kind = next((kind for kind in SamplerKind if kind.value in nets), None)
    if kind is None:
        return None
    net = nets[kind.value]
    logits: tuple[Shape, DType] = ((1, vocab), DType.FLOAT32)
    seen: tuple[Shape, DType] = (_input(net, 1).shape, DType.INT32)
    number: tuple[Shape, DType] = ((1,), DType.FLOAT32)
    count: tuple[Shape, DType] = ((1,), DType.INT32)
    candidates = _output(net, 0).shape
    inputs = {
        SamplerKind.SAMPLE: [logits, seen, number, number, count, number],
        SamplerKind.PENALTY: [logits, seen, number, number, number],
    }[kind]
    _expect(net, inputs, [(candidates, DType.FLOAT32), (candidates, DType.INT32)])
    return Sampler(kind, prod(seen[0]), prod(candidates))


def _check_embedding(nets: Nets, name: str, rows: int, decoder: DecoderShapes) -> None:
    _expect(
        _net(nets, name),
        [((1, rows), DType.INT32)],
        [((1, rows, decoder.hidden), decoder.half)],
    )


# --- vision tower --------------------------------------------------------------------------------


def _read_tower(nets: Nets, decoder: DecoderShapes) -> VisionTower | None:
    net = nets.get('intern_vit') or nets.get('vit')
    if net is None:
        return None
    pixels = _input(net, 0)
    features = _output(net, 0)
    _expect_dtype(net, pixels, DType.FLOAT32)
    if features.shape[-1] != decoder.hidden:
        raise _misfit(net, features, f'width {decoder.hidden}', f'{features.shape}')
    counts = (len(net.inputs), len(pixels.shape))
    if counts == (1, 4):
        return _tile_tower(net, pixels, features)
    if counts == (1, 2):
        return _fixed_grid_tower(net, pixels)
    if counts == (3, 2):
        return _patch_tower(net, pixels, features)
    if counts == (3, 4):
        return _aspect_tower(net, pixels, features)
    raise ModelFileError(
        f'net {net.name}: {counts[0]} inputs, the first {pixels.shape}: expected one of rank 4 '
        '(InternVL), three with the first of rank 2 (Qwen2-VL) or of rank 4 (Llama 3.2 Vision); '
        'five are Qwen2.5-VL, which this engine does not drive'
    )


def _tile_tower(net: NetInfo, pixels: TensorInfo, features: TensorInfo) -> TileTower:
    tiles, colours, height, width = pixels.shape
    if (tiles, colours) != (1, 3) or height != width:
        raise _misfit(net, pixels, '(1, 3, px, px)', f'{pixels.shape}')
    return TileTower(net.name, width, prod(features.shape[:-1]))


def _fixed_grid_tower(net: NetInfo, pixels: TensorInfo) -> FixedGridTower:
    patches, columns = pixels.shape
    if columns != PATCH_COLUMNS or patches not in _FIXED_GRIDS:
        known = ' or '.join(f'({n}, {PATCH_COLUMNS})' for n in _FIXED_GRIDS)
        raise _misfit(net, pixels, known, f'{pixels.shape}')
    return FixedGridTower(net.name, *_FIXED_GRIDS[patches])


def _patch_tower(net: NetInfo, pixels: TensorInfo, features: TensorInfo) -> PatchTower:
    patches = pixels.shape[0]
    if pixels.shape[1] != PATCH_COLUMNS:
        raise _misfit(net, pixels, f'(patches, {PATCH_COLUMNS})', f'{pixels.shape}')
    positions, mask = _input(net, 1), _input(net, 2)
    if positions.shape != (patches, 2) or positions.dtype is not DType.INT32:
        raise _misfit(net, positions, f'({patches}, 2) int32', f'{positions.shape}')
    if mask.shape[-2:] != (patches, patches) or prod(mask.shape) != patches**2:
        raise _misfit(net, mask, f'(1, {patches}, {patches})', f'{mask.shape}')
    if prod(features.shape[:-1]) * 4 != patches:
        raise _misfit(net, features, f'{patches // 4} rows', f'{features.shape}')
    # The video exports, told by their float32 output, have rotary tables of a fixed length.
    most_side = _OLD_ROTARY_ROWS if features.dtype is DType.FLOAT32 else 0
    return PatchTower(net.name, patches, mask.dtype, net.is_dynamic, most_side)


def _aspect_tower(net: NetInfo, pixels: TensorInfo, features: TensorInfo) -> AspectTower:
    tiles, colours, height, width = pixels.shape
    if colours != 3 or height != width:
        raise _misfit(net, pixels, '(tiles, 3, px, px)', f'{pixels.shape}')
    identity, used = _input(net, 1), _input(net, 2)
    _expect_dtype(net, identity, DType.INT32)
    _expect_dtype(net, used, DType.INT32)
    if prod(identity.shape) != 1:
        raise _misfit(net, identity, 'one number', f'{identity.shape}')
    if prod(used.shape) != tiles:
        raise _misfit(net, used, f'{tiles} numbers', f'{used.shape}')
    rows = prod(features.shape[:-1])
    if rows % tiles:
        raise _misfit(net, features, f'rows of {tiles} tiles', f'{features.shape}')
    return AspectTower(net.name, tiles, width, rows // tiles)


def _unknown(nets: Nets) -> tuple[str, ...]:
    known = re.compile(
        r'(intern_)?vit|embedding(_cache)?|lm_head|greedy_head|(penalty_)?sample_head'
        r'|block(_cache|_kv)?_\d+'
    )
    return tuple(sorted(name for name in nets if not known.fullmatch(name)))


# --- what does not fit ---------------------------------------------------------------------------


def _expect(
    net: NetInfo,
    inputs: Sequence[tuple[Shape, DType]],
    outputs: Sequence[tuple[Shape, DType]],
    stage: int = 0,
) -> None:
    """Compare shapes and types of all tensors of a net's stage with those wanted."""
    for kind, found, wanted in (('input', net.inputs, inputs), ('output', net.outputs, outputs)):
        if len(found) != len(wanted):
            raise ModelFileError(
                f'net {net.name}: expected {len(wanted)} {kind}s, found {len(found)}'
            )
        for tensor, (shape, dtype) in zip(found, wanted, strict=True):
            _expect_dtype(net, tensor, dtype)
            if stage >= len(tensor.shapes):
                raise _misfit(net, tensor, f'{stage + 1} stages', f'{len(tensor.shapes)}')
            # Ones in front and between differ between exporters and mean nothing.
            if _without_ones(tensor.shapes[stage]) != _without_ones(shape):
                raise _misfit(net, tensor, f'{shape}', f'{tensor.shapes[stage]}')


def _without_ones(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


def _expect_dtype(net: NetInfo, tensor: TensorInfo, dtype: DType) -> None:
    if tensor.dtype is not dtype:
        raise _misfit(net, tensor, dtype.value, tensor.dtype.value)


def _expect_rank(net: NetInfo, tensor: TensorInfo, rank: int) -> None:
    if len(tensor.shape) != rank:
        raise _misfit(net, tensor, f'{rank} dimensions', f'{tensor.shape}')


def _expect_dynamic(net: NetInfo) -> None:
    if not net.is_dynamic:
        raise ModelFileError(f'net {net.name}: expected a dynamic net, found a static one')


def _half(net: NetInfo, tensor: TensorInfo) -> DType:
    if not tensor.dtype.is_half:
        raise _misfit(net, tensor, 'bfloat16 or float16', tensor.dtype.value)
    return tensor.dtype


def _net(nets: Nets, name: str) -> NetInfo:
    if name not in nets:
        raise ModelFileError(f'expected a net {name}, found none')
    return nets[name]


def _input(net: NetInfo, index: int) -> TensorInfo:
    if index >= len(net.inputs):
        raise ModelFileError(
            f'net {net.name}: expected more than {index} inputs, found {len(net.inputs)}'
        )
    return net.inputs[index]


def _output(net: NetInfo, index: int) -> TensorInfo:
    if index >= len(net.outputs):
        raise ModelFileError(
            f'net {net.name}: expected more than {index} outputs, found {len(net.outputs)}'
        )
    return net.outputs[index]


def _misfit(net: NetInfo, tensor: TensorInfo, expected: str, found: str) -> ModelFileError:
    """Say which tensor of which net does not fit."""
    return ModelFileError(f'net {net.name}: {tensor.name}: expected {expected}, found {found}')
