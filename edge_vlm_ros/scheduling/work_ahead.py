"""What is made ahead of any question: the wanted prefix, then the frames that were offered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edge_vlm_ros.scheduling.background import Background
from edge_vlm_ros.scheduling.events import Failed, Prefilled, PrefixWanted, Rendered
from edge_vlm_ros.scheduling.notices import OfferEnded, PrefixFailed, PrefixReady
from edge_vlm_ros.scheduling.offer_queue import OfferQueue, place_of
from edge_vlm_ros.scheduling.prefix_steps import PrefixSteps
from edge_vlm_ros.scheduling.work import (
    Encode,
    FrameOwner,
    Idle,
    Prefill,
    PrefixOwner,
    Prepare,
    Render,
    Work,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge_vlm_ros.core import FeatureKey
    from edge_vlm_ros.scheduling.events import FramesOffered, PrefixForgotten, WorkDone
    from edge_vlm_ros.scheduling.notices import Notice


class Stock(Protocol):
    """What has been made of frames."""

    def is_kept(self, key: FeatureKey) -> bool:
        """Return whether there are features under a key."""
        ...

    def is_prepared(self, key: FeatureKey) -> bool:
        """Return whether there are pixels under a key, to be encoded."""
        ...


class WorkAhead:
    """Chooses the next piece of work that no question needs yet.

    Args:
        max_offered: Offered frames that wait at most.
        background: When it may go on.
    """

    def __init__(self, max_offered: int, background: Background) -> None:
        self._offered = OfferQueue(max_offered)
        self._begun: FeatureKey | None = None
        self._prefix: PrefixSteps | None = None
        self._background = background

    @property
    def prefix_keys(self) -> tuple[FeatureKey, ...]:
        """Frames whose features the wanted prefix needs."""
        return () if self._prefix is None else self._prefix.keys

    def wants(self, key: FeatureKey) -> bool:
        """Return whether pixels under this key are still to be encoded."""
        return key == self._begun or key in self._offered or key in self.prefix_keys

    def offer(
        self, offered: FramesOffered, kept: Iterable[FeatureKey], *, is_held_up: bool
    ) -> list[Notice]:
        """Take an offer.

        Args:
            offered: The frames.
            kept: Those of them that are encoded already.
            is_held_up: A question runs.
        """
        keys = tuple(dict.fromkeys(offered.keys))
        kept = list(kept)
        ended = kept + self._offered.put(keys, settled=(*kept, self._begun))
        notices: list[Notice] = [OfferEnded(key) for key in ended]
        begun = self._begun
        if begun is None or not is_held_up or begun in keys:
            return notices
        # A question holds up the offer that was begun, and a newer one has come.
        is_outdated = place_of(begun) in map(place_of, keys)
        return notices + (self.end_offer(begun) if is_outdated else [])

    def end_offer(self, key: FeatureKey) -> list[Notice]:
        """Do nothing more for what was offered under a key, if it was."""
        if key == self._begun:
            self._begun = None
        elif not self._offered.discard(key):
            return []
        return [OfferEnded(key)]

    def want(self, event: PrefixWanted | PrefixForgotten) -> None:
        """Take a wish, or the end of wishing."""
        self._prefix = PrefixSteps(event) if isinstance(event, PrefixWanted) else None

    def unsettle(self) -> None:
        """Take note that the KV cache may hold something else now."""
        if self._prefix is not None:
            self._prefix.unsettle()

    def answered(self, session_id: str, now_ns: int) -> None:
        """Take note of an answer."""
        self._background.answered(session_id, now_ns)

    def next_work(self, stock: Stock, now_ns: int) -> Work | Idle:
        """Say what to do while no question waits or runs."""
        work = self._next_of_prefix(stock, now_ns)
        if isinstance(work, Idle) and self._begun is None:
            self._begun = self._offered.take()
        if isinstance(work, Idle) and self._begun is not None:
            step = Encode if stock.is_prepared(self._begun) else Prepare
            work = step(FrameOwner(self._begun), self._begun)
        if isinstance(work, Idle) or (self._is_urgent and isinstance(work.owner, PrefixOwner)):
            return work
        rests_until_ns = self._background.rests_until_ns(now_ns)
        return Idle(rests_until_ns) if rests_until_ns else work

    def finish(self, done: WorkDone, started_ns: int) -> list[Notice]:
        """Take note of a piece of work that no question owned."""
        self._background.worked(started_ns, done.took_ns)
        owner = done.work.owner
        if isinstance(owner, PrefixOwner):
            return self._finish_prefix_work(owner, done)
        assert isinstance(owner, FrameOwner)
        return self.end_offer(owner.key) if isinstance(done.outcome, Failed) else []

    @property
    def _is_urgent(self) -> bool:
        return self._prefix is not None and self._prefix.wanted.is_urgent

    def _next_of_prefix(self, stock: Stock, now_ns: int) -> Work | Idle:
        """Say what to do for the prefix; `Idle` = nothing, or nothing yet."""
        prefix = self._prefix
        work = None if prefix is None else prefix.next_work(stock.is_kept, stock.is_prepared)
        if prefix is None or work is None:
            return Idle()
        if isinstance(work, Render | Prefill) and not self._is_urgent:
            held_until_ns = self._background.held_until_ns(prefix.wanted.session_id, now_ns)
            return Idle(held_until_ns) if held_until_ns else work
        return work

    def _finish_prefix_work(self, owner: PrefixOwner, done: WorkDone) -> list[Notice]:
        prefix, work, outcome = self._prefix, done.work, done.outcome
        if prefix is None or prefix.owner != owner:
            return []  # Another one is wanted by now.
        if isinstance(outcome, Failed):
            self._prefix = None
            return [PrefixFailed(owner.number)]
        if isinstance(outcome, Rendered):
            prefix.rendered(outcome)
        elif isinstance(work, Prefill) and isinstance(outcome, Prefilled):
            prefix.appended(work)
        return [PrefixReady(owner.number)] if prefix.is_ready else []
