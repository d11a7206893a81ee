"""What the next question is expected to show, said before it is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_vlm_ros.core.frames import ShownAs, StoredFrame


class Readiness(IntEnum):
    """How much of an answer was there before its question; `msg/Answer.msg` has the constants."""

    NONE = 0
    """Nothing: all was computed after the question came."""

    ENCODED = 1
    """The features of all of its frames; not their rows in the KV cache."""

    PREFIX = 2
    """Everything before the question's words was in the KV cache."""

    APPENDED = 3
    """A part of it with frames was in the KV cache; newer frames, or a new turn, were added."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """All of a prompt before the question's words: a wish, to be made true while nobody asks.

    A question that shows the same frames in the same way, in the same conversation, pays for its
    words only; its answer is the one that it would have got without.

    Attributes:
        frames: In the order of the prompt, oldest first; none = the system text, or what has been
            said.
        session_id: The conversation that the question would go on with; '' = none.
        system_prompt: '' = the model's own default.
        shown_as: As `Question.shown_as`. Frames of a window that grows are shown AMONG_OTHERS,
            also while there is only one.
        is_urgent: Somebody is about to ask: begin at once, whatever share of the chip's time
            work ahead may take.
    """

    frames: tuple[StoredFrame, ...] = field(default=(), repr=False)
    session_id: str = ''
    system_prompt: str = ''
    shown_as: ShownAs | None = None
    is_urgent: bool = False
