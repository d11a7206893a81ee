"""What is to be made ready by the model process that is there, and by the next one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from edge_vlm_ros.core import Prefix, ShownAs, StoredFrame
from edge_vlm_ros.serving.ahead import AheadReport, OnAhead
from edge_vlm_ros.serving.process.child_run import Outbox
from edge_vlm_ros.serving.process.messages import OfferMessage, PrefixMessage

_log = logging.getLogger(__name__)

_MOST_UNSENT = 16
"""A process that hangs reads nothing: what is offered then is let go."""


class Wishes:
    """The part of a `ModelProcess` that has things made ready (`PreparesAhead`); any thread.

    The newest wish is told to each process when it is ready, but for one that a process died of:
    it may have been the cause, and would cost the next one its life.
    """

    def __init__(self) -> None:
        self._wish: Prefix | None = None
        self._reader: Outbox | None = None
        self._is_queued = False
        self._wishes_lock = threading.Lock()
        self._on_ahead: OnAhead | None = None
        self._last = AheadReport()

    def want_prefix(self, prefix: Prefix | None) -> None:
        """Have a prompt up to the question's words put into the KV cache; see `PreparesAhead`.

        Returns at once, whatever state the process is in.
        """
        with self._wishes_lock:
            self._wish = prefix
            self._queue()

    def offer_frames(self, frames: Sequence[StoredFrame], shown_as: ShownAs | None = None) -> None:
        """Have frames encoded ahead; see `PreparesAhead`. Returns at once.

        Offers are let go while there is no model, or the process does not come to read them.
        """
        with self._wishes_lock:
            if self._reader is not None and self._reader.qsize() < _MOST_UNSENT:
                self._reader.put(OfferMessage(tuple(frames), shown_as))

    def listen_ahead(self, on_ahead: OnAhead) -> None:
        """Have reports of what is ready given to `on_ahead`, on the supervising thread."""
        self._on_ahead = on_ahead

    def _turn_to(self, outbox: Outbox | None) -> None:
        """Tell a process that is ready; None = there is none."""
        with self._wishes_lock:
            self._reader, self._is_queued = outbox, False
            if self._wish is not None:
                self._queue()

    def _drop_wish(self, cause: str) -> None:
        """Let go of a wish that a process was at work on when it died."""
        with self._wishes_lock:
            self._wish = None
        last = self._last
        self._report_ahead(
            AheadReport(wanted=last.wanted, failures=last.failures + 1, problem=cause)
        )

    def _report_ahead(self, report: AheadReport) -> None:
        """Pass on what a process says."""
        self._last = report
        try:
            if self._on_ahead is not None:
                self._on_ahead(report)
        except Exception:  # noqa: BLE001 (the listener's own)
            _log.exception('on_ahead failed')

    def _queue(self) -> None:
        """Queue the wish, once: whichever is newest when its turn comes is sent."""
        if self._reader is not None and not self._is_queued:
            self._is_queued = True
            self._reader.put(self._take)

    def _take(self) -> PrefixMessage:
        with self._wishes_lock:
            self._is_queued = False
            return PrefixMessage(self._wish)
