"""A backend for as long as a command needs it, given back in order whatever signals come."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from edge_vlm_ros.cli.ending import SIGNALS, EndedBySignal
from edge_vlm_ros.cli.progress import ProgressLine
from edge_vlm_ros.core import CancelledError, end_needs
from edge_vlm_ros.serving import open_backend
from edge_vlm_ros.serving.letting_go import LetsGo
from edge_vlm_ros.serving.process.ending import within

if TYPE_CHECKING:
    from edge_vlm_ros.serving import Backend, ModelSpec

_LET_GO_S = 2.0


@contextmanager
def opened(spec: ModelSpec) -> Iterator[Backend]:
    """Open a backend, and close it.

    Raises:
        EdgeVlmError: It cannot be opened; see `open_backend`.
        EndedBySignal: A signal came while it was opened, or before it was closed. Where a chip
            would not give back what is cut off, the load was stopped between two files first; a
            second signal does not wait for that, but for a card, whose load must not be cut off.
    """
    with _HeldSignals() as held:
        backend = _open(spec, held)
        try:
            held.let_through()
            yield backend
        finally:
            held.ignore()
            _close(backend)


def _open(spec: ModelSpec, held: _HeldSignals) -> Backend:
    with ProgressLine(f'loading {spec.model or spec.chip}') as progress:

        def on_loaded(loaded: int, total: int) -> None:
            held.check()
            progress.on_part(loaded, total)

        return open_backend(spec, on_loaded=on_loaded)


def _close(backend: Backend) -> None:
    backend.close()
    if end_needs().loss and isinstance(backend, LetsGo):  # The chip hangs in a step.
        within(_LET_GO_S, backend.let_go)


class _HeldSignals:
    """Keeps signals back while a process must not be cut off; once each, the next one raises."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._number = 0

    def __enter__(self) -> _HeldSignals:  # noqa: PYI034 (Self comes with Python 3.11)
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if handler is not None and handler is not signal.SIG_IGN:
                self._before[number] = handler
                signal.signal(number, self._hold)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()
        if isinstance(error, CancelledError):  # The load was stopped: by a signal.
            self._raise()

    def check(self) -> None:
        """Stop a load after a signal; see `OnLoaded`."""
        if self._number:
            raise CancelledError('the load was stopped')

    def let_through(self) -> None:
        """Let signals do what they did before, one that was kept back as well."""
        self._restore()
        self._raise()

    def ignore(self) -> None:
        """Keep what follows from being cut off; it takes a limited time."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _raise(self) -> None:
        if self._number:
            raise EndedBySignal(self._number)

    def _hold(self, number: int, _frame: FrameType | None) -> None:
        needs = end_needs()
        if not needs.grace_s or (self._number and needs.may_be_killed):
            raise EndedBySignal(number)
        self._number = self._number or number
        why = 'a second time: at once' if needs.may_be_killed else needs.loss
        sys.stderr.write(f'edge-vlm: ends when the file that is being loaded is loaded; {why}\n')
