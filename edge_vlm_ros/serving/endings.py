"""How a question ends that got no whole answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_vlm_ros.core import (
    NS_PER_S,
    BusyError,
    CancelledError,
    DeadlineError,
    EdgeVlmError,
    ErrorCode,
    SetupError,
)
from edge_vlm_ros.scheduling import Ended, Ending, Rejected

if TYPE_CHECKING:
    from edge_vlm_ros.serving.running import Running


@dataclass(frozen=True, slots=True)
class Final:
    """An answer that is over and has still to be given out.

    Attributes:
        running: The question.
        error: Why the answer is not whole; None = it is.
    """

    running: Running
    error: EdgeVlmError | None = None


def error_of(running: Running, notice: Ended | Rejected) -> EdgeVlmError | None:
    """Put into words why a question is over; None = it was answered."""
    if isinstance(notice, Rejected):
        return BusyError(
            f'{notice.waiting} questions wait already, the queue holds {notice.max_waiting}; '
            f'this one would have been number {notice.waiting + 1}'
        )
    if notice.ending is Ending.CANCELLED:
        return CancelledError('the question was taken back')
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
    return EdgeVlmError(message)
