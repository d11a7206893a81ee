"""When another backend is asked than the first: rules, without threads and clock."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from edge_vlm_ros.core import NS_PER_S, ErrorCode

if TYPE_CHECKING:
    from edge_vlm_ros.core import Answer, Question

FIRST_WORD_S: Final = 10.0
_SHOWN_CHARS: Final = 80

_FAILURES: Final = range(ErrorCode.MODEL_FILE, ErrorCode.INTERNAL + 1)
"""Codes of what failed in answering: another one may do better. Others are the caller's, the
camera's, or somebody's decision."""

_NO_ROOM: Final = frozenset(
    # An asking that was given up may not be over there yet.
    {ErrorCode.BUSY, ErrorCode.NOT_READY, ErrorCode.DUPLICATE_REQUEST}
)

_TOO_MUCH: Final = frozenset(
    {ErrorCode.PROMPT_TOO_LONG, ErrorCode.TOO_MANY_FRAMES, ErrorCode.UNSUPPORTED_OPTION}
)
"""Codes of what a small model refuses, and a large one may take."""


class Order(Enum):
    """Who is asked first."""

    REMOTE_FIRST = 'remote_then_local'
    """The chip answers where no server does in time."""

    LOCAL_FIRST = 'local_then_remote'
    """A server answers where the chip's answer is none of the choices, or is not sure."""


@dataclass(frozen=True, slots=True)
class FallbackSettings:
    """When the other one is asked.

    Attributes:
        order: Who is asked first.
        first_word_s: A server has so long for its first word, seconds; and no longer than half of
            what is left until the question's deadline.
        sure_from: Chip first: a choice that is less probable is not sure, as far as the chip gives
            probabilities. 0 = every one is.
    """

    order: Order = Order.REMOTE_FIRST
    first_word_s: float = FIRST_WORD_S
    sure_from: float = 0.0

    def due_ns(self, question: Question, now_ns: int) -> int:
        """Return the steady time when a server has to have said its first word, nanoseconds."""
        most_ns = round(self.first_word_s * NS_PER_S)
        if question.deadline_ns:
            most_ns = min(most_ns, max(0, question.deadline_ns - now_ns) // 2)
        return now_ns + most_ns

    def doubt(self, answer: Answer) -> str:
        """Say why a good answer to a question with choices may not be the one; '' = it is."""
        if not answer.choice:
            text = answer.text.strip()
            shown = text if len(text) <= _SHOWN_CHARS else f'{text[:_SHOWN_CHARS]}...'
            return f'{shown!r} is none of the choices'
        probability = answer.choice_probability
        if probability is not None and probability < self.sure_from:
            return f'{answer.choice!r} has a probability of only {probability:.2f}'
        return ''


def problem(answer: Answer, *, is_local: bool) -> str:
    """Say why another one is to be asked after an answer that failed; '' = it would not help.

    Args:
        answer: That failed, before a word was said.
        is_local: The chip's.
    """
    code = answer.error_code
    if code in _FAILURES or code in _NO_ROOM or (is_local and code in _TOO_MUCH):
        return answer.message or code.name.lower()
    return ''


def is_outage(answer: Answer) -> bool:
    """Return whether an answer of a server means that the next question will fare no better."""
    return answer.error_code in _FAILURES and answer.error_code is not ErrorCode.BAD_OUTPUT
