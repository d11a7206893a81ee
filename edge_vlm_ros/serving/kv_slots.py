"""Which of the engine's KV caches a prompt goes into, and how much of it is there already.

Most engines have one cache. Where there are more, a prefix that starts over is made in another one
than the whole prefix that still answers, and a question about something else leaves it alone.

A cache that cannot be cut goes back to snapshots (`engines.base.KVCache`). They are taken while a
prompt is appended, at its `places`: where the question's words begin, and where it leaves what the
caches held before, since the next one is likely to leave it there, too. So a prompt is cut into
pieces there. Where there are too many, the one goes that saves the fewest tokens.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_vlm_ros.core import DeviceError, EdgeVlmError, ShownAs
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
        shared: Tokens at its start that the cache held, and could go back to.
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
        limits = engine.limits
        self._snapshots = 0 if limits.can_truncate else limits.snapshots
        self._records = [
            KvRecord(can_truncate=limits.can_truncate) for _ in range(limits.kv_slots)
        ]
        self._used = [0] * len(self._records)
        self._uses = 0
        self._slot = 0
        self._prefix_slot = -1
        self._prefix_tokens = 0
        self._places: set[int] = set()

    @property
    def can_go_back(self) -> bool:
        """Whether a part of an answer can be taken back: its caches can be cut, or restored."""
        return self._engine.limits.can_truncate or self._snapshots > 0

    def look(self, prompt: PromptPart, keys: Sequence[FeatureKey]) -> int:
        """Count the tokens at the start of a prompt that `begin` would go on from."""
        slot, held = self._slot_for(self._shared(prompt, keys), len(prompt) - 1)
        return self._records[slot].reachable(self._usable(held, prompt, keys))

    def begin(self, prompt: PromptPart, keys: Sequence[FeatureKey], words: int) -> Begun:
        """Choose a cache for a question's prompt, and cut it to what the two share.

        Args:
            prompt: All of it.
            keys: Of the conversation's frames; `VisionSpan.image` is an index into them.
            words: Tokens at its end that are the question's words, and what follows them.
        """
        shared = self._shared(prompt, keys)
        last = len(prompt) - 1  # It is always run: its scores choose the answer's first token.
        self._places = {min(max(shared), last), len(prompt) - words}
        slot, held = self._slot_for(shared, last)
        is_all = self._records[slot].reachable(shared[slot]) == shared[slot]
        return Begun(shared[slot] if is_all else held, self._cut(slot, held, prompt, keys))

    def begin_ahead(self, prompt: PromptPart, keys: Sequence[FeatureKey]) -> Begun:
        """Choose a cache for a prefix, and cut it, unless all of the prefix is there.

        Args:
            prompt: The prefix.
            keys: As in `begin`.
        """
        found = self._shared(prompt, keys)
        self._places = {max(found), len(prompt), *_grows_from(prompt, keys)}
        shared = self._reachable(found, len(prompt))
        slot = max(range(len(shared)), key=shared.__getitem__)
        before = max(0, self._prefix_tokens - CLOSING_TOKENS)
        if slot == self._prefix_slot and shared[slot] < before:
            slot = self._spare_slot()  # A new start: the old prefix answers meanwhile.
        held = shared[slot]
        if held == len(prompt):
            self._select(slot)
            self._note_place()
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
        self._note_place()

    def plan(self, prompt: PromptPart) -> tuple[int, ...]:
        """Ask in which pieces the engine wants what the chosen cache lacks of a prompt.

        Raises:
            EdgeVlmError: They are not what the prompt lacks.
        """
        held = at = self._engine.kv.length
        missing = len(prompt) - held
        pieces: list[int] = []
        places = self._places if self._snapshots else ()
        stops = sorted({*(place for place in places if held < place < len(prompt)), len(prompt)})
        for stop in stops:
            tokens = stop - at
            plan = self._engine.plan_prefill
            pieces += plan(tokens) if at == held else plan(tokens, at)
            at = stop
        if sum(pieces) != missing or min(pieces, default=1) < 1:
            raise EdgeVlmError(f'the engine wants {missing} tokens in pieces of {tuple(pieces)}')
        return tuple(pieces)

    def cut(self, length: int) -> int:
        """Forget tokens of an answer in the chosen cache: every token from `length` on.

        Returns:
            The tokens that are left; fewer than `length` where it could not go back there.
        """
        left = self._records[self._slot].reachable(length)
        self._engine.kv.truncate(left)
        self._records[self._slot].truncate(left)
        return left

    def keep(self) -> None:
        """See to it that the chosen cache can go back to where it is now."""
        record = self._records[self._slot]
        if not self._snapshots or record.length in record.snapshots:
            return
        if len(record.snapshots) >= self._snapshots:
            self._drop_one(record)
        try:
            self._engine.kv.take_snapshot()
        except DeviceError as error:
            _log.warning('no more snapshots of the KV cache are taken: %s', error.message)
            self._snapshots = len(record.snapshots)
            return
        record.snapshots.add(record.length)

    def reset(self) -> None:
        """Forget all that the caches hold: after an error nobody knows what that is."""
        self._prefix_slot, self._prefix_tokens = -1, 0
        self._places = set()
        for slot, record in enumerate(self._records):
            record.truncate(0)
            try:
                self._select(slot)
                self._engine.kv.truncate(0)
            except BaseException:  # noqa: BLE001 (vendor libraries raise anything)
                _log.exception('the KV cache cannot be reset')

    def _note_place(self) -> None:
        """Keep what the chosen cache holds, if it is worth going back to."""
        if self._records[self._slot].length in self._places:
            self.keep()

    def _drop_one(self, record: KvRecord) -> None:
        """Give up the snapshot that saves the fewest tokens, other than the prefix's."""
        is_prefix = record is self._records[self._prefix_slot]
        saved = [0, *sorted(record.snapshots)]
        tokens = {
            after: after - before
            for before, after in itertools.pairwise(saved)
            if not (is_prefix and after == self._prefix_tokens)
        }
        least = min(tokens or record.snapshots, key=lambda at: (tokens.get(at, 0), at))
        self._engine.kv.drop_snapshot(least)
        record.snapshots.discard(least)
        if is_prefix and least == self._prefix_tokens:
            self._prefix_slot, self._prefix_tokens = -1, 0

    def _shared(self, prompt: PromptPart, keys: Sequence[FeatureKey]) -> list[int]:
        """Count what each cache holds of a prompt."""
        return [record.shared(prompt, keys) for record in self._records]

    def _reachable(self, shared: Sequence[int], most: int) -> list[int]:
        """Count what of that each could go on from."""
        pairs = zip(self._records, shared, strict=True)
        return [record.reachable(min(held, most)) for record, held in pairs]

    def _slot_for(self, found: Sequence[int], most: int) -> tuple[int, int]:
        """Return which cache a question's prompt goes into, and how much of it is there."""
        shared = self._reachable(found, most)
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
        reused = self._records[slot].reachable(self._usable(shared, prompt, keys))
        self._engine.kv.truncate(reused)
        self._records[slot].truncate(reused)
        if slot == self._prefix_slot and reused < self._prefix_tokens:
            self._prefix_slot, self._prefix_tokens = -1, 0
        return reused


def _grows_from(prompt: PromptPart, keys: Sequence[FeatureKey]) -> tuple[int, ...]:
    """Return where a prefix would go on with another frame, if that is before its end."""
    if not prompt.spans or keys[prompt.spans[-1].image].shown_as is not ShownAs.VIDEO:
        return ()
    return (prompt.spans[-1].stop,)
