"""The requests being answered: each ends with exactly one final chunk, whatever happens.

Chunks come from the thread that reads the model process and are published on that thread. Sending
them through the executor would cost a rebuilt wait set per token and let a camera image in between
delay a word; a publisher may be used from any thread, and one lock keeps the chunks of a request
in order and nothing behind its last. Only the caller's reply, which must be sent by the executor,
goes through it: a Future is completed and the executor woken.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from edge_vlm_ros.core import (
    Answer,
    AnswerChunk,
    BadRequestError,
    BusyError,
    EdgeVlmError,
    ErrorCode,
)
from edge_vlm_ros.nodes.conversions import (
    RequestFacts,
    answer_from_error,
    answer_to_ros,
    chunk_to_ros,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.task import Future

    from edge_vlm_ros.msg import Answer as AnswerMsg
    from edge_vlm_ros.msg import AnswerChunk as AnswerChunkMsg


class ChunkOutlet(Protocol):
    """Where chunks go. Called under the lock of `OpenRequests`, from any thread; must be quick."""

    def publish_chunk(self, message: AnswerChunkMsg) -> None:
        """Give out one chunk."""
        ...

    def publish_answer(self, message: AnswerMsg) -> None:
        """Give out a whole answer, behind its final chunk."""
        ...


@dataclass(slots=True)
class OpenRequest:
    """One request that has no final chunk yet.

    Attributes:
        facts: Who asks, about which frames.
        reply: Completed with the `msg/Answer`; belongs to the executor.
        feedback: Given every chunk; the action's.
        deadline_ns: Steady time when it must be done; 0 = none.
        is_asked: The model process has it; before, it may wait for a frame.
        deltas: What has been said.
    """

    facts: RequestFacts
    reply: Future[AnswerMsg]
    feedback: Callable[[AnswerChunkMsg], None] | None = None
    deadline_ns: int = 0
    is_asked: bool = False
    deltas: list[str] = field(default_factory=list)


@dataclass(slots=True)
class RequestCounts:
    """How requests ended, since the start."""

    answered: int = 0
    failed: int = 0
    cancelled: int = 0


class OpenRequests:
    """All requests that have no final chunk yet.

    Args:
        outlet: Where chunks go.
        wake: Wakes the executor, so that it sees a completed reply.
        limit: Most requests at a time.
    """

    def __init__(self, outlet: ChunkOutlet, wake: Callable[[], None], limit: int) -> None:
        self._outlet = outlet
        self._wake = wake
        self._limit = limit
        self._open: dict[str, OpenRequest] = {}
        self._lock = threading.Lock()
        self.counts = RequestCounts()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def limit(self) -> int:
        """Most requests at a time."""
        return self._limit

    def check_room(self, request_id: str) -> None:
        """Tell whether one more request may come; the executor's thread asks, and then adds.

        Raises:
            BadRequestError: A request of that id is running (DUPLICATE_REQUEST).
            BusyError: There are too many.
        """
        with self._lock:
            if request_id in self._open:
                raise BadRequestError(
                    f'a request with request_id {request_id!r} is still running',
                    ErrorCode.DUPLICATE_REQUEST,
                )
            if len(self._open) >= self._limit:
                raise BusyError(
                    f'{len(self._open)} requests run or wait, the limit is {self._limit} '
                    '(parameter queue_size)'
                )

    def add(self, request: OpenRequest) -> None:
        """Take note of a request that is about to be asked."""
        with self._lock:
            self._open[request.facts.request_id] = request

    def on_chunk(self, chunk: AnswerChunk) -> None:
        """Give out a chunk of the model process; those of requests already ended are dropped."""
        with self._lock:
            request = self._open.get(chunk.request_id)
            if request is None:
                return
            if chunk.answer is None:
                request.deltas.append(chunk.delta)
                self._publish(request, chunk)
            else:
                self._end(request, chunk, chunk.answer)

    def fail(self, request_id: str, error: EdgeVlmError) -> bool:
        """End a request from here, with what had been said; tell whether it was open."""
        with self._lock:
            request = self._open.get(request_id)
            if request is None:
                return False
            answer = answer_from_error(request.facts, error, ''.join(request.deltas))
            sequence = len(request.deltas)
            self._end(request, AnswerChunk(request_id, sequence, '', answer), answer)
            return True

    def fail_all(self, error: EdgeVlmError) -> int:
        """End every request from here; return how many there were."""
        return sum(self.fail(request_id, error) for request_id in self.request_ids())

    def refuse(
        self,
        facts: RequestFacts,
        error: EdgeVlmError,
        feedback: Callable[[AnswerChunkMsg], None] | None = None,
    ) -> AnswerMsg:
        """Answer a request that was never added.

        It gets its final chunk, too; only a request whose id is that of a running one does not,
        for that one's chunks would seem to end.
        """
        answer = answer_from_error(facts, error)
        chunk = chunk_to_ros(AnswerChunk(facts.request_id, 0, '', answer), facts)
        message = answer_to_ros(answer, facts)
        with self._lock:
            self._count(answer)
            if error.code is not ErrorCode.DUPLICATE_REQUEST:
                self._outlet.publish_chunk(chunk)
                self._outlet.publish_answer(message)
        if feedback is not None:
            feedback(chunk)
        return message

    def request_ids(self) -> list[str]:
        """Name the open requests, oldest first."""
        with self._lock:
            return list(self._open)

    def is_asked(self, request_id: str) -> bool:
        """Whether a request is open and the model process has it."""
        with self._lock:
            request = self._open.get(request_id)
            return request is not None and request.is_asked

    def overdue(self, now_ns: int, grace_ns: int) -> list[str]:
        """Name the requests whose deadline passed longer than `grace_ns` ago (steady time)."""
        with self._lock:
            return [
                request_id
                for request_id, request in self._open.items()
                if request.deadline_ns and now_ns > request.deadline_ns + grace_ns
            ]

    def _publish(self, request: OpenRequest, chunk: AnswerChunk) -> None:
        message = chunk_to_ros(chunk, request.facts)
        self._outlet.publish_chunk(message)
        if request.feedback is not None:
            request.feedback(message)

    def _end(self, request: OpenRequest, chunk: AnswerChunk, answer: Answer) -> None:
        del self._open[request.facts.request_id]
        self._count(answer)
        message = answer_to_ros(answer, request.facts)
        try:
            self._publish(request, chunk)
            self._outlet.publish_answer(message)
        finally:
            request.reply.set_result(message)
            self._wake()

    def _count(self, answer: Answer) -> None:
        if answer.success:
            self.counts.answered += 1
        elif answer.error_code is ErrorCode.CANCELLED:
            self.counts.cancelled += 1
        else:
            self.counts.failed += 1
