"""The requests being answered: each ends with exactly one final chunk, whatever happens.

Chunks come from the thread that reads the model process and are published on that thread. Sending
them through the executor would cost a rebuilt wait set per token and let a camera image in between
delay a word; a publisher may be used from any thread, and one lock keeps the chunks of a request
in order and nothing after its last. Only the caller's reply, which must be sent by the executor,
goes through it: a Future is completed and the executor woken.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from edge_vlm_ros.core import (
    NS_PER_S,
    Answer,
    AnswerChunk,
    BadRequestError,
    BusyError,
    EdgeVlmError,
    ErrorCode,
    Timings,
)
from edge_vlm_ros.nodes import qos
from edge_vlm_ros.nodes.conversions import RequestFacts, answer_to_ros, chunk_to_ros
from edge_vlm_ros.scheduling import QueuePolicy
from edge_vlm_ros.serving.frame_refs import frames_of
from edge_vlm_ros.serving.model_info import signed

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.task import Future

    from edge_vlm_ros.core import Clock, Question
    from edge_vlm_ros.msg import Answer as AnswerMsg
    from edge_vlm_ros.msg import AnswerChunk as AnswerChunkMsg
    from edge_vlm_ros.nodes.admission import Admitted
    from edge_vlm_ros.serving import AnswerStream, ModelInfo


ON_THEIR_WAY = 100
"""Requests above the queue's size that may be on their way to the model process, where it decides
who has to go: its word takes a moment, and what waits here keeps its images."""

PAUSE_NS = NS_PER_S // 20
"""Requests that come one after the other without such a pause are one burst: the inbox was, or may
have been, never empty between them."""

FLOOD_NOTED_NS = 60 * NS_PER_S
"""For so long diagnostics say that the inbox may have run over."""


class AnswerPublisher(Protocol):
    """Where answers go. Called under the lock of `OpenRequests`, on any thread; must be quick."""

    def publish_chunk(self, message: AnswerChunkMsg) -> None:
        """Publish one chunk."""
        ...

    def publish_answer(self, message: AnswerMsg, question: Question | None = None) -> None:
        """Publish what is published of a whole answer, after its final chunk.

        Args:
            message: The answer.
            question: With the frames chosen for it; None = the request was refused unread.
        """
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
        waits_for_frame: Whether it does just now.
        attempt: Completed with the backend's answer; one about damaged frames alone does not end
            the request, for there may be others. Belongs to the executor.
    """

    admitted: Admitted
    reply: Future[AnswerMsg]
    feedback: Callable[[AnswerChunkMsg], None] | None = None
    stream: AnswerStream | None = None
    waits_for_frame: bool = False
    attempt: Future[Answer] | None = None

    @property
    def request_id(self) -> str:
        """The caller's, or made up."""
        return self.admitted.facts.request_id

    @property
    def is_look(self) -> bool:
        """Whether a watch asks (see `RequestFacts`)."""
        return self.admitted.facts.is_look


@dataclass(slots=True)
class RequestCounts:
    """How requests came and ended, since the start.

    Attributes:
        answered: With a good answer.
        failed: For any other reason than the next two.
        cancelled: Somebody took them back.
        turned_away: There was no room for them (any more), or a newer one took the chip.
        largest_burst: Most that came without a pause.
    """

    answered: int = 0
    failed: int = 0
    cancelled: int = 0
    turned_away: int = 0
    largest_burst: int = 0


def _is_about_damage(chunk: AnswerChunk, answer: Answer) -> bool:
    """Return whether nothing was said, for none of the cameras' frames could be decoded."""
    is_bad = answer.error_code is ErrorCode.BAD_IMAGE and bool(answer.bad_frames)
    return is_bad and chunk.sequence == 0


class OpenRequests:
    """All requests that have no final chunk yet.

    The one register that knows requests before the backend does (they wait for a frame), and what
    ROS is owed for each: a reply, feedback, the last chunk.

    Args:
        publisher: Where answers go.
        wake: Wakes the executor, so that it sees a completed reply.
        limit: Most requests that run or wait.
        policy: What becomes of one more; anything but a `QueuePolicy` counts as 'queue'.
        clock: Steady time.
        info: Says which model is loaded, for the answers that are made here; None = none is.
    """

    def __init__(  # noqa: PLR0913 (keywords)
        self,
        publisher: AnswerPublisher,
        wake: Callable[[], None],
        info: Callable[[], ModelInfo | None],
        *,
        limit: int,
        policy: str = QueuePolicy.QUEUE.value,
        clock: Clock,
    ) -> None:
        self._publisher = publisher
        self._wake = wake
        self._limit = 1 if policy == QueuePolicy.REJECT.value else limit
        self._policy = policy
        self._clock = clock
        self._info = info
        self._came_ns = 0
        self._burst = 0
        self._flood_ns = 0
        self._open: dict[str, OpenRequest] = {}
        self._lock = threading.Lock()
        self.counts = RequestCounts()

    def __len__(self) -> int:
        return sum(not request.is_look for request in tuple(self._open.values()))

    @property
    def limit(self) -> int:
        """Most requests that run or wait."""
        return self._limit

    @property
    def policy(self) -> str:
        """What becomes of one more."""
        return self._policy

    def by_turn(self) -> list[str]:
        """Name the open requests: those that run, then the others by their turn."""
        with self._lock:
            asked = (request for request in self._open.values() if not request.is_look)
            return [request.request_id for request in sorted(asked, key=_turn)]

    def came(self) -> None:
        """Take note that a request has come; the executor's thread says so of each."""
        now_ns = self._clock.now_ns()
        has_paused = now_ns - self._came_ns >= PAUSE_NS
        self._burst = 1 if has_paused else self._burst + 1
        self._came_ns = now_ns
        self.counts.largest_burst = max(self.counts.largest_burst, self._burst)
        if self._burst >= qos.SERVICE.depth:
            self._flood_ns = now_ns

    @property
    def was_flooded(self) -> bool:
        """Whether lately so many came on end that the middleware may have dropped some unseen."""
        return 0 < self._flood_ns > self._clock.now_ns() - FLOOD_NOTED_NS

    def check_room(self, request_id: str, *, is_look: bool = False) -> None:
        """Refuse one more request, if there is no room; the executor's thread asks, then adds.

        A look takes none: it is asked for only while nobody waits.

        Raises:
            BadRequestError: A request of that id is running (DUPLICATE_REQUEST).
            BusyError: As many requests as `queue_size` allows are open.
        """
        with self._lock:
            if request_id in self._open:
                raise BadRequestError(
                    f'a request with request_id {request_id!r} is still running',
                    ErrorCode.DUPLICATE_REQUEST,
                )
            refusal = '' if is_look else self._refusal(len(self))
        if refusal:
            raise BusyError(refusal)

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
        """End a request from here, with what had been said; return whether this did it.

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
        if facts.is_look:
            return message
        with self._lock:
            self._count(answer)
            if error.code is not ErrorCode.DUPLICATE_REQUEST:
                self._publisher.publish_chunk(chunk)
                self._publisher.publish_answer(message)
        if feedback is not None:
            feedback(chunk)
        return message

    def matching(self, request_id: str = '') -> list[OpenRequest]:
        """List the open requests of that id, or all that are no look (''), oldest first."""
        with self._lock:
            if request_id:
                return [r for r in self._open.values() if r.request_id == request_id]
            return [r for r in self._open.values() if not r.is_look]

    def looks(self) -> list[OpenRequest]:
        """List the open requests of watches."""
        with self._lock:
            return [request for request in self._open.values() if request.is_look]

    def _refusal(self, number: int) -> str:
        """Say why there is no room for one more request; '' = there is."""
        if self._policy == QueuePolicy.REJECT.value:
            is_free = not number
            return '' if is_free else 'another one is being answered (queue_policy is reject)'
        if self._policy in {QueuePolicy.REPLACE_OLDEST.value, QueuePolicy.PREEMPT.value}:
            most = self._limit + ON_THEIR_WAY  # The model process says who has to go.
            where = 'run, wait or are on their way to the model'
        else:
            most, where = self._limit, 'run or wait'
        if number < most:
            return ''
        return f'{number} requests {where}, the limit is {most} (parameter queue_size)'

    def _failed(self, request: OpenRequest, error: EdgeVlmError, text: str = '') -> Answer:
        admitted, stream = request.admitted, request.stream
        question = admitted.question
        timings = Timings.outside(
            asked_ns=question.asked_ns,
            now_ns=self._clock.now_ns(),
            begun_ns=stream.begun_ns if stream is not None else 0,
            first_text_ns=stream.first_text_ns if stream is not None else 0,
        )
        if request.waits_for_frame:  # From its coming on: nothing else takes time before.
            facts = replace(admitted.facts, frame_wait_s=timings.total_s)
            request.admitted = replace(admitted, facts=facts)
        answer = Answer.failed(
            request.request_id, error, session_id=question.session_id, text=text
        )
        answer = replace(answer, frames=frames_of(question, question.asked_ns), timings=timings)
        return signed(answer, self._info())

    def _publish(self, request: OpenRequest, chunk: AnswerChunk) -> None:
        admitted = request.admitted
        if admitted.facts.is_look:
            return
        message = chunk_to_ros(chunk, admitted.facts, admitted.question.frames)
        self._publisher.publish_chunk(message)
        if request.feedback is not None:
            request.feedback(message)

    def _end(self, request: OpenRequest, chunk: AnswerChunk, answer: Answer) -> None:
        del self._open[request.request_id]
        admitted = request.admitted
        message = answer_to_ros(answer, admitted.facts, admitted.question.frames)
        try:
            if not request.is_look:
                self._count(answer)
                self._publish(request, chunk)
                self._publisher.publish_answer(message, admitted.question)
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
        elif answer.error_code in {ErrorCode.BUSY, ErrorCode.PREEMPTED}:
            self.counts.turned_away += 1
        else:
            self.counts.failed += 1


def _turn(request: OpenRequest) -> tuple[bool, int]:
    """Rank requests by their turn; of equal ones, the order in which they came holds."""
    runs = request.stream is not None and request.stream.begun_ns > 0
    return not runs, -request.admitted.question.priority
