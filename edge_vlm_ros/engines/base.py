"""What every chip's engine can do. One thread, the `ChipWorker`'s, calls all of it."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import (
    EngineLimits,
    PromptPart,
    SamplingOptions,
    VisionFeatures,
    VisionInputs,
)


@dataclass(frozen=True, slots=True)
class Logits:
    """Scores of the next token, to be sampled on the host.

    Attributes:
        values: float32, (vocabulary,); valid until the engine's next call.
    """

    values: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ChosenToken:
    """The next token, already chosen on the chip."""

    token: int


NextToken: TypeAlias = 'Logits | ChosenToken'

StopCheck: TypeAlias = Callable[[], bool]
"""Asked on the engine's thread wherever a long step can be given up; True = give it up."""

OnLoaded: TypeAlias = Callable[[int, int], None]
"""Called on the engine's thread while a model loads: parts loaded, parts in all.

Before each part it may be called again with the same numbers: to ask whether to go on. Raises
CancelledError to stop the load there; an engine frees what it has loaded, and lets that pass.
"""


def ignore_progress(loaded: int, total: int) -> None:
    """Let the progress of a load pass: the `OnLoaded` of who does not follow it."""


def never() -> bool:
    """The `StopCheck` of a step that nobody gives up."""
    return False


class KVCache(Protocol):
    """A handle on the engine's KV cache: tokens are appended to it, and there are ways back.

    To cut is one ability, snapshots are another:

    * Rows of keys and values can be cut anywhere (`limits.can_truncate`): a token's rows are its
      own. Snapshots are not needed then, and to take one does nothing.
    * The state of linear attention is one for all tokens so far. Such a cache goes on, is dropped
      (`truncate(0)`), or goes back to a length at which a snapshot was taken; it keeps
      `limits.snapshots` of them in each slot, all on the way to what it holds now. What lies after
      the length that it goes back to is forgotten, snapshots too. So rows that the same model has
      beside its state need not be copied: they stay where they are.
    """

    @property
    def length(self) -> int:
        """Tokens the cache holds."""
        ...

    def truncate(self, length: int) -> None:
        """Forget every token from `length` on. Nothing is cleared; a snapshot may be copied back.

        Raises:
            ValueError: `length` is negative or above the present length, or the cache cannot go
                back to it: it is neither 0 nor a snapshot's.
            DeviceError: The chip failed.
        """
        ...

    def take_snapshot(self) -> None:
        """Have `truncate` go back to the present length from now on; once is enough.

        Raises:
            ValueError: As many as there may be are kept.
            DeviceError: There is no memory for it; all else is as before.
        """
        ...

    def drop_snapshot(self, length: int) -> None:
        """Give up the snapshot of a length, if there is one."""
        ...


class Engine(Protocol):
    """One model on one chip. Every call but `close` raises NotReadyError once it is closed."""

    @property
    def limits(self) -> EngineLimits:
        """Bounds and abilities, read from the model's files."""
        ...

    @property
    def kv(self) -> KVCache:
        """The KV cache: the slot of it that is selected."""
        ...

    def select_kv(self, slot: int) -> None:
        """Choose the slot of the KV cache that the calls after this one are about.

        Slots keep their rows independently: what happens in one, errors too, leaves the others as
        they are. The first is selected when an engine is opened. A slot's memory is taken when it
        is selected or written to for the first time, and kept.

        Args:
            slot: From 0, below `limits.kv_slots`.

        Raises:
            ValueError: There is no such slot.
            DeviceError: There is no memory for its rows; the slot that was selected still is.
        """
        ...

    def encode(self, inputs: VisionInputs) -> VisionFeatures:
        """Run vision tower and projector on one frame.

        Raises:
            EdgeVlmError: The pixels are not what the tower takes, or give another number of rows
                than the prompt has room for.
            DeviceError: The chip failed.
        """
        ...

    def usable_prefix(
        self, shared: int, prompt: PromptPart, at_hand: Container[int] | None = None
    ) -> int:
        """Say how much of a prefix in the KV cache to go on from for a prompt.

        Less than `shared` where the rest could not be appended after it, or where it is cheaper
        with some of the prefix run again, be it from the start or from a chunk's border; 0 where
        `limits.can_extend_prefix` says that nothing goes on. Of a cache that cannot be cut, the
        caller goes back to the snapshot at that length or before.

        Args:
            shared: Tokens that the cache holds and the prompt begins with; below its length.
            prompt: The whole prompt.
            at_hand: Images of the prompt whose features the caller has: to run others again costs
                a run of the vision tower. None = not known.

        Returns:
            Tokens to keep, `shared` at most.
        """
        ...

    def plan_prefill(self, tokens: int, held: int | None = None) -> tuple[int, ...]:
        """Cut the next `tokens` tokens, after what the cache holds, into the cheapest pieces.

        Each piece is one call of `prefill`, between which a cancel and other work get in. This is
        the one place where a prompt is cut.

        Args:
            tokens: How many.
            held: Tokens that the cache would hold before them; None = what it holds now.

        Returns:
            Tokens of each piece, in order; they add up to `tokens`.

        Raises:
            PromptTooLongError: They do not fit after what the cache holds.
        """
        ...

    def prefill(
        self,
        part: PromptPart,
        features: Mapping[int, VisionFeatures],
        should_stop: StopCheck = never,
    ) -> None:
        """Append a prompt part to the KV cache.

        Args:
            part: Tokens, positions and vision spans; follows what the cache holds; a piece of
                `plan_prefill`. Some engines take longer ones, too, none has to.
            features: By `VisionSpan.image`; at least those that the part's spans name.
            should_stop: Asked before anything is run, and between layers by engines that run them
                one by one.

        Raises:
            PromptTooLongError: The part does not fit after what the cache holds, or is longer than
                what the engine runs at once there.
            CancelledError: `should_stop` said so; the cache holds what it held before.
            EdgeVlmError: The part's ids, positions or features are not the model's.
            DeviceError: The chip failed.
        """
        ...

    def next_token(self, sampling: SamplingOptions) -> NextToken:
        """Run the head on the last token appended (by prefill or decode).

        Raises:
            EdgeVlmError: The cache was cut since, what was to be appended last failed, or the
                last token was appended in another slot of the cache.
            DeviceError: The chip failed.
        """
        ...

    def logits(self) -> Logits:
        """Run the head on the last token appended, for its scores, also where nets choose.

        Raises:
            BadRequestError: The head gives none (`limits.has_logits`; UNSUPPORTED_OPTION).
            EdgeVlmError: As `next_token`.
            DeviceError: The chip failed.
        """
        ...

    def decode(self, token: int, position: int) -> None:
        """Append one answer token to the KV cache: one decode step, without the head.

        Args:
            token: Its id.
            position: Its position, as `PromptPart.next_position` counts.

        Raises:
            PromptTooLongError: The context is full, or the position past its last one.
            EdgeVlmError: The model does not know the id.
            DeviceError: The chip failed.
        """
        ...

    def close(self) -> None:
        """Free the chip's memory; safe to call twice."""
        ...
