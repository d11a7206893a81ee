"""Which contract a bmodel keeps: its parts, read from its nets and checked.

Families and years differ in what the nets take (the tables of `doc/models.md`); all that tells
them apart is in the nets themselves, so nothing is known by a file's name. Nets are found by name
and wired by index: the names of outputs carry compiler suffixes. What does not fit is refused here
with the net, the tensor, what was expected and what was found.

A part is a class that reads itself from the nets, says what it makes of the engine's limits and
what it is in a report, and starts what runs it. A new vision tower or way to prefill is a module
with such a class, and a row in a table below.

Source: the vendor's drivers and exporters (sophon-demo, LLM-TPU) of 2024 to 2026.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

from edge_vlm_ros.core import EngineLimits, ModelFileError
from edge_vlm_ros.engines.sophgo.cross import CrossPrefill
from edge_vlm_ros.engines.sophgo.deepstack import check_add
from edge_vlm_ros.engines.sophgo.expect import (
    expect,
    expect_dtype,
    input_of,
    misfit,
    net_of,
    output_of,
)
from edge_vlm_ros.engines.sophgo.heads import Head, read_head
from edge_vlm_ros.engines.sophgo.layers import (
    DecoderShapes,
    LayerKind,
    expect_step,
    read_layers,
)
from edge_vlm_ros.engines.sophgo.nets import DType, Nets
from edge_vlm_ros.engines.sophgo.prefill.chunk import ChunkPrefill
from edge_vlm_ros.engines.sophgo.prefill.dynamic import DynamicPrefill
from edge_vlm_ros.engines.sophgo.prefill.form import PrefillForm
from edge_vlm_ros.engines.sophgo.prefill.history import HistoryPrefill
from edge_vlm_ros.engines.sophgo.prefill.static import StaticPrefill
from edge_vlm_ros.engines.sophgo.towers.aspect import AspectTower
from edge_vlm_ros.engines.sophgo.towers.deepstack import DeepstackTower, StaticDeepstackTower
from edge_vlm_ros.engines.sophgo.towers.fixed_grid import FixedGridTower
from edge_vlm_ros.engines.sophgo.towers.patch import PatchTower
from edge_vlm_ros.engines.sophgo.towers.tile import TileTower
from edge_vlm_ros.engines.sophgo.towers.tower import Tower
from edge_vlm_ros.engines.sophgo.towers.window import WindowTower

_PREFILL_FORMS: tuple[type[PrefillForm], ...] = (
    # The first that knows itself in the nets is taken.
    CrossPrefill,
    ChunkPrefill,
    HistoryPrefill,
    DynamicPrefill,
    StaticPrefill,
)
_TOWERS: tuple[type[Tower], ...] = (
    TileTower,
    FixedGridTower,
    PatchTower,
    AspectTower,
    WindowTower,
    DeepstackTower,
    StaticDeepstackTower,
)

_KNOWN_NETS = re.compile(
    r'(intern_)?vit|embedding(_cache)?|lm_head|greedy_head|(penalty_)?sample_head'
    r'|block(_cache|_kv)?_\d+|add'
)


@dataclass(frozen=True, slots=True)
class Contract:
    """What a bmodel holds.

    Attributes:
        decoder: The layers.
        prefill: How prompts get in.
        head: How tokens come out.
        tower: The vision tower; None = a text model.
        embeds_on_chip: Whether ids become embeddings on the chip; otherwise in a table on disk.
        tower_bytes: Device memory of the vision tower's pixels, tables and features.
        unknown: Nets that nothing here uses.
    """

    decoder: DecoderShapes
    prefill: PrefillForm
    head: Head
    tower: Tower | None
    embeds_on_chip: bool
    tower_bytes: int
    unknown: tuple[str, ...]

    @property
    def family(self) -> str:
        """The family whose prompts it takes, as far as the nets show; '' = text only."""
        return self.tower.family if self.tower is not None else ''

    @property
    def own_bytes(self) -> int:
        """Device memory that the engine takes beside what loading the file takes.

        Hidden states, masks, the vision tower's tensors and, where the decode nets have no memory
        of their own, the cache.
        """
        decoder = self.decoder
        cache = 0 if decoder.cache_in_net else decoder.cache_bytes
        deepstack = decoder.deepstack * self.prefill.rows * decoder.hidden
        values = self.prefill.own_values(decoder) + deepstack
        return decoder.half.nbytes * values + self.tower_bytes + cache

    def limits(self, vocab: int) -> EngineLimits:
        """Tell the bounds and abilities; `vocab` is how many ids the embedding knows."""
        decoder = self.decoder
        limits = EngineLimits(
            context_tokens=decoder.context,
            longest_prompt=decoder.context,
            prefill_chunk=self.prefill.rows,
            max_images=0,
            can_extend_prefix=True,
            samples_on_chip=self.head.samples_on_chip,
            has_logits=self.head.vocab is not None,
            vocab_size=vocab,
            hidden_size=decoder.hidden,
            hidden_dtype=decoder.half.value,
            deepstack_layers=decoder.deepstack,
        )
        return limits if self.tower is None else self.tower.limit(limits)


def read_contract(nets: Nets) -> Contract:
    """Tell which contract the nets keep.

    Raises:
        ModelFileError: They keep none that this engine knows; says which tensor does not fit.
    """
    decoder = read_layers(nets)
    prefill = _read_prefill(nets, decoder)
    check_add(nets, decoder, prefill.rows)
    for i, kind in enumerate(decoder.kinds):
        prefill.check_layer(nets, i, decoder)
        if kind is LayerKind.SELF:
            expect_step(nets[f'block_cache_{i}'], decoder)
    head = read_head(nets, decoder)
    tower = _read_tower(nets, decoder)
    attends = tower is not None and tower.is_attended
    if (decoder.cross is not None) is not attends:
        raise ModelFileError(
            f'cross-attention layers: {"none" if decoder.cross is None else "some"}, which does '
            f'not go with a vision tower of {type(tower).__name__}'
        )
    embeds_on_chip = 'embedding' in nets or 'embedding_cache' in nets
    if embeds_on_chip:
        _check_embedding(nets, 'embedding', prefill.rows, decoder)
        _check_embedding(nets, 'embedding_cache', 1, decoder)
    unknown = tuple(sorted(name for name in nets if not _KNOWN_NETS.fullmatch(name)))
    tensors = _bytes_of_tower(nets)
    return Contract(decoder, prefill, head, tower, embeds_on_chip, tensors, unknown)


def _read_prefill(nets: Nets, decoder: DecoderShapes) -> PrefillForm:
    for kind in _PREFILL_FORMS:
        found = kind.read(nets, decoder)
        if found is not None:
            return found
    block = nets[f'block_{decoder.first}']
    raise ModelFileError(
        f'net {block.name}: expected 2 (dynamic), 3 or 5 (with history) inputs, '
        f'found {len(block.inputs)}'
    )


def _read_tower(nets: Nets, decoder: DecoderShapes) -> Tower | None:
    net = nets.get('intern_vit') or nets.get('vit')
    if net is None:
        return None
    pixels, features = input_of(net, 0), output_of(net, 0)
    expect_dtype(net, pixels, DType.FLOAT32)
    if features.shape[-1] != decoder.hidden:
        raise misfit(net, features, f'width {decoder.hidden}', f'{features.shape}')
    signature = (len(net.inputs), len(pixels.shape), *pixels.shape[-1:])
    for kind in _TOWERS:
        if signature[: len(kind.signature)] == kind.signature:
            return kind.read(net)
    takes = ', '.join(f'{_shown(kind.signature)} ({kind.models})' for kind in _TOWERS)
    raise ModelFileError(
        f'net {net.name}: {signature[0]} inputs, the first {pixels.shape}: expected {takes}'
    )


def _shown(signature: tuple[int, ...]) -> str:
    inputs, rank, *width = signature
    last = ''.join(f', its last size {size}' for size in width)
    return f'{inputs} with the first of rank {rank}{last}'


def _bytes_of_tower(nets: Nets) -> int:
    """Add up what a vision tower's net takes and gives, as large as it can be."""
    net = nets.get('intern_vit') or nets.get('vit')
    tensors = () if net is None else (*net.inputs, *net.outputs)
    return sum(prod(tensor.shape) * tensor.dtype.nbytes for tensor in tensors)


def _check_embedding(nets: Nets, name: str, rows: int, decoder: DecoderShapes) -> None:
    expect(
        net_of(nets, name),
        [((1, rows), DType.INT32)],
        [((1, rows, decoder.hidden), decoder.half)],
    )
