"""The requests being answered: each ends with exactly one final chunk, whatever happens.

Chunks come from the thread that reads the model process and are published on that thread. Sending
them through the executor would cost a rebuilt wait set per token and let a camera image in between
delay a word; a publisher may be used from any thread, and one lock keeps the chunks of a request
in order and nothing after its last. Only the caller's reply, which must be sent by the executor,
goes through it: a Future is completed and the executor woken.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edge_vlm_ros.core import (
    Answer,
    AnswerChunk,
    BadRequestError,
    BusyError,
    EdgeVlmError,
    ErrorCode,
)
from edge_vlm_ros.nodes.conversions import RequestFacts, answer_to_ros, chunk_to_ros
from edge_vlm_ros.serving.model_info import signed

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.task import Future

    from edge_vlm_ros.msg import Answer as AnswerMsg
    from edge_vlm_ros.msg import AnswerChunk as AnswerChunkMsg
    from edge_vlm_ros.nodes.admission import Admitted
    from edge_vlm_ros.serving import AnswerStream, ModelInfo


class AnswerPublisher(Protocol):
    """Where answers go. Called under the lock of `OpenRequests`, on any thread; must be quick."""

    def publish_chunk(self, message: AnswerChunkMsg) -> None:
        """Publish one chunk."""
        ...

    def publish_answer(self, message: AnswerMsg) -> None:
        """Publish what is published of a whole answer, after its final chunk."""
        ...


@dataclass(slots=True)
class OpenRequest:
    """One request that has no final chunk yet.

    Attributes:
        admitted: Who asks what, about which frames.
        reply: Completed with the `msg/Answer`; belongs to the executor.
        feedback: Given every chunk; the action's.
        stream: The backend's answer, and all that has been said of it; None until the backend was
            asked: before, the request may wait for a frame.
        attempt: Completed with the backend's answer; one about damaged frames alone does not end
            the request, for there may be others. Belongs to the executor.
    """

    admitted: Admitted
    reply: Future[AnswerMsg]
    feedback: Callable[[AnswerChunkMsg], None] | None = None
    stream: AnswerStream | None = None
    attempt: Future[Answer] | None = None

    @property
    def request_id(self) -> str:
        """The caller's, or made up."""
        return self.admitted.facts.request_id


@dataclass(slots=True)
class RequestCounts:
    """How requests ended, since the start."""

    answered: int = 0
    failed: int = 0
    cancelled: int = 0


def _is_about_damage(chunk: AnswerChunk, answer: Answer) -> bool:
    """Tell whether nothing was said, for none of the cameras' frames could be decoded."""
    is_bad = answer.error_code is ErrorCode.BAD_IMAGE and bool(answer.bad_frames)
    return is_bad and chunk.sequence == 0


class OpenRequests:
    """All requests that have no final chunk yet.

    The one register that knows requests before the backend does (they wait for a frame), and what
    ROS is owed for each: a reply, feedback, the last chunk.

    Args:
        publisher: Where answers go.
        wake: Wakes the executor, so that it sees a completed reply.
        limit: Most requests at a time.
        info: Says which model is loaded, for the answers that are made here; None = none is.
    """

    def __init__(
        self,
        publisher: AnswerPublisher,
        wake: Callable[[], None],
        limit: int,
        info: Callable[[], ModelInfo | None],
    ) -> None:
        self._publisher = publisher
        self._wake = wake
        self._limit = limit
        self._info = info
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
        """Refuse one more request, if there is no room; the executor's thread asks, then adds.

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
            self._open[request.request_id] = request

    def on_chunk(self, chunk: AnswerChunk) -> None:
        """Publish a chunk of the backend's; those of requests already ended are dropped."""
        with self._lock:
            request = self._open.get(chunk.request_id)
            if request is None:
                return
            if chunk.answer is None:
                self._publish(request, chunk)
            elif request.attempt is not None and _is_about_damage(chunk, chunk.answer):
                request.attempt.set_result(chunk.answer)
                self._wake()
            else:
                self._end(request, chunk, chunk.answer)

    def fail(self, request: OpenRequest, error: EdgeVlmError) -> bool:
        """End a request from here, with what had been said; tell whether this did it.

        The executor's thread alone. Where the backend was asked, the end goes the way of every
        other chunk: through its stream, which has the text and takes one end. That of an attempt
        which is over has had it.
        """
        if request.stream is not None and request.stream.finish(
            lambda text: self._failed(request, error, text)
        ):
            return True
        with self._lock:
            if self._open.get(request.request_id) is not request:
                return False
            answer = self._failed(request, error)
            self._end(request, AnswerChunk(request.request_id, 0, '', answer), answer)
            return True

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
        failed = Answer.failed(facts.request_id, error, session_id=facts.session_id)
        answer = signed(failed, self._info())
        chunk = chunk_to_ros(AnswerChunk(facts.request_id, 0, '', answer), facts)
        message = answer_to_ros(answer, facts)
        with self._lock:
            self._count(answer)
            if error.code is not ErrorCode.DUPLICATE_REQUEST:
                self._publisher.publish_chunk(chunk)
                self._publisher.publish_answer(message)
        if feedback is not None:
            feedback(chunk)
        return message

    def matching(self, request_id: str = '') -> list[OpenRequest]:
        """List the open requests of that id, or all (''), oldest first."""
        with self._lock:
            return [r for r in self._open.values() if request_id in {'', r.request_id}]

    def _failed(self, request: OpenRequest, error: EdgeVlmError, text: str = '') -> Answer:
        facts = request.admitted.facts
        answer = Answer.failed(facts.request_id, error, session_id=facts.session_id, text=text)
        return signed(answer, self._info())

    def _publish(self, request: OpenRequest, chunk: AnswerChunk) -> None:
        admitted = request.admitted
        message = chunk_to_ros(chunk, admitted.facts, admitted.question.frames)
        self._publisher.publish_chunk(message)
        if request.feedback is not None:
            request.feedback(message)

    def _end(self, request: OpenRequest, chunk: AnswerChunk, answer: Answer) -> None:
        del self._open[request.request_id]
        self._count(answer)
        admitted = request.admitted
        message = answer_to_ros(answer, admitted.facts, admitted.question.frames)
        try:
            self._publish(request, chunk)
            self._publisher.publish_answer(message)
        finally:
            request.reply.set_result(message)
            if request.attempt is not None and not request.attempt.done():
                request.attempt.set_result(answer)
            self._wake()

    def _count(self, answer: Answer) -> None:
        if answer.success:
            self.counts.answered += 1
        elif answer.error_code is ErrorCode.CANCELLED:
            self.counts.cancelled += 1
        else:
            self.counts.failed += 1
