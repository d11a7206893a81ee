"""Which questions servers are answering, and which wait: a state machine, no thread, no socket.

Where several are answered at once, the rules are those of the chip's scheduler, with its queue:
one waits when as many as are allowed run; of those that wait the highest priority is next; where
there is no room, the policy says who has to go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_vlm_ros.scheduling import (
    Ended,
    Ending,
    QuestionAsked,
    QuestionQueue,
    Rejected,
    oldest_of_lowest,
)

if TYPE_CHECKING:
    from edge_vlm_ros.serving.settings import ServingSettings


class RemoteDesk:
    """Decides who is answered; the owner holds a lock around every call.

    Args:
        settings: Bounds of the queue, and its policy.
        parallel: Questions that run at once.
    """

    def __init__(self, settings: ServingSettings, parallel: int) -> None:
        self._queue = QuestionQueue(
            settings.max_waiting, settings.queue_policy, settings.newest_wins
        )
        self._parallel = parallel
        self._running: dict[str, QuestionAsked] = {}  # In the order they began.
        self._started: list[str] = []

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._running or request_id in self._queue

    @property
    def request_ids(self) -> tuple[str, ...]:
        """Every question that has not ended: those that run, then the others by their turn."""
        return (*self._running, *(asked.request_id for asked in self._queue.by_turn()))

    @property
    def running(self) -> tuple[str, ...]:
        """The questions that are being answered, the oldest first."""
        return tuple(self._running)

    def ask(self, asked: QuestionAsked) -> list[Ended | Rejected]:
        """Take a new question in, or turn it away; return whose end that is."""
        if len(self._running) < self._parallel:
            self._start(asked)
            return []
        outdated = self._queue.take_outdated(asked)
        notices: list[Ended | Rejected] = [
            Ended(each.request_id, Ending.OUTDATED) for each in outdated
        ]
        victim = oldest_of_lowest(self._running.values())
        if victim is not None and self._queue.preempts(asked, victim):
            del self._running[victim.request_id]
            self._start(asked)
            return [*notices, Ended(victim.request_id, Ending.PREEMPTED)]
        replaced = self._queue.take_replaced(asked)
        if replaced is not None:
            notices.append(Ended(replaced.request_id, Ending.REPLACED))
        if self._queue.is_full:
            most = self._queue.max_waiting
            return [*notices, Rejected(asked.request_id, len(self._queue), most)]
        self._queue.put(asked)
        return notices

    def end(self, request_id: str, ending: Ending) -> list[Ended]:
        """A question is over; the next one starts. Nothing happens where it has ended before."""
        if self._queue.discard(request_id):
            return [Ended(request_id, ending)]
        if self._running.pop(request_id, None) is None:
            return []
        following = self._queue.take()
        if following is not None:
            self._start(following)
        return [Ended(request_id, ending)]

    def take_started(self) -> list[str]:
        """Return the questions that have begun to run since this was asked last."""
        started, self._started = self._started, []
        return [request_id for request_id in started if request_id in self._running]

    def _start(self, asked: QuestionAsked) -> None:
        self._running[asked.request_id] = asked
        self._started.append(asked.request_id)
