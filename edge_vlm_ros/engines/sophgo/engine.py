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
    PromptPart,
    SamplingOptions,
    TooManyFramesError,
    VisionFeatures,
    VisionInputs,
)
from edge_vlm_ros.engines.base import NextToken, OnLoaded, StopCheck
from edge_vlm_ros.engines.checks import check_piece, rows_of
from edge_vlm_ros.engines.guarded import GuardedEngine
from edge_vlm_ros.engines.kv_length import KvLength
from edge_vlm_ros.engines.sophgo.decode import CrossMemory, DecodeStack, LayerCache, make_caches
from edge_vlm_ros.engines.sophgo.device import Device
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
)
from edge_vlm_ros.engines.sophgo.report import report_of
from edge_vlm_ros.engines.sophgo.runtime import Runtime
from edge_vlm_ros.engines.sophgo.tensors import DeviceTensor
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
    runtime = Runtime(device, bmodel.path)
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


class SophgoEngine(GuardedEngine):
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
        self._costs = Costs()
        self._parts = _Parts(runtime, contract, files)
        self._row: DeviceTensor | None = None
        super().__init__(limits_of(contract, vocab), KvLength())

    def last_hidden(self) -> NDArray[np.float32]:
        """Read the last token's hidden state, (hidden,): what tests compare, and diagnosis."""
        self._check_open()
        if self._row is None:
            raise EdgeVlmError('no token was appended yet')
        return from_host(self._row.read(), self._row.dtype)

    @property
    def _position_rows(self) -> int:
        return self._parts.contract.decoder.position_rows

    def _encode(self, inputs: VisionInputs) -> VisionFeatures:
        """Run the vision tower; rows come back in the language model's half type."""
        if self._parts.tower is None:
            raise BadRequestError('this bmodel has no vision tower: it takes text only')
        return self._parts.tower.encode(inputs)

    def _usable_prefix(self, shared: int, prompt: PromptPart) -> int:
        """Go on from a prefix unless what follows needs the prefill nets and they start at row 0.

        After a prefix, static and dynamic builds go on token by token: a new frame would take
        hundreds of steps where starting again takes one run. An image to attend to is shown in
        the first part of a prompt alone.
        """
        parts = self._parts
        rest, room = len(prompt) - shared, parts.prefill.room
        if parts.images is not None and any(span.stop > shared for span in prompt.spans):
            return 0
        goes_on = rest < 2 or room(shared) > 1
        if goes_on or len(prompt) > room(0) or self._costs.steps_beat_restart(rest):
            return shared
        return 0

    def _plan(self, tokens: int, held: int) -> tuple[int, ...]:
        """Cut tokens into pieces; pieces of one token run the decode nets."""
        prefill = self._parts.prefill
        costs = self._costs if prefill.may_step else None
        return tuple(cut(tokens, held, prefill.room, costs))

    def _check_piece(self, part: PromptPart, features: Mapping[int, VisionFeatures]) -> None:
        """Refuse what no run of the nets takes, and features that are not the prompt's."""
        parts, held = self._parts, self.kv.length
        check_piece(len(part), max(1, parts.prefill.room(held)))
        if parts.images is not None:
            parts.images.check(part, features, held)
        else:
            super()._check_piece(part, features)

    def _append(
        self, part: PromptPart, features: Mapping[int, VisionFeatures], should_stop: StopCheck
    ) -> None:
        """Append one piece: one token by a step unless an image is shown in it, else by a run."""
        parts, held = self._parts, self.kv.length
        rows = parts.contract.decoder.position_rows
        positions = np.broadcast_to(part.positions, (rows, len(part))).astype(np.int32)
        attends = parts.images is not None and parts.images.attend(part, features, held)
        if len(part) == 1 and not attends:
            row = _row_of(part, features) if parts.images is None else None
            self._run_step(int(part.tokens[0]), row, positions[:, 0])
            return
        started_s = time.monotonic()
        parts.embedding.prompt(part.tokens, parts.prefill.hidden)
        if parts.images is None:
            _splice(part, features, parts.prefill.hidden)
        hidden = parts.prefill.run(held, positions, should_stop)
        width = parts.contract.decoder.hidden
        self._row = hidden.view((1, width), (len(part) - 1) * width)
        self._costs.note_piece(time.monotonic() - started_s)

    def _step(self, token: int, position: int) -> None:
        self._run_step(token, None, np.full(self._position_rows, position, np.int32))

    def _head(self, sampling: SamplingOptions) -> NextToken:
        assert self._row is not None
        return self._parts.head.next_token(self._row, sampling, self.kv.length)

    def _close(self) -> None:
        self._row = None
        del self._parts
        self._runtime.close()

    def _run_step(
        self, token: int, feature_row: NDArray[Any] | None, positions: NDArray[np.int32]
    ) -> None:
        """Run one token, or the feature that takes its place, through the decode nets."""
        parts, held = self._parts, self.kv.length
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
        rows = rows_of(span, features)
        hidden.write(rows, span.start * rows.shape[1])


def _row_of(piece: PromptPart, features: Mapping[int, VisionFeatures]) -> NDArray[Any] | None:
    """Return the feature that takes the place of a single token; None = it is a word."""
    for span in piece.spans:
        row: NDArray[Any] = rows_of(span, features)[0]
        return row
    return None
