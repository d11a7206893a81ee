"""The Sophgo engine: bmodels of every contract, driven through sophon-sail."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import (
    BadRequestError,
    DeviceError,
    EdgeVlmError,
    ModelFiles,
    PromptPart,
    SamplingOptions,
    VisionFeatures,
    VisionInputs,
    text_part,
)
from edge_vlm_ros.engines.base import Logits, NextToken, StopCheck
from edge_vlm_ros.engines.checks import check_piece
from edge_vlm_ros.engines.guarded import GuardedEngine
from edge_vlm_ros.engines.kept_costs import settle
from edge_vlm_ros.engines.kv_length import KvLength
from edge_vlm_ros.engines.sophgo.caches import make_caches
from edge_vlm_ros.engines.sophgo.contract import Contract
from edge_vlm_ros.engines.sophgo.costs import Bench, measure_costs
from edge_vlm_ros.engines.sophgo.decode import DecodeStack
from edge_vlm_ros.engines.sophgo.embedding import (
    ChipEmbedding,
    DiskEmbedding,
    Embedding,
    TokenSlot,
)
from edge_vlm_ros.engines.sophgo.layers import LayerKind
from edge_vlm_ros.engines.sophgo.masks import from_host
from edge_vlm_ros.engines.sophgo.model_files import find_embedding_table
from edge_vlm_ros.engines.sophgo.plan import PieceRule, Planner, RunCosts
from edge_vlm_ros.engines.sophgo.prefill.form import Run
from edge_vlm_ros.engines.sophgo.runtime import Runtime
from edge_vlm_ros.engines.sophgo.slots import ParkedRows, offer_slots
from edge_vlm_ros.engines.sophgo.tensors import DeviceTensor


class SophgoEngine(GuardedEngine):
    """One bmodel on one chip. One thread calls all of it.

    Args:
        runtime: The loaded bmodel; this engine frees it.
        contract: What it holds.
        vocab: Ids that its embedding knows.
        files: The model's.
        kv_slots: Slots of the KV cache that are wanted; see `slots.offer_slots`.
        before_run: Called before each run that is timed; raises CancelledError to stop the load.

    Raises:
        ModelFileError: A file that belongs to it is missing or does not fit.
        DeviceError: The chip has too little memory, or failed.
    """

    def __init__(  # noqa: PLR0913 (what a model is made of)
        self,
        runtime: Runtime,
        contract: Contract,
        vocab: int,
        files: ModelFiles,
        kv_slots: int = 0,
        *,
        before_run: Callable[[], None] = lambda: None,
    ) -> None:
        self._runtime = runtime
        self._parts = _Parts(runtime, contract, files)
        self._row: DeviceTensor | None = None
        self._encode_s = 0.0
        slots = offer_slots(kv_slots, contract.decoder, runtime.free_bytes())
        limits = replace(contract.limits(vocab), kv_slots=slots)
        super().__init__(limits, *(KvLength() for _ in range(slots)))
        self.plan_by(self._measure(files, before_run))

    def plan_by(self, costs: RunCosts) -> None:
        """Choose the ways to append by these costs from now on."""
        prefill = self._parts.prefill
        self._planner = Planner(
            costs, PieceRule(prefill.room, prefill.history, may_step=prefill.may_step)
        )

    def last_hidden(self) -> NDArray[np.float32]:
        """Read the last token's hidden state, (hidden,): what tests compare, and diagnosis."""
        self._check_open()
        if self._row is None:
            raise EdgeVlmError('no token was appended yet')
        return from_host(self._row.read(), self._row.dtype)

    @property
    def _position_rows(self) -> int:
        return self._parts.contract.decoder.position_rows

    def _select(self, slot: int) -> None:
        parked, old, new = self._parts.parked, self._slots[self._slot], self._slots[slot]
        parked.make_room(slot)
        try:
            parked.change(self._slot, old.length, slot, new.length)
        except DeviceError:
            old.truncate(0)
            new.truncate(0)
            raise

    def _encode(self, inputs: VisionInputs) -> VisionFeatures:
        """Run the vision tower; rows come back in the language model's half type."""
        if self._parts.tower is None:
            raise BadRequestError('this bmodel has no vision tower: it takes text only')
        started_s = time.monotonic()
        features = self._parts.tower.encode(inputs)
        self._encode_s = time.monotonic() - started_s
        return features

    def _usable_prefix(
        self, shared: int, prompt: PromptPart, at_hand: Container[int] | None
    ) -> int:
        """Go on from a prefix, or from where the prefill nets can still begin if that is cheaper.

        After a prefix, static and dynamic builds go on token by token: a new frame would take
        hundreds of steps where starting again takes one run. Images that are run again cost a run
        of the vision tower each unless their features are at hand, or it is not known.
        """
        parts = self._parts
        shared = parts.images.usable_prefix(shared, prompt)

        def encodes_s(at: int) -> float:
            again = (span.image for span in prompt.spans if at < span.stop and span.start < shared)
            lacking = {image for image in again if at_hand is not None and image not in at_hand}
            return self._encode_s * len(lacking)

        if len(prompt) > self.limits.context_tokens:
            return shared
        return self._planner.keep(shared, len(prompt), encodes_s)

    def _plan(self, tokens: int, held: int) -> tuple[int, ...]:
        """Cut tokens into pieces; pieces of one token run the decode nets."""
        return self._planner.plan(held, tokens)

    def _check_piece(self, part: PromptPart, features: Mapping[int, VisionFeatures]) -> None:
        """Refuse what no run of the nets takes, and images that cannot be shown there."""
        parts, held = self._parts, self.kv.length
        check_piece(len(part), max(1, parts.prefill.room(held)))
        parts.images.check(part, features, held)

    def _append(
        self, part: PromptPart, features: Mapping[int, VisionFeatures], should_stop: StopCheck
    ) -> None:
        """Append one piece: one token by a step unless an image is shown in it, else by a run."""
        parts, held = self._parts, self.kv.length
        shape = (self._position_rows, len(part))
        positions = np.broadcast_to(part.positions, shape).astype(np.int32)
        is_shown = parts.images.show(part, features, held)
        if len(part) == 1 and not is_shown:
            rows = parts.images.rows_of_token(part, features)
            self._run_step(int(part.tokens[0]), rows, positions[:, 0])
            return
        parts.embedding.prompt(part.tokens, parts.prefill.hidden)
        parts.images.splice(part, features, parts.prefill.hidden)
        hidden = parts.prefill.run(Run(held, positions, should_stop))
        width = parts.contract.decoder.hidden
        self._row = hidden.view((1, width), (len(part) - 1) * width)

    def _step(self, token: int, position: int) -> None:
        self._run_step(token, (), np.full(self._position_rows, position, np.int32))

    def _head(self, sampling: SamplingOptions) -> NextToken:
        assert self._row is not None
        return self._parts.head.next_token(self._row, sampling, self.kv.length)

    def _scores(self) -> Logits:
        assert self._row is not None
        return self._parts.head.logits(self._row)

    def _close(self) -> None:
        self._row = None
        del self._parts
        self._runtime.close()

    def _run_step(
        self, token: int, features: tuple[NDArray[Any], ...], positions: NDArray[np.int32]
    ) -> None:
        """Run one token, or the features that take its place, through the decode nets."""
        parts, held = self._parts, self.kv.length
        parts.images.settle(held)
        if features:
            parts.decode.hidden.write(features[0])
        else:
            parts.embedding.step(token)
        parts.decode.run(held, positions, features[1:])
        self._row = parts.decode_row

    def _measure(self, files: ModelFiles, before_run: Callable[[], None]) -> RunCosts:
        """Time pieces and steps on a cache of which no row counts, before nor after."""
        parts, decoder = self._parts, self._parts.contract.decoder

        def run_piece(held: int, tokens: int, should_stop: StopCheck) -> None:
            part = text_part([0] * tokens, 0)
            positions = np.broadcast_to(part.positions, (self._position_rows, tokens))
            parts.images.show(part, {}, held)
            parts.embedding.prompt(part.tokens, parts.prefill.hidden)
            parts.prefill.run(Run(held, positions.astype(np.int32), should_stop))

        def run_step(held: int) -> None:
            parts.images.settle(0)
            parts.embedding.step(0)
            parts.decode.run(held, np.zeros(self._position_rows, np.int32))

        form = parts.contract.prefill
        held = max(0, min(parts.prefill.history, decoder.context - form.rows))
        bench = Bench(
            layers=decoder.kinds.count(LayerKind.SELF),  # the others have no image to run on
            rows=min(form.rows, parts.prefill.room(held)),
            held=held,
            capacities=sorted(decoder.capacities),
            is_fixed=form.is_fixed,
            run_piece=run_piece,
            run_step=run_step,
            before_run=before_run,
        )
        return measure_costs(bench, partial(settle, files=files, how='runtime'))


class _Parts:
    """All that lives on the chip; gone once the engine is closed."""

    def __init__(self, runtime: Runtime, contract: Contract, files: ModelFiles) -> None:
        decoder, tower = contract.decoder, contract.tower
        self.contract = contract
        caches = make_caches(runtime, decoder)
        self.parked = ParkedRows(runtime, decoder, caches)
        self.prefill = contract.prefill.start(runtime, decoder, caches)
        self.images = self.prefill.images
        self.decode = DecodeStack(runtime, decoder, caches, self.images)
        self.decode_row = self.decode.hidden.view((1, decoder.hidden))
        slot = TokenSlot(runtime)
        self.embedding = _make_embedding(runtime, contract, files, slot, self.decode.hidden)
        self.head = contract.head.start(runtime, self.decode_row, slot)
        self.tower = None if tower is None else tower.start(runtime, decoder.half)


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
