"""The Sophgo engine: bmodels of every contract, driven through sophon-sail."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import (
    BadRequestError,
    CrossAttended,
    DeviceError,
    EdgeVlmError,
    EngineLimits,
    ErrorCode,
    ModelFiles,
    ModelReport,
    NotReadyError,
    PromptPart,
    PromptTooLongError,
    SamplingOptions,
    Spliced,
    TooManyFramesError,
    VisionFeatures,
    VisionInputs,
)
from edge_vlm_ros.engines.base import NextToken, OnLoaded, StopCheck, never
from edge_vlm_ros.engines.checks import check_fits, check_spans, check_tokens
from edge_vlm_ros.engines.kv_length import KvLength
from edge_vlm_ros.engines.sophgo.decode import CrossMemory, DecodeStack, LayerCache, make_caches
from edge_vlm_ros.engines.sophgo.embedding import (
    ChipEmbedding,
    DiskEmbedding,
    Embedding,
    TokenSlot,
)
from edge_vlm_ros.engines.sophgo.graphs import (
    AspectTower,
    ChunkPrefill,
    Contract,
    DynamicPrefill,
    FixedGridTower,
    HistoryPrefill,
    LogitsHead,
    PatchTower,
    StaticPrefill,
    TileTower,
    TokenHead,
)
from edge_vlm_ros.engines.sophgo.heads import make_head
from edge_vlm_ros.engines.sophgo.masks import cross_decode_mask, from_host
from edge_vlm_ros.engines.sophgo.model_files import (
    check_config,
    contract_of,
    find_embedding_table,
    own_bytes,
    read_for_chip,
)
from edge_vlm_ros.engines.sophgo.plan import Costs, cut
from edge_vlm_ros.engines.sophgo.prefill import (
    AttendedImage,
    ChunkRunner,
    CrossRunner,
    DynamicRunner,
    HistoryRunner,
    Prefill,
    StaticRunner,
    check_stop,
)
from edge_vlm_ros.engines.sophgo.report import report_of
from edge_vlm_ros.engines.sophgo.runtime import Device, DeviceTensor, Runtime
from edge_vlm_ros.engines.sophgo.vision import make_tower

_log = logging.getLogger(__name__)

_MOST_TILES = 4
"""Tiles of one frame at most, as in the vendor's InternVL program; each costs a vision run."""


def open_engine(
    files: ModelFiles,
    device_ids: tuple[int, ...],
    options: Mapping[str, object],
    on_loaded: OnLoaded,
) -> SophgoEngine:
    """Load a model; see `engines.open_engine`."""
    if options:
        raise BadRequestError(
            f'chip {files.chip} has no engine options, met {", ".join(options)}',
            ErrorCode.UNSUPPORTED_OPTION,
        )
    # All that the files alone can tell comes first: no device is needed to refuse them.
    bmodel = read_for_chip(files)
    contract = contract_of(bmodel)
    vocab = check_config(files, bmodel.path, contract)
    device = open_device(files.chip, device_ids)
    device.check_memory(bmodel.device_bytes + own_bytes(contract), bmodel.path)
    runtime = device.load(bmodel.path)
    try:
        engine = SophgoEngine(runtime, contract, vocab, files)
    except BaseException:
        runtime.close()
        raise
    on_loaded(1, 1)
    _log.info('loaded %s: compiled by %s, %s', files.name, bmodel.compiler, engine.limits)
    return engine


def inspect_model(files: ModelFiles, device_ids: tuple[int, ...]) -> ModelReport:
    """Tell what a bmodel holds; see `engines.inspect_model`. Reads the file, needs no device."""
    del device_ids
    bmodel = read_for_chip(files)
    contract = contract_of(bmodel)
    vocab = check_config(files, bmodel.path, contract)
    return report_of(bmodel, contract, limits_of(contract, vocab))


def open_device(chip: str, device_ids: tuple[int, ...]) -> Device:
    """Take one chip.

    Raises:
        DeviceError: It is not there or does not work; or several were named.
    """
    if len(device_ids) > 1:
        raise DeviceError(
            f'one device runs one model, {len(device_ids)} were named: {list(device_ids)}'
        )
    return Device(chip, device_ids[0] if device_ids else 0)


class SophgoEngine:
    """One bmodel on one chip. One thread calls all of it.

    Args:
        runtime: The loaded bmodel; this engine frees it.
        contract: What it holds.
        vocab: Ids that its embedding knows.
        files: The model's.

    Raises:
        ModelFileError: A file that belongs to it is missing or does not fit.
        DeviceError: The chip has too little memory, or failed.
    """

    def __init__(
        self, runtime: Runtime, contract: Contract, vocab: int, files: ModelFiles
    ) -> None:
        self._runtime = runtime
        self._limits = limits_of(contract, vocab)
        self._kv = KvLength()
        self._costs = Costs()
        self._parts: _Parts | None = _Parts(runtime, contract, files)
        self._row: DeviceTensor | None = None
        self._row_length = 0

    @property
    def limits(self) -> EngineLimits:
        """Bounds and abilities, read from the bmodel."""
        return self._limits

    @property
    def kv(self) -> KvLength:
        """The KV cache; it stays on the chip."""
        return self._kv

    def encode(self, inputs: VisionInputs) -> VisionFeatures:
        """Run the vision tower; rows come back in the language model's half type."""
        parts = self._open_parts()
        if parts.tower is None:
            raise BadRequestError('this bmodel has no vision tower: it answers words alone')
        return parts.tower.encode(inputs)

    def keep(self, shared: int, prompt: PromptPart) -> int:
        """Keep a prefix unless what follows needs the prefill nets and they start at row 0.

        Behind a prefix, static and dynamic builds go on token by token: a new frame would take
        hundreds of steps where starting again takes one run. An image to attend to is shown in
        the first part of a prompt alone.
        """
        parts = self._open_parts()
        rest, room = len(prompt) - shared, parts.prefill.room
        if parts.images is not None and any(span.stop > shared for span in prompt.spans):
            return 0
        goes_on = rest < 2 or room(shared) > 1
        if goes_on or len(prompt) > room(0) or self._costs.steps_are_worth(rest):
            return shared
        return 0

    def plan_prefill(self, tokens: int) -> tuple[int, ...]:
        """Cut the next `tokens` tokens into pieces; pieces of one token run the decode nets."""
        return tuple(self._cut(tokens, self._kv.length))

    def prefill(
        self,
        part: PromptPart,
        features: Mapping[int, VisionFeatures],
        should_stop: StopCheck = never,
    ) -> None:
        """Append a prompt part to the KV cache; on an error the cache is as before."""
        parts = self._open_parts()
        if not len(part):
            return
        held = self._kv.length
        self._check(part, features, held)
        pieces: tuple[int, ...] = (len(part),)
        if len(part) == 1 or len(part) > parts.prefill.room(held):
            pieces = tuple(self._cut(len(part), held))
        self._row_length = 0
        start = 0
        for tokens in pieces:
            check_stop(should_stop)
            piece = part.slice(start, start + tokens)
            self._append(piece, features, held + start, should_stop)
            start += tokens
        self._kv.grow(len(part))
        self._row_length = self._kv.length

    def next_token(self, sampling: SamplingOptions) -> NextToken:
        """Run the head on the last token appended."""
        parts = self._open_parts()
        if self._row is None or not self._row_length or self._row_length != self._kv.length:
            raise EdgeVlmError('no token was appended since the KV cache was cut')
        return parts.head.next_token(self._row, sampling, self._kv.length)

    def decode(self, token: int, position: int) -> None:
        """Append one answer token to the KV cache; on an error the cache is as before."""
        self._open_parts()
        held = self._kv.length
        check_fits(1, held, self._limits)
        if not 0 <= position < self._limits.context_tokens:
            raise _past_table(position, self._limits)
        positions = np.full(self._position_rows, position, np.int32)
        self._row_length = 0
        self._step(token, None, held, positions)
        self._kv.grow(1)
        self._row_length = self._kv.length

    def last_hidden(self) -> NDArray[np.float32]:
        """Read the last token's hidden state, (hidden,): what tests compare, and diagnosis."""
        self._open_parts()
        if self._row is None:
            raise EdgeVlmError('no token was appended yet')
        return from_host(self._row.read(), self._row.dtype)

    def close(self) -> None:
        """Free the chip's memory; safe to call twice."""
        self._parts, self._row = None, None
        self._runtime.close()

    @property
    def _position_rows(self) -> int:
        return self._open_parts().contract.decoder.position_rows

    def _open_parts(self) -> _Parts:
        if self._parts is None:
            raise NotReadyError('the engine is closed')
        return self._parts

    def _cut(self, tokens: int, held: int) -> tuple[int, ...]:
        prefill = self._open_parts().prefill
        costs = self._costs if prefill.may_step else None
        return tuple(cut(tokens, held, prefill.room, costs))

    def _check(self, part: PromptPart, features: Mapping[int, VisionFeatures], held: int) -> None:
        """Refuse what cannot be appended, before anything is done."""
        parts, limits = self._open_parts(), self._limits
        check_fits(len(part), held, limits)
        check_tokens(part, limits)
        highest = int(part.positions.max())
        if highest >= limits.context_tokens:
            raise _past_table(highest, limits)
        if part.positions.ndim > 1 and parts.contract.decoder.position_rows == 1:
            raise EdgeVlmError('the prompt has three rows of positions, this model takes one')
        if parts.images is not None:
            parts.images.check(part, features, held)
        else:
            check_spans(part, features, limits)

    def _append(
        self,
        piece: PromptPart,
        features: Mapping[int, VisionFeatures],
        held: int,
        should_stop: StopCheck,
    ) -> None:
        """Append one piece of a plan."""
        parts = self._open_parts()
        rows = parts.contract.decoder.position_rows
        positions = np.broadcast_to(piece.positions, (rows, len(piece))).astype(np.int32)
        attends = parts.images is not None and parts.images.attend(piece, features, held)
        if len(piece) == 1 and not attends:
            row = _row_of(piece, features) if parts.images is None else None
            self._step(int(piece.tokens[0]), row, held, positions[:, 0])
            return
        started_s = time.monotonic()
        parts.embedding.prompt(piece.tokens, parts.prefill.hidden)
        if parts.images is None:
            _splice(piece, features, parts.prefill.hidden)
        hidden = parts.prefill.run(held, positions, should_stop)
        width = parts.contract.decoder.hidden
        self._row = hidden.view((1, width), (len(piece) - 1) * width)
        self._costs.note_piece(time.monotonic() - started_s)

    def _step(
        self,
        token: int,
        feature_row: NDArray[Any] | None,
        held: int,
        positions: NDArray[np.int32],
    ) -> None:
        """Run one token, or the feature that takes its place, through the decode nets."""
        parts = self._open_parts()
        if parts.images is not None:
            parts.images.settle(held)
        started_s = time.monotonic()
        if feature_row is None:
            parts.embedding.step(token)
        else:
            parts.decode.hidden.write(feature_row)
        parts.decode.run(held, positions)
        self._row = parts.decode_row
        self._costs.note_step(time.monotonic() - started_s)


class _Parts:
    """All that lives on the chip; gone once the engine is closed."""

    def __init__(self, runtime: Runtime, contract: Contract, files: ModelFiles) -> None:
        decoder = contract.decoder
        self.contract = contract
        caches = make_caches(runtime, decoder)
        memory: CrossMemory | None = None
        if decoder.cross is not None:
            memory = CrossMemory(runtime, decoder)
        self.decode = DecodeStack(runtime, decoder, caches, memory)
        self.decode_row = self.decode.hidden.view((1, decoder.hidden))
        slot = TokenSlot(runtime)
        self.embedding = _make_embedding(runtime, contract, files, slot, self.decode.hidden)
        self.head = make_head(runtime, contract.head, self.decode_row, slot)
        tower, half = contract.tower, decoder.half
        self.tower = None if tower is None else make_tower(runtime, tower, half)
        self.prefill, self.images = _make_prefill(runtime, contract, caches, memory)


class _CrossImages:
    """Shows the cross-attention layers the one image that a context has room for."""

    def __init__(self, runner: CrossRunner, rows_per_tile: int) -> None:
        self._runner = runner
        self._rows_per_tile = rows_per_tile
        self._sent: ref[NDArray[Any]] | None = None
        self._first = 0

    def settle(self, held: int) -> None:
        """Forget the image where the cache was cut to what precedes it."""
        if held <= self._first:
            self._runner.forget()

    def check(self, part: PromptPart, features: Mapping[int, VisionFeatures], held: int) -> None:
        """Refuse a second image, and one that comes behind other tokens.

        Raises:
            TooManyFramesError: There are two.
            EdgeVlmError: Features are missing, or the image comes too late.
        """
        images = sorted({span.image for span in part.spans})
        if len(images) > 1 or len(part.spans) > 1:
            raise TooManyFramesError(
                f'{len(part.spans)} images in one prompt: the cache of this model holds 1'
            )
        if not images:
            return
        if held:
            raise TooManyFramesError(
                f'an image behind {held} tokens: this model takes 1, in the first part of a prompt'
            )
        found = features.get(images[0])
        states = self._runner.states
        if not isinstance(found, CrossAttended) or found.states.size != states.size:
            raise EdgeVlmError(f'no features to attend to for image {images[0]} of the prompt')

    def attend(self, piece: PromptPart, features: Mapping[int, VisionFeatures], held: int) -> bool:
        """Make ready for a piece; tell whether an image is shown in it."""
        if held:
            return False
        self._runner.image = None
        if not piece.spans:
            self._runner.forget()
            return False
        span = piece.spans[0]
        found = features[span.image]
        assert isinstance(found, CrossAttended)
        if self._sent is None or self._sent() is not found.states:
            self._sent = None
            self._runner.states.write(found.states)
            self._sent = ref(found.states)
        tiles = self._runner.states.shape[0] // self._rows_per_tile
        used = found.rows_used // self._rows_per_tile
        half = self._runner.states.dtype
        mask = cross_decode_mask(used, tiles, self._rows_per_tile, half)
        self._runner.image = AttendedImage(span.start, mask)
        self._first = span.start
        return True


def _make_embedding(
    runtime: Runtime,
    contract: Contract,
    files: ModelFiles,
    slot: TokenSlot,
    step_hidden: DeviceTensor,
) -> Embedding:
    if contract.embeds_on_chip:
        return ChipEmbedding(runtime, contract.prefill.rows, slot, step_hidden)
    return DiskEmbedding(find_embedding_table(files), contract.decoder, step_hidden)


def _make_prefill(
    runtime: Runtime,
    contract: Contract,
    caches: tuple[LayerCache, ...],
    memory: CrossMemory | None,
) -> tuple[Prefill, _CrossImages | None]:
    decoder, form = contract.decoder, contract.prefill
    if memory is not None:
        assert isinstance(form, StaticPrefill)
        assert decoder.cross is not None
        tiles = getattr(contract.tower, 'tiles', 1)
        runner = CrossRunner(runtime, decoder, form, caches, memory)
        return runner, _CrossImages(runner, decoder.cross.rows // tiles)
    if isinstance(form, StaticPrefill):
        return StaticRunner(runtime, decoder, form, caches), None
    if isinstance(form, HistoryPrefill):
        return HistoryRunner(runtime, decoder, form, caches), None
    if isinstance(form, DynamicPrefill):
        return DynamicRunner(runtime, decoder, form, caches), None
    assert isinstance(form, ChunkPrefill)
    return ChunkRunner(runtime, decoder, form, caches), None


def limits_of(contract: Contract, vocab: int) -> EngineLimits:
    """Tell the bounds and abilities of a contract."""
    decoder, head, tower = contract.decoder, contract.head, contract.tower
    limits = EngineLimits(
        context_tokens=decoder.context,
        longest_prompt=decoder.context,
        prefill_chunk=contract.prefill.rows,
        max_images=_max_images(contract),
        can_extend_prefix=True,
        samples_on_chip=isinstance(head, TokenHead) or head.sampler is not None,
        has_logits=isinstance(head, LogitsHead),
        vocab_size=vocab,
        hidden_size=decoder.hidden,
        hidden_dtype=decoder.half.value,
    )
    if isinstance(tower, TileTower):
        tiles = _tiles_per_frame(decoder.context, tower.rows)
        return replace(limits, tile_px=tower.tile_px, tiles_per_frame=tiles)
    if isinstance(tower, PatchTower):
        return replace(limits, max_patches=tower.patches, max_grid_side=tower.most_side)
    if isinstance(tower, FixedGridTower):
        return replace(limits, patch_grid=(tower.rows, tower.columns))
    if isinstance(tower, AspectTower):
        return replace(limits, tile_px=tower.tile_px, tiles_per_frame=tower.tiles)
    return limits


def _max_images(contract: Contract) -> int:
    """Return how many tiles leave a quarter of the context for words; 0 = they differ in size."""
    if contract.decoder.cross is not None:
        return 1
    if isinstance(contract.tower, TileTower):
        return max(1, contract.decoder.context * 3 // 4 // contract.tower.rows)
    return 0


def _tiles_per_frame(context: int, rows: int) -> int:
    """Return how many tiles, and their thumbnail, leave a quarter of the context for words."""
    with_thumbnail = context * 3 // 4 // rows
    return min(_MOST_TILES, max(1, with_thumbnail - 1))


def _splice(
    piece: PromptPart, features: Mapping[int, VisionFeatures], hidden: DeviceTensor
) -> None:
    """Write the features over the embeddings of their placeholders."""
    for span in piece.spans:
        found = features[span.image]
        assert isinstance(found, Spliced)
        rows = found.rows[span.first_row : span.first_row + len(span)]
        hidden.write(rows, span.start * rows.shape[1])


def _row_of(piece: PromptPart, features: Mapping[int, VisionFeatures]) -> NDArray[Any] | None:
    """Return the feature that takes the place of a single token; None = it is a word."""
    for span in piece.spans:
        found = features[span.image]
        assert isinstance(found, Spliced)
        row: NDArray[Any] = found.rows[span.first_row]
        return row
    return None


def _past_table(position: int, limits: EngineLimits) -> PromptTooLongError:
    return PromptTooLongError(
        f'position {position} is past the last one this model knows, {limits.context_tokens - 1}'
    )
