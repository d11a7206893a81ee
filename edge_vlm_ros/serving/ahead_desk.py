"""What the `ChipWorker` keeps for work ahead: offered frames, the wish, what has come of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge_vlm_ros.core import NS_PER_S, Prefix, PromptTooLongError
from edge_vlm_ros.scheduling import (
    Encoded,
    FrameOwner,
    OfferEnded,
    Owner,
    Prefilled,
    PrefixFailed,
    PrefixForgotten,
    PrefixOwner,
    PrefixReady,
    PrefixWanted,
)
from edge_vlm_ros.serving.ahead import AheadReport, OnAhead
from edge_vlm_ros.serving.feature_store import NothingDecodedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_vlm_ros.core import EdgeVlmError, FeatureKey, FrameKey
    from edge_vlm_ros.scheduling import WorkDone
    from edge_vlm_ros.serving.shown_frames import FrameGroup


@dataclass(frozen=True, slots=True)
class Wish:
    """A prefix that is wanted, its frames grouped and named.

    Attributes:
        number: Its name.
        prefix: What was wished for.
        groups: Its frames by key, oldest first.
    """

    number: int
    prefix: Prefix
    groups: Mapping[FeatureKey, FrameGroup]

    @property
    def wanted(self) -> PrefixWanted:
        """What the scheduler has to know of it."""
        prefix = self.prefix
        return PrefixWanted(self.number, tuple(self.groups), prefix.session_id, prefix.is_urgent)

    @property
    def frames(self) -> tuple[FrameKey, ...]:
        """Name its frames."""
        return tuple(frame for key in self.groups for frame in key.frames)


class PrefixTooLongError(PromptTooLongError):
    """A wish that leaves no room for a question.

    Attributes:
        fits: How many of its frames would.
    """

    def __init__(self, frames: int, fits: int) -> None:
        super().__init__(f'{frames} frames leave no room for a question, {fits} would')
        self.fits = fits


@dataclass(frozen=True, slots=True)
class LastPrefix:
    """What became of the prefixes that were written.

    Attributes:
        tokens: Of the last one.
        restarts: How often one did not go on from the whole one before it.
    """

    tokens: int = 0
    restarts: int = 0


class AheadDesk:
    """Everything is called under the worker's lock, but for `tell`."""

    def __init__(self) -> None:
        self.offered: dict[FeatureKey, FrameGroup] = {}
        self._wish: Wish | None = None
        self._number = 0
        self._report = AheadReport()
        self._told: AheadReport | None = None
        self._on_ahead: OnAhead | None = None

    def listen(self, on_ahead: OnAhead) -> None:
        """Give every report from now on to `on_ahead`."""
        self._on_ahead, self._told = on_ahead, None

    @property
    def is_told(self) -> bool:
        """Whether there is nothing new to tell."""
        return self._on_ahead is None or self._report == self._told

    def wish(
        self, prefix: Prefix | None, groups: Mapping[FeatureKey, FrameGroup]
    ) -> PrefixWanted | PrefixForgotten:
        """Take a wish in the place of the one before; return what the scheduler has to know."""
        self._number += 1
        self._wish = None if prefix is None else Wish(self._number, prefix, groups)
        wanted = () if self._wish is None else self._wish.frames
        self._report = replace(self._report, wanted=wanted, problem='', fits=0, bad_frames=())
        return PrefixForgotten() if self._wish is None else self._wish.wanted

    def clear(self) -> None:
        """Let go of all frames."""
        self.offered.clear()
        self._wish = None

    def subject(self, owner: Owner) -> FrameGroup | Wish:
        """Find what work ahead is about."""
        if isinstance(owner, FrameOwner):
            return self.offered[owner.key]
        assert self._wish is not None
        return self._wish

    def take(self, notice: OfferEnded | PrefixReady | PrefixFailed) -> None:
        """Take the scheduler's word."""
        if isinstance(notice, OfferEnded):
            self.offered.pop(notice.key, None)
        elif isinstance(notice, PrefixReady) and self._wish is not None:
            self._report = replace(self._report, ready=self._wish.frames, problem='')

    def note(self, done: WorkDone, last: LastPrefix) -> None:
        """Count a piece of work ahead."""
        report = self._report
        self._report = replace(
            report,
            tokens=last.tokens,
            restarts=last.restarts,
            encodes=report.encodes + isinstance(done.outcome, Encoded),
            pieces=report.pieces + isinstance(done.outcome, Prefilled),
            busy_s=report.busy_s + done.took_ns / NS_PER_S,
        )

    def note_failure(self, owner: Owner, error: EdgeVlmError) -> None:
        """Take note of what could not be made."""
        report = replace(self._report, failures=self._report.failures + 1)
        is_wish = self._wish is not None and owner == PrefixOwner(self._wish.number)
        if is_wish:
            report = replace(
                report,
                problem=error.message,
                fits=error.fits if isinstance(error, PrefixTooLongError) else 0,
                bad_frames=error.bad_frames if isinstance(error, NothingDecodedError) else (),
            )
        self._report = report

    def tell(self) -> None:
        """Give out a report, if there is something new; called outside the lock."""
        report, on_ahead = self._report, self._on_ahead
        if on_ahead is not None and report != self._told:
            self._told = report
            on_ahead(report)
