"""The laws of an engine, written once: what is refused, and what an error leaves behind.

An engine's public calls stand here; a chip's engine brings the steps below them. So these hold for
every chip, by construction:

* A closed engine refuses everything; closing twice is safe.
* What cannot be appended is refused before anything is done: tokens that do not fit the context,
  ids and positions that the model does not know, features that do not belong to the prompt.
* Whatever fails or is given up, the KV cache holds what it held before: only a step that came to
  its end is counted in.
* The head runs on the last token of the cache or not at all: after a cut, after a step that did
  not come to its end, and after one in another slot of the cache, a token must be appended first.
* Slots of the KV cache know nothing of each other: all that is said here holds for each of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping

from edge_vlm_ros.core import (
    BadRequestError,
    EdgeVlmError,
    EngineLimits,
    ErrorCode,
    NotReadyError,
    PromptPart,
    SamplingOptions,
    VisionFeatures,
    VisionInputs,
    text_part,
)
from edge_vlm_ros.engines.base import Logits, NextToken, StopCheck, never
from edge_vlm_ros.engines.checks import (
    check_fits,
    check_ids,
    check_positions,
    check_spans,
    check_stop,
    even_pieces,
)
from edge_vlm_ros.engines.kv_length import KvLength


class GuardedEngine(ABC):
    """An `Engine` whose steps are a subclass's and whose guards are here. One thread calls it.

    Args:
        limits: Bounds and abilities, read from the model's files.
        slots: How much each slot of the cache holds; the selected one grows by what `_append` and
            `_step` appended.
    """

    def __init__(self, limits: EngineLimits, *slots: KvLength) -> None:
        assert len(slots) == limits.kv_slots, (len(slots), limits.kv_slots)
        self._limits = limits
        self._slots = slots
        self._slot = 0
        self._scored: tuple[int, int] | None = None
        """Slot and length when the last token was appended; None = the head has nothing to run on.

        One for all slots: a chip keeps one hidden state, that of the last run.
        """
        self._is_open = True

    # --- what an engine is asked -----------------------------------------------------------------

    @property
    def limits(self) -> EngineLimits:
        """Bounds and abilities, read from the model's files."""
        return self._limits

    @property
    def kv(self) -> KvLength:
        """The KV cache: the slot of it that is selected."""
        return self._slots[self._slot]

    def select_kv(self, slot: int) -> None:
        """Choose a slot of the KV cache; see `Engine.select_kv`."""
        self._check_open()
        if not 0 <= slot < self._limits.kv_slots:
            raise ValueError(
                f'there is no slot {slot} of the KV cache: '
                f'this engine has {self._limits.kv_slots}, counted from 0'
            )
        if slot != self._slot:
            self._select(slot)
            self._slot = slot

    def encode(self, inputs: VisionInputs) -> VisionFeatures:
        """Run vision tower and projector on one image; see `Engine.encode`."""
        self._check_open()
        features = self._encode(inputs)
        if features.tokens != inputs.tokens:
            raise EdgeVlmError(
                f'the vision tower gave {features.tokens} rows, '
                f'the prompt has room for {inputs.tokens}'
            )
        return features

    def usable_prefix(
        self, shared: int, prompt: PromptPart, at_hand: Container[int] | None = None
    ) -> int:
        """Say how much of a prefix in the KV cache to go on from; see `Engine.usable_prefix`."""
        self._check_open()
        if not self._limits.can_extend_prefix:
            return 0
        return self._usable_prefix(shared, prompt, at_hand)

    def plan_prefill(self, tokens: int, held: int | None = None) -> tuple[int, ...]:
        """Cut the next `tokens` tokens into the cheapest pieces; see `Engine.plan_prefill`."""
        self._check_open()
        held = self.kv.length if held is None else held
        check_fits(tokens, held, self._limits)
        return self._plan(tokens, held) if tokens else ()

    def prefill(
        self,
        part: PromptPart,
        features: Mapping[int, VisionFeatures],
        should_stop: StopCheck = never,
    ) -> None:
        """Append a prompt part to the KV cache; on an error the cache is as before."""
        self._check_open()
        if not len(part):
            return
        self._check_part(part)
        self._check_piece(part, features)
        self._scored = None
        check_stop(should_stop)
        self._append(part, features, should_stop)
        self._count(len(part))

    def next_token(self, sampling: SamplingOptions) -> NextToken:
        """Run the head on the last token appended; see `Engine.next_token`."""
        self._check_head()
        return self._head(sampling)

    def logits(self) -> Logits:
        """Run the head on the last token appended, for its scores; see `Engine.logits`."""
        self._check_head()
        if not self._limits.has_logits:
            raise BadRequestError(
                'this engine chooses tokens on the chip and gives no scores',
                ErrorCode.UNSUPPORTED_OPTION,
            )
        return self._scores()

    def decode(self, token: int, position: int) -> None:
        """Append one answer token to the KV cache; on an error the cache is as before."""
        self._check_open()
        limits = self._limits
        check_fits(1, self.kv.length, limits)
        check_ids(token, token, limits)
        check_positions(position, position, limits)
        self._scored = None
        self._step(token, position)
        self._count(1)

    def close(self) -> None:
        """Free the model's memory; safe to call twice."""
        if self._is_open:
            self._is_open = False
            self._scored = None
            for slot in self._slots:
                slot.truncate(0)
            self._close()

    # --- what a chip's engine brings -------------------------------------------------------------

    @property
    @abstractmethod
    def _position_rows(self) -> int:
        """Rows of positions that the model takes: 1, or 3 for M-RoPE."""

    def _select(self, slot: int) -> None:
        """Turn to another slot, `self._slot` until this returns; on an error nothing changed.

        For engines whose rows lie where they cannot be named by the slot alone, and such as have
        to take memory first.
        """
        del slot

    @abstractmethod
    def _encode(self, inputs: VisionInputs) -> VisionFeatures:
        """Run the vision tower; refuse pixels that it does not take."""

    def _usable_prefix(
        self, shared: int, prompt: PromptPart, at_hand: Container[int] | None
    ) -> int:
        """Say how much of a prefix to go on from: all, where a longer one is always cheaper."""
        del prompt, at_hand
        return shared

    def _plan(self, tokens: int, held: int) -> tuple[int, ...]:
        """Cut `tokens` tokens after `held`: into chunks of one size."""
        del held
        return even_pieces(tokens, self._limits.prefill_chunk)

    def _check_piece(self, part: PromptPart, features: Mapping[int, VisionFeatures]) -> None:
        """Refuse what else cannot be appended: features that are not the prompt's."""
        limits = self._limits
        check_spans(part, features, limits.hidden_size, limits.deepstack_layers)

    @abstractmethod
    def _append(
        self, part: PromptPart, features: Mapping[int, VisionFeatures], should_stop: StopCheck
    ) -> None:
        """Write the rows of a checked part after those that `kv.length` counts."""

    def _step(self, token: int, position: int) -> None:
        """Write the row of one answer token after those that `kv.length` counts."""
        self._append(text_part((token,), position), {}, never)

    @abstractmethod
    def _head(self, sampling: SamplingOptions) -> NextToken:
        """Run the head on the last row written."""

    def _scores(self) -> Logits:
        """Run the head for its scores: where no net chooses, it gives nothing else."""
        scores = self._head(SamplingOptions())
        assert isinstance(scores, Logits)
        return scores

    @abstractmethod
    def _close(self) -> None:
        """Free the model's memory; called once."""

    # --- guards ----------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if not self._is_open:
            raise NotReadyError('the engine is closed')

    def _check_head(self) -> None:
        self._check_open()
        if self._scored != (self._slot, self.kv.length):
            raise EdgeVlmError('no token was appended since the KV cache was cut')

    def _check_part(self, part: PromptPart) -> None:
        limits, held = self._limits, self.kv.length
        check_fits(len(part), held, limits)
        if held and not limits.can_extend_prefix:
            raise EdgeVlmError(f'prefill after {held} cached tokens: this engine cannot extend')
        check_ids(int(part.tokens.min()), int(part.tokens.max()), limits)
        check_positions(int(part.positions.min()), int(part.positions.max()), limits)
        if part.positions.ndim > 1 and self._position_rows == 1:
            raise EdgeVlmError('the prompt has three rows of positions, this model takes one')

    def _count(self, tokens: int) -> None:
        """Count rows in that were written to their end."""
        self.kv.grow(tokens)
        self._scored = (self._slot, self.kv.length)
