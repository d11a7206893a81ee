"""Which questions wait, whose turn is next, and who has to go where there is no room."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from edge_vlm_ros.core import Priority
    from edge_vlm_ros.scheduling.events import QuestionAsked


class _HasPriority(Protocol):
    @property
    def priority(self) -> Priority: ...


_Ranked = TypeVar('_Ranked', bound=_HasPriority)


class QueuePolicy(Enum):
    """What becomes of a question that comes while another one is answered.

    Whoever is turned away, replaced or preempted is told so at once.
    """

    REJECT = 'reject'
    """Nobody waits: it is turned away."""

    QUEUE = 'queue'
    """It waits for its turn; turned away when the queue is full."""

    REPLACE_OLDEST = 'replace_oldest'
    """It waits; when the queue is full, the oldest one of the lowest priority that waits goes.

    It is turned away where only questions of a higher priority wait.
    """

    PREEMPT = 'preempt'
    """It takes the chip from a question of its own or a lower priority, which ends with what had
    been said; while one of a higher priority runs, it waits."""


class QuestionQueue:
    """The questions that wait beside the one whose turn it is.

    Args:
        max_waiting: Most that wait; none do under REJECT.
        policy: Who goes when there is no room.
        newest_wins: Cameras of which only the newest question waits: it ends those that wait, are
            about such cameras only, all of which it shows as well, and have no higher priority.
    """

    def __init__(
        self, max_waiting: int, policy: QueuePolicy, newest_wins: Collection[str] = ()
    ) -> None:
        self.max_waiting = 0 if policy is QueuePolicy.REJECT else max_waiting
        self.policy = policy
        self._newest_wins = frozenset(newest_wins)
        self._waiting: dict[str, QuestionAsked] = {}  # In the order they came.

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether one more finds no room."""
        return len(self._waiting) >= self.max_waiting

    def questions(self) -> tuple[QuestionAsked, ...]:
        """List them in the order they came."""
        return tuple(self._waiting.values())

    def by_turn(self) -> tuple[QuestionAsked, ...]:
        """List them by their turn: a higher priority first, of equal ones the oldest."""
        return tuple(sorted(self._waiting.values(), key=lambda asked: -asked.priority))

    def put(self, asked: QuestionAsked) -> None:
        """Add the newest one; there is room."""
        self._waiting[asked.request_id] = asked

    def put_back(self, asked: QuestionAsked) -> None:
        """Add the oldest one; it was taken out before any other came."""
        self._waiting = {asked.request_id: asked, **self._waiting}

    def take(self) -> QuestionAsked | None:
        """Take out the one whose turn is next; None = nobody waits."""
        if not self._waiting:
            return None
        return self._waiting.pop(self.by_turn()[0].request_id)

    def discard(self, request_id: str) -> bool:
        """Take out one; return whether it waited."""
        return self._waiting.pop(request_id, None) is not None

    def take_outdated(self, newcomer: QuestionAsked) -> list[QuestionAsked]:
        """Take out those that a newer question about the same cameras makes pointless."""
        shown = _cameras(newcomer)
        outdated = [
            asked
            for asked in self._waiting.values()
            if asked.priority <= newcomer.priority
            and asked.keys
            and _cameras(asked) <= self._newest_wins & shown
        ]
        for asked in outdated:
            del self._waiting[asked.request_id]
        return outdated

    def take_replaced(self, newcomer: QuestionAsked) -> QuestionAsked | None:
        """Take out the one that has to go for a newcomer; None = nobody has to, or nobody can."""
        if not self.is_full or self.policy is not QueuePolicy.REPLACE_OLDEST:
            return None
        victim = oldest_of_lowest(self._waiting.values())
        if victim is None or victim.priority > newcomer.priority:
            return None
        return self._waiting.pop(victim.request_id)

    def preempts(self, newcomer: QuestionAsked, running: QuestionAsked) -> bool:
        """Return whether a newcomer takes the chip from the question whose turn it is."""
        is_able = newcomer.preempts and newcomer.priority >= running.priority
        return self.policy is QueuePolicy.PREEMPT and is_able


def oldest_of_lowest(waiting: Collection[_Ranked]) -> _Ranked | None:
    """Return the first one of the lowest priority; None = there is none.

    Args:
        waiting: In the order they came.
    """
    return min(waiting, key=lambda asked: asked.priority, default=None)


def _cameras(asked: QuestionAsked) -> set[str]:
    """Name the cameras that a question is about; '' = none took the picture."""
    return {frame.camera for key in asked.keys for frame in key.frames}
