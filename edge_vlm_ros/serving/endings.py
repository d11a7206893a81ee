"""How a question ends that got no whole answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edge_vlm_ros.core import (
    NS_PER_S,
    BusyError,
    CancelledError,
    DeadlineError,
    DeviceError,
    EdgeVlmError,
    ErrorCode,
    PreemptedError,
    SetupError,
)
from edge_vlm_ros.scheduling import Ended, Ending, Rejected

if TYPE_CHECKING:  # the ROS process imports this, and none of what a running question needs
    from edge_vlm_ros.core import Question
    from edge_vlm_ros.serving.running import Running


class _Asked(Protocol):
    @property
    def question(self) -> Question: ...

    @property
    def asked_ns(self) -> int: ...

    @property
    def error(self) -> EdgeVlmError | None: ...


@dataclass(frozen=True, slots=True)
class Final:
    """An answer that is over and has still to be given out.

    Attributes:
        running: The question.
        error: Why the answer is not whole; None = it is.
    """

    running: Running
    error: EdgeVlmError | None = None


def replaced_error() -> EdgeVlmError:
    """Say why a question that waited in a full queue is over."""
    return BusyError('the queue was full: this question waited longest and made room for a newer')


def _outdated() -> EdgeVlmError:
    return BusyError('a newer question about the same camera came while this one waited')


def preempted_error() -> EdgeVlmError:
    """Say why a question that was answered, or next to be, is over."""
    return PreemptedError('a newer question of at least this priority took the chip')


def _cancelled() -> EdgeVlmError:
    return CancelledError('the question was taken back')


_TURNED_OUT = {
    Ending.CANCELLED: _cancelled,
    Ending.REPLACED: replaced_error,
    Ending.OUTDATED: _outdated,
    Ending.PREEMPTED: preempted_error,
}
"""A new error each: one that was raised would carry its traceback along."""


def error_of(running: _Asked, notice: Ended | Rejected) -> EdgeVlmError | None:
    """Put into words why a question is over; None = it was answered."""
    if isinstance(notice, Rejected):
        if not notice.max_waiting:
            return BusyError('another question is being answered, and none may wait')
        return BusyError(
            f'{notice.waiting} questions wait already, the queue holds {notice.max_waiting}; '
            f'this one would have been number {notice.waiting + 1}'
        )
    if notice.ending in _TURNED_OUT:
        return _TURNED_OUT[notice.ending]()
    if notice.ending is Ending.DEADLINE:
        allowed_s = (running.question.deadline_ns - running.asked_ns) / NS_PER_S
        return DeadlineError(
            f'the {allowed_s:.3g} s for this question were over before its answer was done'
        )
    return running.error if notice.ending is Ending.FAILED else None


def known_error(error: BaseException) -> EdgeVlmError:
    """Return an error of our own family for any error."""
    if isinstance(error, EdgeVlmError):
        return error
    if isinstance(error, SystemExit):
        return EdgeVlmError(f'the engine wanted to end the process: exit({error.code!r})')
    message = f'{type(error).__name__}: {error}'
    if isinstance(error, ImportError):
        return SetupError(message, ErrorCode.INTERNAL)
    if isinstance(error, MemoryError):
        return DeviceError(f'out of memory: {error}')
    return EdgeVlmError(message)
