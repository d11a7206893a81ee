"""Which of the engine's KV caches a prompt goes into, and how much of it is there already.

Most engines have one cache. Where there are more, a prefix that starts over is made in another one
than the whole prefix that still answers, and a question about something else leaves it alone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_vlm_ros.core import DeviceError
from edge_vlm_ros.serving.kv_record import KvRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_vlm_ros.core import FeatureKey, PromptPart
    from edge_vlm_ros.engines import Engine

_log = logging.getLogger(__name__)

CLOSING_TOKENS = 4
"""A prefix that loses no more goes on: a video grows before the tokens that it ends in."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A prompt that goes into a cache.

    Attributes:
        shared: Tokens at its start that the cache held.
        reused: Those of them that the engine goes on from.
        is_restart: A prefix does not go on from the whole one before it.
    """

    shared: int
    reused: int
    is_restart: bool = False


class KvSlots:
    """The engine's KV caches and what is in them. The `ChipWorker`'s thread alone uses it.

    Args:
        engine: Whose caches they are.
        has_features: Whether the features under a key are kept.
    """

    def __init__(self, engine: Engine, has_features: Callable[[FeatureKey], bool]) -> None:
        self._engine = engine
        self._has_features = has_features
        self._records = [KvRecord() for _ in range(engine.limits.kv_slots)]
        self._used = [0] * len(self._records)
        self._uses = 0
        self._slot = 0
        self._prefix_slot = -1
        self._prefix_tokens = 0

    def look(self, prompt: PromptPart, keys: Sequence[FeatureKey]) -> int:
        """Count the tokens at the start of a prompt that `begin` would go on from."""
        _, held = self._slot_for(prompt, keys)
        return self._usable(min(held, len(prompt) - 1), prompt, keys)

    def begin(self, prompt: PromptPart, keys: Sequence[FeatureKey]) -> Begun:
        """Choose a cache for a question's prompt, and cut it to what the two share.

        Args:
            prompt: All of it.
            keys: Of the conversation's frames; `VisionSpan.image` is an index into them.
        """
        slot, held = self._slot_for(prompt, keys)
        # The last token is always run: its scores choose the answer's first token.
        return Begun(held, self._cut(slot, min(held, len(prompt) - 1), prompt, keys))

    def begin_ahead(self, prompt: PromptPart, keys: Sequence[FeatureKey]) -> Begun:
        """Choose a cache for a prefix, and cut it, unless all of the prefix is there.

        Args:
            prompt: The prefix.
            keys: As in `begin`.
        """
        shared = [record.shared(prompt, keys) for record in self._records]
        slot = max(range(len(shared)), key=shared.__getitem__)
        before = max(0, self._prefix_tokens - CLOSING_TOKENS)
        if slot == self._prefix_slot and shared[slot] < before:
            slot = self._spare_slot()  # A new start: the old prefix answers meanwhile.
        held = shared[slot]
        if held == len(prompt):
            self._select(slot)
            return Begun(held, held)
        reused = self._cut(slot, held, prompt, keys)
        # To go back to a chunk's border is no new start.
        is_restart = held < before or (before > 0 and not reused)
        return Begun(held, reused, is_restart)

    def is_whole(self, tokens: int) -> None:
        """Take note that the chosen cache begins with a whole prefix of so many tokens."""
        self._prefix_slot, self._prefix_tokens = self._slot, tokens

    def append(self, part: PromptPart, keys: Sequence[FeatureKey]) -> None:
        """Take note of tokens that were appended to the chosen cache."""
        self._records[self._slot].append(part, keys)

    def cut(self, length: int) -> None:
        """Forget tokens of an answer in the chosen cache: every token from `length` on."""
        self._engine.kv.truncate(length)
        self._records[self._slot].truncate(length)

    def reset(self) -> None:
        """Forget all that the caches hold: after an error nobody knows what that is."""
        self._prefix_slot, self._prefix_tokens = -1, 0
        for slot, record in enumerate(self._records):
            record.truncate(0)
            try:
                self._select(slot)
                self._engine.kv.truncate(0)
            except BaseException:  # noqa: BLE001 (vendor libraries raise anything)
                _log.exception('the KV cache cannot be reset')

    def _slot_for(self, prompt: PromptPart, keys: Sequence[FeatureKey]) -> tuple[int, int]:
        """Return which cache a question's prompt goes into, and how much of it is there."""
        shared = [record.shared(prompt, keys) for record in self._records]
        slot = max(range(len(shared)), key=shared.__getitem__)
        is_dear = slot == self._prefix_slot and 2 * shared[slot] < self._prefix_tokens
        if is_dear or not shared[slot]:  # To cut the prefix would cost more than it saves.
            slot = self._spare_slot()
        return slot, shared[slot]

    def _spare_slot(self) -> int:
        """Return the cache that was not used for longest, other than the prefix's if there is."""
        others = [slot for slot in range(len(self._records)) if slot != self._prefix_slot]
        return min(others or [0], key=self._used.__getitem__)

    def _select(self, slot: int) -> None:
        if slot != self._slot:
            try:
                self._engine.select_kv(slot)
            except DeviceError as error:
                _log.warning('one KV cache is used: %s', error.message)
                del self._records[1:]
                slot = 0
                self._engine.select_kv(slot)
                self._engine.kv.truncate(0)  # Rows may have been lost half-way.
                self._records[slot].truncate(0)
        self._uses += 1
        self._used[slot] = self._uses
        self._slot = slot

    def _usable(self, shared: int, prompt: PromptPart, keys: Sequence[FeatureKey]) -> int:
        at_hand = {image for image, key in enumerate(keys) if self._has_features(key)}
        return self._engine.usable_prefix(shared, prompt, at_hand)

    def _cut(self, slot: int, shared: int, prompt: PromptPart, keys: Sequence[FeatureKey]) -> int:
        """Cut a cache to what the engine goes on from; return how much that is."""
        self._select(slot)
        if self._slot != slot:  # It is not to be had.
            return self._cut(self._slot, 0, prompt, keys)
        reused = self._usable(shared, prompt, keys)
        self._engine.kv.truncate(reused)
        self._records[slot].truncate(reused)
        if slot == self._prefix_slot and reused < self._prefix_tokens:
            self._prefix_slot, self._prefix_tokens = -1, 0
        return reused
