"""The words of a watch: what it does, why it is blind, what it says.

The numbers are those of `msg/WatchSpec.msg`, `msg/WatchState.msg` and `msg/WatchEvent.msg`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final, NamedTuple

from edge_vlm_ros.core import ErrorCode


class WatchMode(IntEnum):
    """What a watch is to do."""

    ON = 0
    MUTED = 1
    """It looks, and says nothing."""
    OFF = 2
    """It is kept, and does not look."""


class WatchPhase(IntEnum):
    """What a watch is doing; of several that hold, the largest."""

    ARMED = 1
    LOOKING = 2
    ON = 3
    UNSURE = 4
    BLIND = 5
    OFF = 6


class Blindness(IntEnum):
    """Why a look was missed."""

    NONE = 0
    CAMERA = 1
    DARK = 2
    BUSY = 3
    ERROR = 4


class EventKind(IntEnum):
    """What a watch says."""

    BEGIN = 1
    END = 2
    STILL_ON = 3
    BLIND = 4
    SIGHT = 5


class Decision(Enum):
    """What becomes of a look that is due."""

    LOOK = 'look'
    UNCHANGED = 'unchanged'
    MISSED = 'missed'
    WAIT = 'wait'
    """It stays due: the chip is busy."""


class Now(NamedTuple):
    """The moment that something happens, handed in.

    Attributes:
        steady_ns: Steady time, nanoseconds: what is due is counted on it.
        ros_ns: ROS time, nanoseconds: when a watch decided.
    """

    steady_ns: int
    ros_ns: int


@dataclass(frozen=True, slots=True)
class Missed:
    """Why a look cannot be taken, or came to nothing.

    Attributes:
        why: Never `Blindness.NONE`.
        message: For people.
    """

    why: Blindness
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look said.

    Attributes:
        answer: One of the watch's choices; '' = none of them.
        probability: Of it, given that it is one of the choices; None = not known.
        evidence_ns: Stamp of the newest frame of the look (ROS time), nanoseconds.
        source: Whatever the owner knows the look by: handed back with the events that it decided.
    """

    answer: str
    probability: float | None
    evidence_ns: int
    source: object = None


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """What a watch says.

    Attributes:
        kind: What it is.
        watch: The watch's name.
        event_id: The same from begin to end; '' = no event is on.
        text: What happened, for people.
        question: The watch's.
        verdict: Of the look that decided; None = none did.
        decided_ns: When the watch decided (ROS time), nanoseconds.
        duration_s: Since the begin, by the frames' stamps; 0 = there is no event.
    """

    kind: EventKind
    watch: str
    event_id: str
    text: str
    question: str
    verdict: Verdict | None
    decided_ns: int
    duration_s: float = 0.0


_CAMERA: Final = {
    ErrorCode.BAD_IMAGE,
    ErrorCode.NO_FRAME,
    ErrorCode.STALE_FRAME,
    ErrorCode.UNKNOWN_CAMERA,
}
_BUSY: Final = {
    ErrorCode.BUSY,
    ErrorCode.CANCELLED,
    ErrorCode.DEADLINE,
    ErrorCode.PREEMPTED,
}


def missed_by(code: ErrorCode, message: str) -> Missed:
    """Return why a look was missed whose question failed.

    Args:
        code: How the question ended; not `NONE`.
        message: Its message.
    """
    if code in _CAMERA:
        return Missed(Blindness.CAMERA, message)
    if code in _BUSY:
        return Missed(Blindness.BUSY, message)
    return Missed(Blindness.ERROR, message)
