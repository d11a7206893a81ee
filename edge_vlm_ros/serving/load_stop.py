"""Stops a load between two of its parts."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from edge_vlm_ros.core import CancelledError, end_needs
from edge_vlm_ros.engines import OnLoaded, ignore_progress
from edge_vlm_ros.serving.hear_signals import HEAR_SIGNALS_S

if TYPE_CHECKING:
    from edge_vlm_ros.serving.loading import LoadedModel


class LoadStop:
    """The `OnLoaded` of a load that may be stopped; `stop` from any thread.

    Args:
        on_loaded: Who else follows the load, and may stop it as well.
    """

    def __init__(self, on_loaded: OnLoaded = ignore_progress) -> None:
        self._on_loaded = on_loaded
        self._last: tuple[int, int] | None = None
        self._is_stopped = False
        self._loaded: LoadedModel | None = None

    def stop(self) -> None:
        """Have the load given up before its next part."""
        self._is_stopped = True

    def give_up(self, thread: threading.Thread) -> None:
        """Stop the load of a thread, and wait for its end if something is lost without that."""
        self.stop()
        if end_needs().grace_s:
            while thread.is_alive():
                thread.join(HEAR_SIGNALS_S)

    def keep(self, loaded: LoadedModel) -> LoadedModel:
        """Take note of what was loaded; return it."""
        self._loaded = loaded
        return loaded

    def let_go(self) -> None:
        """Free what was loaded on the calling thread, beside a step that does not end."""
        if self._loaded is not None:
            self._loaded.close()

    def __call__(self, loaded: int, total: int) -> None:
        """Take note of a part; see `OnLoaded`.

        Raises:
            CancelledError: The load was stopped.
        """
        self._last = loaded, total
        self._check()
        self._on_loaded(loaded, total)

    def check(self) -> None:
        """Ask again whether to go on, after the last part that was told.

        Raises:
            CancelledError: The load was stopped.
        """
        self._check()
        if self._last is not None:
            self._on_loaded(*self._last)

    def _check(self) -> None:
        if self._is_stopped:
            raise CancelledError('the load was stopped')
