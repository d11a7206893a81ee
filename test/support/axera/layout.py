"""Shape groups of made-up axmodels: what a compiler's options make of one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from support.axera.axmodel_file import Group, Tensor


@dataclass(frozen=True, slots=True)
class Delays:
    """How long the chip takes for a run, microseconds.

    Attributes:
        prefill_us: Of one layer, by history.
        decode_us: Of one layer, by capacity.
        post_us: Of the head.
        vision_us: Of the vision tower.
    """

    prefill_us: Mapping[int, int] = field(default_factory=dict)
    decode_us: Mapping[int, int] = field(default_factory=dict)
    post_us: int = 0
    vision_us: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """One build.

    Attributes:
        chunk: Tokens of a prefill run.
        histories: Cache rows of the prefill groups, in file order.
        capacities: Cache rows of the decode groups; the first one is group 0, the others stand
            after the prefill groups.
        chip: What it is compiled for.
        prefix: Of the files' names.
        is_suffixed: Whether names in group g > 0 end in `_<g>`.
        is_shuffled: Whether every group has its tensors in another order.
        is_vision_nhwc: Whether the vision tower takes uint8 (1, px, px, 3) and normalises.
        position_rows: 1, or 3 where the model takes M-RoPE; decode groups have 1 all the same.
        is_table_raw: Whether the embedding table is raw bfloat16, not .npy.
        vision_name: Of the vision tower's file, relative to the set's folder.
        delays: How long the chip takes.
    """

    chunk: int = 16
    histories: tuple[int, ...] = (0, 16, 32, 48, 64, 80, 96, 112, 128)
    capacities: tuple[int, ...] = (319,)
    chip: str = 'ax650'
    prefix: str = 'qwen2'
    is_suffixed: bool = False
    is_shuffled: bool = False
    is_vision_nhwc: bool = False
    position_rows: int = 1
    is_table_raw: bool = False
    vision_name: str = 'vit_axmodel/internvl_vit.axmodel'
    delays: Delays = Delays()

    def layer_name(self, layer: int) -> str:
        """Name a decoder layer's file."""
        return f'{self.prefix}_p{self.chunk}_l{layer}_together.axmodel'

    @property
    def post_name(self) -> str:
        """Name the head's file."""
        return f'{self.prefix}_post.axmodel'

    @property
    def table_name(self) -> str:
        """Name the embedding table's file."""
        return 'model.embed_tokens.weight' + ('.bfloat16.bin' if self.is_table_raw else '.npy')


def layer_groups(layout: Layout, hidden: int, kv_width: int) -> tuple[Group, ...]:
    """Make the groups of a decoder layer. Source of shapes: the InternVL3-2B axmodels' own."""
    first, *more = layout.capacities
    groups = [_decode(layout, first, hidden, kv_width)]
    groups += [_prefill(layout, history, hidden, kv_width) for history in layout.histories]
    groups += [_decode(layout, capacity, hidden, kv_width) for capacity in more]
    return tuple(_disguised(group, i, layout) for i, group in enumerate(groups))


def _decode(layout: Layout, capacity: int, hidden: int, kv_width: int) -> Group:
    cache = (1, capacity, kv_width)
    delay = layout.delays.decode_us.get(capacity, 0)
    return _group(1, cache, capacity + 1, hidden, kv_width, delay, 1)


def _prefill(layout: Layout, history: int, hidden: int, kv_width: int) -> Group:
    # Without a history the caches are dummies, as wide as the hidden state.
    cache = (1, history, kv_width) if history else (1, 1, hidden)
    delay = layout.delays.prefill_us.get(history, 0)
    columns = history + layout.chunk
    rows = layout.position_rows
    return _group(layout.chunk, cache, columns, hidden, kv_width, delay, rows)


def _group(  # noqa: PLR0913, PLR0917 (seven sizes)
    tokens: int,
    cache: tuple[int, ...],
    columns: int,
    hidden: int,
    kv_width: int,
    delay_us: int,
    position_rows: int,
) -> Group:
    inputs = (
        Tensor('K_cache', 'bf16', cache),
        Tensor('V_cache', 'bf16', cache),
        Tensor('indices', 'u32', (position_rows, tokens)),
        Tensor('input', 'bf16', (1, tokens, hidden)),
        Tensor('mask', 'bf16', (1, tokens, columns)),
    )
    outputs = (
        Tensor('K_cache_out', 'bf16', (1, tokens, kv_width)),
        Tensor('V_cache_out', 'bf16', (1, tokens, kv_width)),
        Tensor('output', 'bf16', (1, tokens, hidden)),
    )
    return Group(inputs, outputs, delay_us)


def _disguised(group: Group, number: int, layout: Layout) -> Group:
    inputs, outputs = group.inputs, group.outputs
    if layout.is_suffixed and number:
        inputs = tuple(_suffixed(tensor, number) for tensor in inputs)
        outputs = tuple(_suffixed(tensor, number) for tensor in outputs)
    if layout.is_shuffled:
        inputs, outputs = _turned(inputs, number), _turned(outputs, number)
    return Group(inputs, outputs, group.delay_us)


def _suffixed(tensor: Tensor, number: int) -> Tensor:
    return Tensor(f'{tensor.name}_{number}', tensor.dtype, tensor.shape)


def _turned(tensors: tuple[Tensor, ...], by: int) -> tuple[Tensor, ...]:
    start = by % len(tensors)
    return tensors[start:] + tensors[:start]
