"""What the scheduler hears of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from edge_vlm_ros.core import Priority

if TYPE_CHECKING:
    from edge_vlm_ros.core import FeatureKey
    from edge_vlm_ros.scheduling.work import Work


@dataclass(frozen=True, slots=True)
class FramesOffered:
    """Frames that may be asked about; prepared and encoded ahead while there is no question.

    Attributes:
        keys: What a question that shows them would need, oldest first.
    """

    keys: tuple[FeatureKey, ...]


@dataclass(frozen=True, slots=True)
class PrefixWanted:
    """What the KV cache is to hold while nobody asks; takes the place of what was wanted before.

    Attributes:
        number: Names this wish; never used before.
        keys: Of its frames, oldest first.
        session_id: The conversation that it goes on with; '' = none.
        is_urgent: Neither the pause after work ahead nor a live conversation holds it up.
    """

    number: int
    keys: tuple[FeatureKey, ...] = ()
    session_id: str = ''
    is_urgent: bool = False


@dataclass(frozen=True, slots=True)
class PrefixForgotten:
    """Nothing is wanted in the KV cache any more."""


@dataclass(frozen=True, slots=True)
class QuestionAsked:
    """A question wants an answer.

    Attributes:
        request_id: Not empty, unique among the questions that have not ended.
        keys: Of the frames it brings, oldest first.
        deadline_ns: Steady time when it must be done; 0 = no deadline.
        priority: Among the questions that wait.
        session_id: The conversation it belongs to; '' = none.
        preempts: Under PREEMPT it takes the chip, if its priority allows; False = it waits.
    """

    request_id: str
    keys: tuple[FeatureKey, ...] = ()
    deadline_ns: int = 0
    priority: Priority = Priority.NORMAL
    session_id: str = ''
    preempts: bool = True


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
    """What is under a key is ready for the vision tower."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Nothing can be made of what is under a key; the question goes on without it."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt is written and fits.

    Attributes:
        pieces: How the engine wants the part of the prompt that its KV cache lacks: tokens of each
            prefill, in order, each 1 or more; at least one piece for a question, none for a prefix
            that is whole.
        reused_tokens: Tokens of the prompt before that part: the KV cache holds them already.
        keys: Of the features that the rest of the prompt needs, oldest first.
    """

    pieces: tuple[int, ...]
    reused_tokens: int = 0
    keys: tuple[FeatureKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Encoded:
    """The features under a key are there and take `nbytes` bytes."""

    nbytes: int


@dataclass(frozen=True, slots=True)
class Prefilled:
    """A piece of the prompt is in the KV cache."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """One token was chosen; `is_last`: it ends the answer."""

    is_last: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """The work could not be done; its owner ends, and nobody else."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """The work was stopped half-way, its owner being over or overdue, and left nothing behind.

    An owner that goes on is given the same work again: the `Tick` before that ends a question, if
    its time is over.
    """


Outcome: TypeAlias = (
    'Prepared | LeftOut | Rendered | Encoded | Prefilled | Decoded | Failed | GivenUp'
)


@dataclass(frozen=True, slots=True)
class WorkDone:
    """The work item that `Scheduler.next_work` gave out last is over.

    Attributes:
        work: That item.
        outcome: What came of it.
        took_ns: How long it took, nanoseconds; 0 = not measured.
    """

    work: Work
    outcome: Outcome
    took_ns: int = 0


Event: TypeAlias = (
    'FramesOffered | PrefixWanted | PrefixForgotten | QuestionAsked | Cancelled | Tick | WorkDone'
)
