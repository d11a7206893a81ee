"""What the scheduler hears of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from edge_vlm_ros.core import FrameKey
    from edge_vlm_ros.scheduling.work import Work


@dataclass(frozen=True, slots=True)
class FrameArrived:
    """A frame that may be asked about; encoded ahead while there is no question."""

    frame: FrameKey


@dataclass(frozen=True, slots=True)
class QuestionAsked:
    """A question wants an answer.

    Attributes:
        request_id: Not empty, unique among the questions that have not ended.
        frames: The frames it brings, oldest first.
        deadline_ns: Steady time when it must be done; 0 = no deadline.
    """

    request_id: str
    frames: tuple[FrameKey, ...] = ()
    deadline_ns: int = 0


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Somebody took a question back; nothing happens when it has ended already."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Tick:
    """The time. Deadlines are compared with it and with nothing else."""

    now_ns: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """A frame is ready for the vision tower."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt is written and fits.

    Attributes:
        prompt_tokens: All tokens before the answer.
        reused_tokens: Those that the KV cache already holds; below `prompt_tokens`.
        frames: The frames whose features the rest of the prompt needs, oldest first.
    """

    prompt_tokens: int
    reused_tokens: int = 0
    frames: tuple[FrameKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Encoded:
    """A frame's features are there and take `nbytes` bytes."""

    nbytes: int


@dataclass(frozen=True, slots=True)
class Prefilled:
    """A prefill chunk is in the KV cache."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """One token was chosen; `is_last`: it ends the answer."""

    is_last: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """The work could not be done; the question behind it ends."""


Outcome: TypeAlias = 'Prepared | Rendered | Encoded | Prefilled | Decoded | Failed'


@dataclass(frozen=True, slots=True)
class WorkDone:
    """The work item that `Scheduler.next_work` gave out last is over."""

    work: Work
    outcome: Outcome


Event: TypeAlias = 'FrameArrived | QuestionAsked | Cancelled | Tick | WorkDone'
