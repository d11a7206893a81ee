"""The Sophgo engine: bmodels of every contract, driven through sophon-sail."""

from __future__ import annotations

import time
from collections.abc import Container, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import (
    BadRequestError,
    EdgeVlmError,
    ModelFiles,
    PromptPart,
    SamplingOptions,
    VisionFeatures,
    VisionInputs,
)
from edge_vlm_ros.engines.base import NextToken, StopCheck
from edge_vlm_ros.engines.checks import check_piece
from edge_vlm_ros.engines.guarded import GuardedEngine
from edge_vlm_ros.engines.kv_length import KvLength
from edge_vlm_ros.engines.sophgo.caches import make_caches
from edge_vlm_ros.engines.sophgo.contract import Contract
from edge_vlm_ros.engines.sophgo.decode import DecodeStack
from edge_vlm_ros.engines.sophgo.embedding import (
    ChipEmbedding,
    DiskEmbedding,
    Embedding,
    TokenSlot,
)
from edge_vlm_ros.engines.sophgo.masks import from_host
from edge_vlm_ros.engines.sophgo.model_files import find_embedding_table
from edge_vlm_ros.engines.sophgo.plan import StepCosts, cut
from edge_vlm_ros.engines.sophgo.prefill.form import Run
from edge_vlm_ros.engines.sophgo.runtime import Runtime
from edge_vlm_ros.engines.sophgo.tensors import DeviceTensor


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
        self._costs = StepCosts()
        self._parts = _Parts(runtime, contract, files)
        self._row: DeviceTensor | None = None
        super().__init__(contract.limits(vocab), KvLength())

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

    def _usable_prefix(
        self, shared: int, prompt: PromptPart, at_hand: Container[int] | None
    ) -> int:
        """Go on from a prefix unless what follows needs the prefill nets and they start at row 0.

        After a prefix, static and dynamic builds go on token by token: a new frame would take
        hundreds of steps where starting again takes one run.
        """
        del at_hand
        parts = self._parts
        shared = parts.images.usable_prefix(shared, prompt)
        rest, room = len(prompt) - shared, parts.prefill.room
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
            row = parts.images.row_of(part, features)
            self._run_step(int(part.tokens[0]), row, positions[:, 0])
            return
        started_s = time.monotonic()
        parts.embedding.prompt(part.tokens, parts.prefill.hidden)
        parts.images.splice(part, features, parts.prefill.hidden)
        hidden = parts.prefill.run(Run(held, positions, should_stop))
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
        decoder, tower = contract.decoder, contract.tower
        self.contract = contract
        caches = make_caches(runtime, decoder)
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
