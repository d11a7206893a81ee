"""The Axera engine: axmodel sets, one file a decoder layer, on AX650N and AX630C."""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import (
    EngineLimits,
    ModelFiles,
    ModelReport,
    PromptPart,
    PromptTooLongError,
    SamplingOptions,
    Spliced,
    VisionFeatures,
    VisionInputs,
    needing,
    read_options,
)
from edge_vlm_ros.engines.axera.backend import LayerBackend
from edge_vlm_ros.engines.axera.chip_memory import free_bytes_of
from edge_vlm_ros.engines.axera.choose_backend import (
    OpenedSessions,
    choose_backend,
    tell_copies,
)
from edge_vlm_ros.engines.axera.costs import GroupCosts, measure_costs, settle_costs
from edge_vlm_ros.engines.axera.deepstack import Deepstack, deepstack_rows
from edge_vlm_ros.engines.axera.embedding import EmbeddingTable, rows_of_table
from edge_vlm_ros.engines.axera.graphs import StackShapes, read_stack
from edge_vlm_ros.engines.axera.load_progress import (
    LOADED_CARD,
    LOADING_CARD,
    ON_BOARD,
    LoadProgress,
)
from edge_vlm_ros.engines.axera.memory_guard import MemoryGuard, buffer_bytes
from edge_vlm_ros.engines.axera.options import AxeraOptions
from edge_vlm_ros.engines.axera.plan import Piece, Planner
from edge_vlm_ros.engines.axera.report import describe
from edge_vlm_ros.engines.axera.runtime import Device, open_device
from edge_vlm_ros.engines.axera.set_files import (
    DeclaredSizes,
    check_config,
    check_deepstack,
    count_layers,
)
from edge_vlm_ros.engines.axera.vision import open_tower
from edge_vlm_ros.engines.axera.vision_shapes import VisionShapes, read_vision
from edge_vlm_ros.engines.base import Logits, OnLoaded, StopCheck
from edge_vlm_ros.engines.bf16 import to_bf16
from edge_vlm_ros.engines.checks import check_stop, rows_of
from edge_vlm_ros.engines.exit_limit import exit_limited
from edge_vlm_ros.engines.guarded import GuardedEngine
from edge_vlm_ros.engines.kv_length import KvLength

_log = logging.getLogger(__name__)

_GLUE_TOKENS = 8
"""Prompt tokens around one image besides its rows: label, `<img>`, `</img>`, line break."""


OPTIONS = AxeraOptions


def open_engine(
    files: ModelFiles,
    device_ids: tuple[int, ...],
    options: Mapping[str, object],
    on_loaded: OnLoaded,
) -> AxeraEngine:
    """Load a model; see `engines.open_engine`."""
    chosen = read_options(AxeraOptions, options, f'chip {files.chip}')
    return AxeraEngine(files, device_ids, chosen, on_loaded)


def inspect_model(files: ModelFiles, device_ids: tuple[int, ...]) -> ModelReport:
    """Read a set's first layer, head, vision tower and table; see `engines.inspect_model`."""
    config = DeclaredSizes.of(files.config)
    layers = count_layers(files, config)
    trial = files.weights['vision_encoder']
    with ExitStack() as opening, exit_limited('axengine'):
        with needing(LOADING_CARD):  # It may try one.
            device = open_device(files.chip, device_ids, trial=trial)
        opening.enter_context(needing(LOADING_CARD if device.is_card else ON_BOARD))
        opened = OpenedSessions(device)
        opening.callback(opened.close)
        tower = opened.look_into_tower(files.weights['vision_encoder'])  # first, as in `_load`
        first = opened.look_into(files.weights['layers.0'])
        shapes = read_stack(first, layers, opened.look_into(files.weights['post']))
        vision = read_vision(tower, shapes.hidden)
        check_config(config, files, shapes, vision)
        check_deepstack(config, files, shapes, vision)
        table = EmbeddingTable(files.weights['embed_tokens'], shapes.hidden)
        opening.callback(table.close)
        return describe(files, shapes, vision, limits_of(shapes, vision, table.rows))


def known_tokens(files: ModelFiles) -> int | None:
    """Count the rows of the embedding table; see `engines.known_tokens`."""
    table = files.weights.get('embed_tokens')
    config = DeclaredSizes.of(files.config)
    # A file that is not there is named with the others, when the engine opens.
    is_there = table is not None and table.is_file()
    return rows_of_table(table, config.hidden) if table is not None and is_there else None


def limits_of(
    shapes: StackShapes, vision: VisionShapes, table_rows: int, slots: int = 1
) -> EngineLimits:
    """Read the bounds of a set off its shapes.

    A prompt may be as long as the cache, less a token for the answer: what is longer than the
    longest history and one chunk goes through decode steps. That is slow (75 ms a token on an
    AX650N), but it is how a conversation goes on where only its tail is new, or a question after
    eight frames gets a few tokens more than the build has chunks for. Images are bounded by the
    chunks: one more would take twenty seconds of steps.
    """
    window = max(group.history + group.chunk for group in shapes.prefill)
    fitting = min(window, shapes.capacity) // (vision.rows + _GLUE_TOKENS)
    return EngineLimits(
        context_tokens=shapes.capacity,
        longest_prompt=shapes.capacity - 1,
        prefill_chunk=max(group.chunk for group in shapes.prefill),
        max_images=max(1, fitting),
        can_extend_prefix=True,
        samples_on_chip=False,
        has_logits=True,
        vocab_size=table_rows,
        hidden_size=shapes.hidden,
        hidden_dtype='bfloat16',
        tile_px=vision.tile_px,
        tiles_per_frame=0 if vision.patches else 1,
        max_patches=vision.patches,
        patch_grid=vision.grid,
        kv_slots=slots,
        deepstack_layers=len(vision.deepstack),
    )


@dataclass(frozen=True, slots=True)
class _Tokens:
    """What one piece gives the layers.

    Attributes:
        embeds: bfloat16 bit patterns, (tokens, hidden).
        positions: (tokens,) or (3, tokens).
        deepstack: What is added after the first layers; None = nothing.
    """

    embeds: NDArray[np.uint16]
    positions: NDArray[np.uint32]
    deepstack: Deepstack | None


class AxeraEngine(GuardedEngine):
    """One axmodel set on one chip. One thread calls all of it.

    Args:
        files: With 'layers.<i>', 'post', 'embed_tokens' and 'vision_encoder'.
        device_ids: Of a card; empty = the first one, or the chip on the board.
        options: How it is driven.
        on_loaded: Called after each axmodel.

    Raises:
        DeviceError: No driver, another chip, or too little memory.
        ModelFileError: A file is missing, damaged, or does not fit the others.
    """

    def __init__(
        self,
        files: ModelFiles,
        device_ids: tuple[int, ...],
        options: AxeraOptions,
        on_loaded: OnLoaded,
    ) -> None:
        config = DeclaredSizes.of(files.config)
        layers = count_layers(files, config)
        progress = LoadProgress(on_loaded, layers + 2)
        progress.check()
        trial = files.weights['vision_encoder']
        with ExitStack() as opening, exit_limited('axengine'):
            with needing(LOADING_CARD):  # It may try one.
                device = open_device(files.chip, device_ids, options.provider, trial)
            device = replace(device, before_file=progress.check)
            opening.enter_context(needing(LOADED_CARD if device.is_card else ON_BOARD))
            with needing(LOADING_CARD if device.is_card else ON_BOARD):
                costs = self._load(opening, device, files, options.backend, progress)
            decode_ms = self._shapes.layers * min(costs.decode.values())
            tell_copies(device, self._backend, decode_ms)
            self._planner = Planner(self._shapes, costs)
            self._closing = opening.pop_all()
        slots = self._backend.offer_slots(options.kv_slots)
        limits = limits_of(self._shapes, self._vision.shapes, self._table.rows, slots)
        super().__init__(limits, *(KvLength() for _ in range(slots)))
        _log.info('loaded %s: %s, %s', files.name, self._backend.name, limits)

    def _load(
        self,
        opening: ExitStack,
        device: Device,
        files: ModelFiles,
        backend: str,
        progress: LoadProgress,
    ) -> GroupCosts:
        """Open all files, and try and time them.

        The vision tower comes first: loaded after a layer it can drop a card off the bus (AXCL
        3.10.2, an independent lab's log); the other order is fine everywhere.
        """
        config = DeclaredSizes.of(files.config)
        where = 'axcl-smi' if device.is_card else f'{device.cmm_info}'
        guard = MemoryGuard(files, partial(free_bytes_of, device.index, device.cmm_info), where)
        guard.check_files()
        opened = OpenedSessions(device)
        opening.callback(opened.close)
        vision_session = opened.look_into_tower(files.weights['vision_encoder'])
        first = opened.look_into(files.weights['layers.0'])
        post = opened.look_into(files.weights['post'])
        self._shapes = read_stack(first, count_layers(files, config), post)
        guard.check_buffers(buffer_bytes(backend, self._shapes, first.groups))
        self._vision = open_tower(vision_session, self._shapes.hidden, config)
        opening.callback(opened.take(vision_session.path).close)
        check_config(config, files, self._shapes, self._vision.shapes)
        check_deepstack(config, files, self._shapes, self._vision.shapes)
        self._table = EmbeddingTable(files.weights['embed_tokens'], self._shapes.hidden)
        opening.callback(self._table.close)
        progress.one()
        self._backend: LayerBackend = choose_backend(
            backend,
            device=device,
            open_session=opened.take,
            files=files,
            shapes=self._shapes,
            on_file=guard.watch(progress.one),
        )
        opening.callback(self._backend.close)
        progress.check()
        how = f'{self._backend.name} {"card" if device.is_card else "board"}'
        return settle_costs(measure_costs(self._backend, self._shapes), files, how)

    @property
    def backend_name(self) -> str:
        """'portable' or 'in place'."""
        return self._backend.name

    @property
    def _position_rows(self) -> int:
        return self._shapes.position_rows

    def _select(self, slot: int) -> None:
        self._backend.select(slot)

    def _encode(self, inputs: VisionInputs) -> Spliced:
        """Run vision tower and projector on one frame, or one moment of a clip.

        Returns:
            Rows of bfloat16 bit patterns (uint16).
        """
        return self._vision.encode(inputs)

    def _usable_prefix(
        self, shared: int, prompt: PromptPart, at_hand: Container[int] | None
    ) -> int:
        """Go on from a chunk's border where that saves more than running the tail again costs.

        Features that are not at hand would cost a run of the vision tower, five chunks or more.
        """

        def may_cut(at: int) -> bool:
            again = (span.image for span in prompt.spans if at < span.stop and span.start < shared)
            return all(at_hand is not None and image in at_hand for image in again)

        if len(prompt) > self._shapes.capacity:
            return shared
        return self._planner.keep(shared, len(prompt), may_cut)

    def _plan(self, tokens: int, held: int) -> tuple[int, ...]:
        """Cut tokens into the cheapest chunks and runs of decode steps."""
        return tuple(piece.tokens for piece in self._planner.plan(held, tokens))

    def _append(
        self, part: PromptPart, features: Mapping[int, VisionFeatures], should_stop: StopCheck
    ) -> None:
        """Append a part: which shape group each of its chunks runs is looked up in the plan."""
        embeds, positions = self._splice(part, features), self._positions(part)
        row = self.kv.length
        at = 0
        for piece in self._pieces(part, row):
            rows = slice(at, at + piece.tokens)
            tokens = _Tokens(embeds[rows], positions[..., rows], self._added(part, rows, features))
            self._run_piece(piece, tokens, row + at, should_stop)
            at += piece.tokens

    def _check_piece(self, part: PromptPart, features: Mapping[int, VisionFeatures]) -> None:
        """Refuse images behind all that a prefill group sees, where steps cannot take them."""
        super()._check_piece(part, features)
        self._pieces(part, self.kv.length)

    def _pieces(self, part: PromptPart, row: int) -> tuple[Piece, ...]:
        """Look up the plan; what a decode group cannot be told goes through chunks instead.

        Raises:
            PromptTooLongError: No prefill group sees so many rows.
        """
        pieces = self._planner.plan(row, len(part))
        if not self._shapes.steps_words_only or part.positions.ndim == 1:
            return pieces
        found: list[Piece] = []
        at = 0
        for piece in pieces:
            places = part.positions[:, at : at + piece.tokens]
            is_word = (places == places[0]).all(axis=0)
            if piece.group is not None or is_word.all():
                found.append(piece)
            else:
                found += self._around_images(is_word, row + at)
            at += piece.tokens
        return tuple(found)

    def _around_images(self, is_word: NDArray[np.bool_], row: int) -> list[Piece]:
        """Have images go through chunks, and the words before and after them through steps."""
        images = np.flatnonzero(~is_word)
        first, stop = int(images[0]), int(images[-1]) + 1
        chunks = self._planner.by_chunks(row + first, stop - first)
        if not chunks:
            raise PromptTooLongError(
                f'an image after {row + first} tokens: this build takes one within the first '
                f'{self._shapes.prefill[-1].history} tokens only'
            )
        words = [Piece(count, None) if count else None for count in (first, len(is_word) - stop)]
        return [piece for piece in (words[0], *chunks, words[1]) if piece is not None]

    def _step(self, token: int, position: int) -> None:
        rows = self._shapes.position_rows
        place = np.full((rows, 1) if rows > 1 else 1, position, np.uint32)
        self._run_step(self._table.row(token), place, self.kv.length, None)

    def _head(self, sampling: SamplingOptions) -> Logits:
        """Run the head; `sampling` is the caller's business."""
        del sampling
        # A head padded beyond the table must not choose what has no embedding.
        return Logits(self._backend.head()[: self.limits.vocab_size])

    def _close(self) -> None:
        self._closing.close()

    def _run_piece(self, piece: Piece, tokens: _Tokens, row: int, should_stop: StopCheck) -> None:
        if piece.group is not None:
            self._backend.prefill(
                piece.group, tokens.embeds, tokens.positions, row, should_stop, tokens.deepstack
            )
            return
        for i, embed in enumerate(tokens.embeds):
            check_stop(should_stop)
            deepstack = tokens.deepstack and tokens.deepstack.only(i)
            self._run_step(embed, tokens.positions[..., i : i + 1], row + i, deepstack)

    def _run_step(
        self,
        embed: NDArray[np.uint16],
        position: NDArray[np.uint32],
        row: int,
        deepstack: Deepstack | None,
    ) -> None:
        self._backend.step(self._planner.decode_group(row), embed, position, row, deepstack)

    def _added(
        self, part: PromptPart, rows: slice, features: Mapping[int, VisionFeatures]
    ) -> Deepstack | None:
        """Gather what the first layers add to some tokens of a part; None = nothing."""
        layers = self.limits.deepstack_layers
        if not layers:
            return None
        piece = part.slice(rows.start, rows.stop)
        return deepstack_rows(piece, features, layers, self._shapes.hidden)

    def _splice(
        self, part: PromptPart, features: Mapping[int, VisionFeatures]
    ) -> NDArray[np.uint16]:
        """Look up the words and put the features over the placeholders."""
        embeds = self._table.look_up(part.tokens)
        for span in part.spans:
            rows = rows_of(span, features)
            is_bits = rows.dtype == np.uint16
            embeds[span.start : span.stop] = rows if is_bits else to_bf16(rows.astype(np.float32))
        return embeds

    def _positions(self, part: PromptPart) -> NDArray[np.uint32]:
        positions = part.positions.astype(np.uint32)
        if self._position_rows > 1:
            positions = np.broadcast_to(positions, (self._position_rows, len(part)))
        return positions
