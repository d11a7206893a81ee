"""Requests of every kind, from their coming to their reply.

Replies that take long are coroutines on the executor's thread; see `requests.py` for what happens
on the thread that reads the model process. Nothing here knows the node's lifecycle: who owns this
says what answers (`backend`), and why nothing is taken now (`closed`).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from rclpy.action.server import CancelResponse
from rclpy.task import Future

from edge_vlm_ros.action import Ask as AskAction
from edge_vlm_ros.core import (
    NS_PER_S,
    CancelledError,
    EdgeVlmError,
    ErrorCode,
    NoFreshFrameError,
    NotReadyError,
    PreemptedError,
    clipped_name,
)
from edge_vlm_ros.msg import Answer as AnswerMsg
from edge_vlm_ros.msg import AnswerChunk as AnswerChunkMsg
from edge_vlm_ros.nodes.admission import Admission, admit
from edge_vlm_ros.nodes.conversions import RequestFacts
from edge_vlm_ros.nodes.frame_waits import FrameWaits, with_wait
from edge_vlm_ros.nodes.requests import OpenRequest, OpenRequests
from edge_vlm_ros.scheduling import QueuePolicy
from edge_vlm_ros.srv import Ask, Cancel, Describe, ResetSession

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rclpy.action.server import ServerGoalHandle
    from rclpy.node import Node

    from edge_vlm_ros.core import Answer, AnswerChunk
    from edge_vlm_ros.nodes.admission import Admitted, Feed
    from edge_vlm_ros.nodes.ahead import Ahead
    from edge_vlm_ros.nodes.conversions import AskRequest
    from edge_vlm_ros.nodes.frame_waits import FrameWaits
    from edge_vlm_ros.nodes.node_time import Moment, NodeTime
    from edge_vlm_ros.nodes.request_parameters import RequestParameters
    from edge_vlm_ros.nodes.requests import AnswerPublisher
    from edge_vlm_ros.serving import Backend, ModelInfo

MAX_KNOWN_SESSIONS = 1000
"""Conversations whose names are known: a question that goes on with one that is kept no more, for
whatever reason, is refused, and not answered about something else."""

MAX_ATTEMPTS = 16
"""How often a request may be asked about other frames, its own being damaged."""


class Answering:
    """Takes requests, asks the backend about the frames they mean, gives each its reply.

    The executor's thread alone, but for the chunks.

    Args:
        node: Whose executor runs the coroutines; any node.
        cameras: By name; the first is the default. The owner adds and removes them.
        publisher: Where answers go beside the replies.
        parameters: What a request may leave open.
        waits: For a camera's next frame.
        time: The node's clocks.
        wake: Wakes the executor; called on any thread.
        limit: Most requests that run or wait.
        policy: What becomes of one more.
    """

    def __init__(  # noqa: PLR0913 (keywords)
        self,
        node: Node,
        *,
        cameras: Mapping[str, Feed],
        publisher: AnswerPublisher,
        parameters: RequestParameters,
        waits: FrameWaits,
        time: NodeTime,
        wake: Callable[[], None],
        limit: int,
        policy: str = QueuePolicy.QUEUE.value,
    ) -> None:
        self.backend: Backend | None = None
        """What answers; None while nothing does."""

        self.ahead: Ahead | None = None
        """What makes frames ready before anybody asks; None = nothing does."""

        self.closed = 'the node is unconfigured'
        """Why no request is taken; '' = requests are taken."""

        self.requests = OpenRequests(
            publisher, wake, self._info, limit=limit, policy=policy, clock=time.steady
        )
        self._node = node
        self._admission = Admission(cameras)
        self._parameters = parameters
        self._waits = waits
        self._time = time
        self._shown_sessions: OrderedDict[str, None] = OrderedDict()
        self._goal_requests: dict[bytes, str] = {}
        self._waiting_replies = 0

    @property
    def sessions(self) -> tuple[str, ...]:
        """The conversations that had a turn and were not reset, the one used last at the end."""
        return tuple(self._shown_sessions)

    @property
    def has_replies_to_send(self) -> bool:
        """Whether a caller still waits for the reply to an ended request."""
        return self._waiting_replies > 0

    def end_all(self, error: EdgeVlmError) -> None:
        """End every request now, with what has been said; the backend stops after its step."""
        for request in (*self.requests.matching(), *self.requests.looks()):
            self.requests.fail(request, error)
            if request.stream is not None:
                request.stream.cancel()  # It is over; this frees the chip.

    # --- services and action ---------------------------------------------------------------------

    async def on_ask(self, request: Ask.Request, response: Ask.Response) -> Ask.Response:
        """Answer service `ask`."""
        response.answer = await self.answer(request)
        response.success = response.answer.error_code == AnswerMsg.ERROR_NONE
        return response

    async def on_describe(
        self, request: Describe.Request, response: Describe.Response
    ) -> Describe.Response:
        """Answer service `describe`: a question whose words the node has."""
        ask = Ask.Request(
            request_id=request.request_id,
            cameras=request.cameras,
            last_seconds=request.last_seconds,
            max_frames=request.max_frames,
            timeout_s=request.timeout_s,
            priority=request.priority,
        )
        response.answer = await self.answer(ask, preset=request.preset)
        response.success = response.answer.error_code == AnswerMsg.ERROR_NONE
        return response

    async def on_goal(self, goal: ServerGoalHandle[Any, Any, Any]) -> AskAction.Result:
        """Execute a goal of action `ask`; its feedback are the chunks."""
        goal_id = bytes(goal.goal_id.uuid)
        self._goal_requests[goal_id] = goal.request.request_id or goal_id.hex()
        try:
            answer = await self.answer(goal.request, goal=goal)
        finally:
            del self._goal_requests[goal_id]
            # rclpy keeps a goal as long as its result can be fetched.
            goal.request.images = []
            goal.request.compressed_images = []
        is_success = answer.error_code == AnswerMsg.ERROR_NONE
        if is_success:
            goal.succeed()
        elif goal.is_cancel_requested:
            goal.canceled()
        else:
            goal.abort()
        return AskAction.Result(success=is_success, answer=answer)

    def on_cancel_goal(self, goal: ServerGoalHandle[Any, Any, Any]) -> CancelResponse:
        """Cancel a goal; one that is not executed yet is cancelled when it is."""
        request_id = self._goal_requests.get(bytes(goal.goal_id.uuid))
        if request_id is not None:
            self.cancel(request_id)
        return CancelResponse.ACCEPT

    def on_cancel(self, request: Cancel.Request, response: Cancel.Response) -> Cancel.Response:
        """Answer service `cancel`."""
        number = len(self.requests)
        response.cancelled = self.cancel(request.request_id)
        response.message = f'{response.cancelled} of {number} requests cancelled'
        return response

    def on_reset_session(
        self, request: ResetSession.Request, response: ResetSession.Response
    ) -> ResetSession.Response:
        """Answer service `reset_session`."""
        known = list(self._shown_sessions)
        session_id = clipped_name(request.session_id)
        chosen = [s for s in known if session_id in {'', s}]
        for name in chosen:
            del self._shown_sessions[name]
        if self.backend is not None:
            self.backend.reset_session(session_id)
        if self.ahead is not None:
            self.ahead.forget(session_id)
        response.success = bool(chosen)
        response.message = f'{len(chosen)} of {len(known)} conversations forgotten'
        return response

    # --- one request -----------------------------------------------------------------------------

    async def answer(
        self,
        request: AskRequest,
        *,
        preset: str | None = None,
        goal: ServerGoalHandle[Any, Any, Any] | None = None,
        is_look: bool = False,
    ) -> AnswerMsg:
        """Answer a request of any kind; whatever goes wrong is an answer, too.

        Args:
            request: The service's request or the action's goal.
            preset: Name of the question to ask instead of the request's own.
            goal: Given every chunk as feedback.
            is_look: It is a watch's, and nobody's business but the watch's (see `RequestFacts`).
        """
        asked = self._time.now()
        made_up = bytes(goal.goal_id.uuid).hex() if goal is not None else uuid4().hex
        facts = RequestFacts(
            # What is too long is refused; the refusal repeats it, too.
            request_id=clipped_name(request.request_id or made_up),
            session_id=clipped_name(request.session_id),
            asked=asked,
            is_look=is_look,
        )
        feedback = None if goal is None else _feedback_of(goal)
        self._waiting_replies += 1
        if not is_look:
            self.requests.came()
        try:
            if preset is not None:
                request.question = self._parameters.preset(preset)
            opened = self._open(request, facts, feedback)
            if goal is not None and goal.is_cancel_requested:
                self.cancel(facts.request_id)
            await self._ask(opened)
            answer: AnswerMsg = await opened.reply
        except EdgeVlmError as error:
            self._node.get_logger().debug(f'request {facts.request_id} refused: {error}')
            answer = self.requests.refuse(facts, error, feedback)
        except Exception as error:  # noqa: BLE001 - an exception here would end the node
            answer = self.requests.refuse(facts, self._internal(facts, error), feedback)
        finally:
            self._waiting_replies -= 1
        if answer.error_code == AnswerMsg.ERROR_NONE:
            self._remember_session(facts.session_id)
        elif answer.error_code == AnswerMsg.ERROR_UNKNOWN_SESSION:
            self._shown_sessions.pop(facts.session_id, None)
        return answer

    def cancel(self, request_id: str = '') -> int:
        """End one request early, or all (''); return how many there were.

        Those that the backend has end with its word, soon.
        """
        chosen = self.requests.matching(request_id)
        for request in chosen:
            if request.stream is None:
                self.requests.fail(request, CancelledError('cancelled before it was asked'))
            elif not request.stream.cancel():  # Its frames were damaged; others were to be tried.
                self.requests.fail(request, CancelledError('cancelled before it was asked again'))
        return len(chosen)

    def _end_looks(self) -> None:
        for look in self.requests.looks():
            if self.requests.fail(look, PreemptedError('a question came')) and look.stream:
                look.stream.cancel()

    def _open(
        self,
        request: AskRequest,
        facts: RequestFacts,
        feedback: Callable[[AnswerChunkMsg], None] | None,
    ) -> OpenRequest:
        """Check all that needs no frame, and take the request in."""
        if self.backend is None or self.closed:
            raise NotReadyError(self.closed)
        admitted = admit(request, facts, self._parameters.defaults())
        if not facts.is_look and self.requests.policy == QueuePolicy.REJECT.value:
            self._end_looks()  # Nobody is turned away for one.
        self.requests.check_room(facts.request_id, is_look=facts.is_look)
        opened = OpenRequest(admitted, Future(executor=self._node.executor), feedback)
        self.requests.add(opened)
        return opened

    async def _ask(self, request: OpenRequest) -> None:
        """Choose the frames of an open request, and ask the backend; an error ends the request.

        Where the backend could decode none of them, others are tried.
        """
        try:
            damage: EdgeVlmError | None = None
            for _ in range(MAX_ATTEMPTS):
                await self._choose_frames(request)
                damage = await self._attempt(request)
                if damage is None:
                    return
            assert damage is not None
            self.requests.fail(request, damage)
        except EdgeVlmError as error:
            self.requests.fail(request, error)
        except Exception as error:  # noqa: BLE001 - the request is open and must end
            self.requests.fail(request, self._internal(request.admitted.facts, error))

    async def _attempt(self, request: OpenRequest) -> EdgeVlmError | None:
        """Ask the backend once; return why its frames are of no use, None = the request is over.

        The cameras forget the frames that could not be decoded, whatever became of the answer.
        """
        if self.backend is None or request.reply.done():
            return None
        attempt: Future[Answer] = Future(executor=self._node.executor)
        request.attempt = attempt
        request.stream = self.backend.ask(request.admitted.question, self._on_chunk)
        answer = await attempt
        assert answer is not None
        self._admission.drop_bad(answer.bad_frames)
        if self.ahead is not None and not request.is_look:
            self.ahead.answered(request.admitted, answer)
        return None if request.reply.done() else EdgeVlmError(answer.message, answer.error_code)

    async def _choose_frames(self, request: OpenRequest) -> None:
        """Choose the frames of a request; wait for one while there is none that is fresh enough.

        Returns early when the request has ended meanwhile.
        """
        now = request.admitted.facts.asked
        has_waited = False
        while not request.reply.done():
            admitted = request.admitted
            try:
                request.admitted = self._chosen(admitted, now)
            except NoFreshFrameError as error:
                if self._time.now().steady_ns >= admitted.frame_wait_ns:
                    raise with_wait(error, admitted.facts.frame_wait_s) from None
            else:
                return
            if not has_waited:
                has_waited = True
                request.reply.add_done_callback(self._waits.end)
            request.waits_for_frame = True
            await self._waits.next_frame(request.reply, admitted.frame_wait_ns)
            request.waits_for_frame = False
            now = self._time.now()
            waited_s = (now.steady_ns - admitted.question.asked_ns) / NS_PER_S
            facts = replace(admitted.facts, frame_wait_s=waited_s)
            request.admitted = replace(admitted, facts=facts)

    def _chosen(self, admitted: Admitted, now: Moment) -> Admitted:
        """Return a request with its frames: those that are ready, where it is about these."""
        info = self._info()
        has_turns = admitted.facts.session_id in self._shown_sessions
        most, usual = (info.max_images, info.usual_frames) if info is not None else (0, 0)
        chosen = self._admission.choose(
            admitted, now=now, max_images=most, usual_frames=usual, has_shown_frames=has_turns
        )
        if self.ahead is None:
            return chosen
        return self.ahead.choose(chosen, now, has_turns=has_turns)

    def _on_chunk(self, chunk: AnswerChunk) -> None:
        # On a thread of the backend's.
        try:
            self.requests.on_chunk(chunk)
        except Exception as error:  # noqa: BLE001 - nothing may end the reader thread
            self._node.get_logger().error(f'chunk of {chunk.request_id} not published: {error}')

    def _info(self) -> ModelInfo | None:
        return self.backend.info if self.backend is not None else None

    def _internal(self, facts: RequestFacts, error: Exception) -> EdgeVlmError:
        known = EdgeVlmError(f'{type(error).__name__}: {error}', ErrorCode.INTERNAL)
        self._node.get_logger().error(f'request {facts.request_id}: {known}')
        return known

    def _remember_session(self, session_id: str) -> None:
        if not session_id:
            return
        self._shown_sessions[session_id] = None
        self._shown_sessions.move_to_end(session_id)
        while len(self._shown_sessions) > MAX_KNOWN_SESSIONS:
            self._shown_sessions.popitem(last=False)


def _feedback_of(goal: ServerGoalHandle[Any, Any, Any]) -> Callable[[AnswerChunkMsg], None]:
    def publish(chunk: AnswerChunkMsg) -> None:
        goal.publish_feedback(AskAction.Feedback(chunk=chunk))

    return publish
