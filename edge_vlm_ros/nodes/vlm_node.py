"""The `vlm` node: cameras in, questions in, answers out.

Lifecycle, and why it is so. rclpy runs a transition's callback to its end on the executor's
thread, and a model takes up to 40 s to load. So *configure* checks all that can be checked at once
(parameters, the chip, the model's files), starts the model process and returns: the node is then
inactive, `~/state` says `loading` (and how far), and services, parameters and diagnostics answer
as ever. *Activate* subscribes to the cameras and takes requests; those that come before the model
is loaded wait for it, each no longer than its own timeout. Where loading fails after all (a
damaged file, a dead chip), the node deactivates and cleans up by itself: it is unconfigured then,
the reason in the log, in diagnostics and in every refused request. *Deactivate* ends the requests
and keeps the weights; *cleanup* frees them.

One thread runs every callback here. Replies that take long are coroutines; see `requests.py` for
what happens on the thread that reads the model process.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.action.server import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import (  # type: ignore[attr-defined] # Humble has ClockType nowhere else
    Clock,
    ClockType,
    JumpThreshold,
    TimeJump,
)
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.task import Future
from std_msgs.msg import String

from edge_vlm_ros.action import Ask as AskAction
from edge_vlm_ros.core import (
    NS_PER_S,
    CancelledError,
    DeadlineError,
    EdgeVlmError,
    ErrorCode,
    NoFreshFrameError,
    NotReadyError,
    SteadyClock,
)
from edge_vlm_ros.models import find_model
from edge_vlm_ros.msg import Answer as AnswerMsg
from edge_vlm_ros.msg import AnswerChunk as AnswerChunkMsg
from edge_vlm_ros.nodes import diagnostics, qos
from edge_vlm_ros.nodes.admission import (
    Admission,
    frame_wait_ns,
    question_from,
    with_frames,
)
from edge_vlm_ros.nodes.cameras import CameraFeed
from edge_vlm_ros.nodes.conversions import RequestFacts
from edge_vlm_ros.nodes.declaring import SettingsError
from edge_vlm_ros.nodes.engine_link import EngineLink, LoadingLog
from edge_vlm_ros.nodes.frame_waits import FrameWaits
from edge_vlm_ros.nodes.parameters import (
    VlmSettings,
    declare_parameters,
    read_preset,
    read_request_defaults,
    read_settings,
)
from edge_vlm_ros.nodes.requests import OpenRequest, OpenRequests
from edge_vlm_ros.serving import EnginePhase, EngineState, ModelSpec, ServingSettings
from edge_vlm_ros.srv import Ask, Cancel, Describe, ResetSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.action.server import ServerGoalHandle
    from rclpy.lifecycle import LifecycleState

    from edge_vlm_ros.core import Question
    from edge_vlm_ros.nodes.conversions import AskRequest
    from edge_vlm_ros.nodes.parameters import RequestDefaults

TICK_S = 1.0
MAX_SESSIONS = 16
DEADLINE_GRACE_NS = NS_PER_S
"""The model process ends a question at its deadline; so much later, the node does."""

RESULT_TIMEOUT_S = 60
"""How long the result of a finished goal can be fetched; the default differs by distribution."""


class VlmNode(LifecycleNode):
    """Answers questions about what the cameras see.

    Args:
        options: For `rclpy.lifecycle.LifecycleNode`: namespace, parameter_overrides, context, ...

    Raises:
        SettingsError: `cameras` or `presets` holds what cannot be a name.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__('vlm', **options)
        declare_parameters(self)
        self.settings: VlmSettings | None = None
        self.failed: Future[str] = Future()
        """Done when the start failed, or the model process gave up; its result is the reason."""

        self._steady = SteadyClock()
        self._failure = ''
        self._is_accepting = False
        self._engine: EngineLink | None = None
        self._loading_log = LoadingLog()
        self._feeds: dict[str, CameraFeed] = {}
        self._admission = Admission(self._feeds)
        self._shown_sessions: OrderedDict[str, None] = OrderedDict()
        self._goal_requests: dict[bytes, str] = {}
        self._waiting_replies = 0
        self._handed_over: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._group = ReentrantCallbackGroup()
        self._frame_waits = FrameWaits(self, self._steady, self._group)
        self._guard = self.create_guard_condition(self._run_handed_over, self._group)
        self._requests = OpenRequests(
            self, self._guard.trigger, int(self.get_parameter('queue_size').value)
        )
        self._open_outlets()
        self._open_services()
        self._timer = self.create_timer(
            TICK_S, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._jump = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True
            ),
            post_callback=self._on_time_jump,
        )
        self._publish_state()

    def start(self) -> bool:
        """Configure and activate; tell whether the node is active. For `autostart`."""
        success = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == success and self.trigger_activate() == success

    # --- lifecycle -------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check everything that can be checked at once, and start to load the model."""
        try:
            self.settings = read_settings(self)
            self._load_model(self.settings)
        except (SettingsError, EdgeVlmError) as error:
            self._fail(f'cannot configure: {error}')
            return TransitionCallbackReturn.FAILURE
        except Exception as error:  # noqa: BLE001 - rclpy would hide it
            self._fail(f'cannot configure: {type(error).__name__}: {error}')
            return TransitionCallbackReturn.ERROR
        self._failure = ''
        self._publish_state()
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the cameras and take requests."""
        assert self.settings is not None
        try:
            for camera in self.settings.cameras:
                feed = CameraFeed(
                    self, camera, self._steady, self._group, self._frame_waits.frame_came
                )
                self._feeds[camera.name] = feed
        except Exception as error:  # noqa: BLE001 - rclpy would hide it
            self._close_cameras()
            self._fail(f'cannot activate: {type(error).__name__}: {error}')
            return TransitionCallbackReturn.FAILURE
        self._is_accepting = True
        self._publish_state()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End all requests and the camera subscriptions; the model stays loaded."""
        self._stop_accepting('the node was deactivated')
        self._publish_state()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model."""
        self._close_engine()
        self._publish_state()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End everything."""
        self.close()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, so that the node can be configured again."""
        self.close()
        self._publish_state()
        super().on_error(state)
        return TransitionCallbackReturn.SUCCESS

    def close(self, reason: str = 'the node shuts down') -> None:
        """End every request with its final chunk, the cameras and the model process.

        Safe to call twice. Replies are sent by the executor: spin while `has_replies_to_send`.
        """
        self._stop_accepting(reason)
        self._close_engine()

    def destroy_node(self) -> None:
        """End everything and leave the ROS graph."""
        self.close()
        self._jump.unregister()
        self._action.destroy()
        super().destroy_node()

    @property
    def has_replies_to_send(self) -> bool:
        """Whether a caller still waits for the reply to an ended request."""
        return self._waiting_replies > 0

    # --- the model -------------------------------------------------------------------------------

    def _load_model(self, settings: VlmSettings) -> None:
        model_dirs = tuple(Path(folder) for folder in settings.model_dirs)
        files = find_model(settings.chip, settings.model, model_dirs)
        spec = ModelSpec(
            chip=settings.chip,
            model=settings.model,
            device_ids=settings.device_ids,
            model_dirs=model_dirs,
            options=dict(settings.engine_options),
        )
        self._engine = EngineLink(
            spec,
            ServingSettings(max_waiting=settings.queue_size, max_sessions=MAX_SESSIONS),
            on_chunk=self._on_chunk,
            on_state=self._on_engine_state,
            hand_over=self._hand_over,
        )
        self._engine.start()
        self.get_logger().info(f'loading {files.name} for {settings.chip} from {files.folder}')

    def _on_chunk(self, chunk: Any) -> None:
        # On the reader thread of the model process.
        try:
            self._requests.on_chunk(chunk)
        except Exception as error:  # noqa: BLE001 - nothing may end the reader thread
            self.get_logger().error(f'chunk of {chunk.request_id} not published: {error}')

    def _on_engine_state(self, state: EngineState) -> None:
        if state.phase is EnginePhase.READY and state.info is not None:
            self.get_logger().info(f'ready: {state.info.model} on {state.info.chip}')
        elif state.loading is not None:
            if self._loading_log.is_worth_a_line(state.loading):
                self.get_logger().info(state.message)
        elif state.phase is EnginePhase.STARTING and state.restarts:
            # What a conversation has shown died with the process.
            self._shown_sessions.clear()
            self.get_logger().warning(f'the model process is started again: {state.message}')
        elif state.phase is EnginePhase.FAILED:
            self._fail(f'the model cannot be loaded: {state.message}')
            self._unload(EdgeVlmError(state.message, state.error_code))
        self._publish_state()
        self._publish_diagnostics()

    def _unload(self, error: EdgeVlmError) -> None:
        """Go back to unconfigured, the model process having given up."""
        self._requests.fail_all(error)
        if self._lifecycle_label() == 'active':
            self.trigger_deactivate()
        if self._lifecycle_label() == 'inactive':
            self.trigger_cleanup()

    def _fail(self, reason: str) -> None:
        self._failure = reason
        self.get_logger().error(reason)
        self._publish_state()
        self._publish_diagnostics()
        if not self.failed.done():
            self.failed.set_result(reason)

    def _stop_accepting(self, reason: str) -> None:
        self._is_accepting = False
        for request_id in self._requests.request_ids():
            if self._engine is not None:
                self._engine.cancel(request_id)
        self._requests.fail_all(CancelledError(reason))
        self._close_cameras()

    def _close_cameras(self) -> None:
        for feed in self._feeds.values():
            feed.close()
        self._feeds.clear()

    def _close_engine(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
        self._shown_sessions.clear()

    # --- requests --------------------------------------------------------------------------------

    async def _on_ask(self, request: Ask.Request, response: Ask.Response) -> Ask.Response:
        response.answer = await self._answer(request)
        response.success = response.answer.error_code == AnswerMsg.ERROR_NONE
        return response

    async def _on_describe(
        self, request: Describe.Request, response: Describe.Response
    ) -> Describe.Response:
        ask = Ask.Request(
            request_id=request.request_id,
            cameras=request.cameras,
            last_seconds=request.last_seconds,
            max_frames=request.max_frames,
            timeout_s=request.timeout_s,
        )
        response.answer = await self._answer(ask, preset=request.preset)
        response.success = response.answer.error_code == AnswerMsg.ERROR_NONE
        return response

    async def _on_goal(self, goal: ServerGoalHandle[Any, Any, Any]) -> AskAction.Result:
        goal_id = bytes(goal.goal_id.uuid)
        request_id = goal.request.request_id or goal_id.hex()

        def feedback(message: AnswerChunkMsg) -> None:
            goal.publish_feedback(AskAction.Feedback(chunk=message))

        self._goal_requests[goal_id] = request_id
        try:
            answer = await self._answer(goal.request, goal=goal, feedback=feedback)
        finally:
            self._goal_requests.pop(goal_id, None)
        is_success = answer.error_code == AnswerMsg.ERROR_NONE
        if is_success:
            goal.succeed()
        elif goal.is_cancel_requested:
            goal.canceled()
        else:
            goal.abort()
        return AskAction.Result(success=is_success, answer=answer)

    def _on_cancel_goal(self, goal: ServerGoalHandle[Any, Any, Any]) -> CancelResponse:
        request_id = self._goal_requests.get(bytes(goal.goal_id.uuid))
        if request_id is not None:
            self._cancel(request_id)
        return CancelResponse.ACCEPT

    def _on_cancel(self, request: Cancel.Request, response: Cancel.Response) -> Cancel.Response:
        open_ids = self._requests.request_ids()
        chosen = [i for i in open_ids if request.request_id in {'', i}]
        for request_id in chosen:
            self._cancel(request_id)
        response.cancelled = len(chosen)
        response.message = f'{len(chosen)} of {len(open_ids)} requests cancelled'
        return response

    def _on_reset_session(
        self, request: ResetSession.Request, response: ResetSession.Response
    ) -> ResetSession.Response:
        known = list(self._shown_sessions)
        chosen = [s for s in known if request.session_id in {'', s}]
        for session_id in chosen:
            del self._shown_sessions[session_id]
        if self._engine is not None:
            self._engine.reset_session(request.session_id)
        response.success = bool(chosen)
        response.message = f'{len(chosen)} of {len(known)} conversations forgotten'
        return response

    def _cancel(self, request_id: str) -> None:
        engine = self._engine
        is_asked = self._requests.is_asked(request_id)
        if engine is None or not is_asked or engine.cancel(request_id):
            self._requests.fail(request_id, CancelledError('cancelled before it was asked'))

    async def _answer(
        self,
        request: AskRequest,
        *,
        preset: str | None = None,
        goal: ServerGoalHandle[Any, Any, Any] | None = None,
        feedback: Callable[[AnswerChunkMsg], None] | None = None,
    ) -> AnswerMsg:
        """Answer a request of any kind; whatever goes wrong is an answer, too."""
        asked_ns = self._steady.now_ns()
        made_up = bytes(goal.goal_id.uuid).hex() if goal is not None else uuid.uuid4().hex
        facts = RequestFacts(
            request_id=request.request_id or made_up,
            session_id=request.session_id,
            asked_ros_ns=int(self.get_clock().now().nanoseconds),
        )
        self._waiting_replies += 1
        try:
            if preset is not None:
                request.question = self._preset(preset)
            opened, question, defaults = self._open(request, facts, asked_ns, feedback)
            if goal is not None and goal.is_cancel_requested:
                self._cancel(facts.request_id)
            await self._ask(request, opened, question, defaults)
            answer: AnswerMsg = await opened.reply
        except EdgeVlmError as error:
            self.get_logger().debug(f'request {facts.request_id} refused: {error}')
            answer = self._requests.refuse(facts, error, feedback)
        except Exception as error:  # noqa: BLE001 - an exception here would end the node
            answer = self._requests.refuse(facts, self._internal(facts, error), feedback)
        finally:
            self._waiting_replies -= 1
        if facts.session_id and answer.error_code == AnswerMsg.ERROR_NONE:
            self._remember_session(facts.session_id)
        elif answer.error_code == AnswerMsg.ERROR_UNKNOWN_SESSION:
            self._shown_sessions.pop(facts.session_id, None)
        return answer

    def _open(
        self,
        request: AskRequest,
        facts: RequestFacts,
        asked_ns: int,
        feedback: Callable[[AnswerChunkMsg], None] | None,
    ) -> tuple[OpenRequest, Question, RequestDefaults]:
        """Check all that needs no frame, and take the request in."""
        if self._engine is None or not self._is_accepting:
            raise NotReadyError(self._failure or f'the node is {self._lifecycle_label()}')
        self._requests.check_room(facts.request_id)
        defaults = read_request_defaults(self)
        question = question_from(request, facts, defaults, asked_ns)
        reply: Future[AnswerMsg] = Future(executor=self.executor)
        opened = OpenRequest(facts, reply, feedback, question.deadline_ns)
        self._requests.add(opened)
        return opened, question, defaults

    async def _ask(
        self,
        request: AskRequest,
        opened: OpenRequest,
        question: Question,
        defaults: RequestDefaults,
    ) -> None:
        """Choose the frames of an open request, and ask the model; an error ends the request."""
        facts = opened.facts
        try:
            await self._choose_frames(request, opened, question, defaults)
            if self._engine is not None and not opened.reply.done():
                opened.is_asked = True
                self._engine.ask(with_frames(question, opened.facts))
        except EdgeVlmError as error:
            self._requests.fail(facts.request_id, error)
        except Exception as error:  # noqa: BLE001 - the request is open and must end
            self._requests.fail(facts.request_id, self._internal(facts, error))

    async def _choose_frames(
        self,
        request: AskRequest,
        opened: OpenRequest,
        question: Question,
        defaults: RequestDefaults,
    ) -> None:
        """Choose the frames of a request; wait for one while there is none that is fresh enough.

        Returns early when the request has ended meanwhile.
        """
        stop_ns = frame_wait_ns(request, opened.facts, defaults, question)
        has_waited = False
        while not opened.reply.done():
            limits = self._engine.limits if self._engine is not None else None
            try:
                opened.facts = self._admission.choose(
                    request,
                    opened.facts,
                    defaults,
                    max_images=limits.max_images if limits is not None else 0,
                    has_shown_frames=opened.facts.session_id in self._shown_sessions,
                    now_ns=int(self.get_clock().now().nanoseconds) if has_waited else 0,
                )
            except NoFreshFrameError as error:
                if self._steady.now_ns() >= stop_ns:
                    raise _with_wait(error, opened.facts.frame_wait_s) from None
            else:
                return
            if not has_waited:
                has_waited = True
                opened.reply.add_done_callback(self._frame_waits.end)
            await self._frame_waits.next_frame(opened.reply, stop_ns)
            waited_s = (self._steady.now_ns() - question.asked_ns) / NS_PER_S
            opened.facts = replace(opened.facts, frame_wait_s=waited_s)

    def _internal(self, facts: RequestFacts, error: Exception) -> EdgeVlmError:
        what = f'{type(error).__name__}: {error}'
        self.get_logger().error(f'request {facts.request_id}: {what}')
        return EdgeVlmError(what, ErrorCode.INTERNAL)

    def _preset(self, name: str) -> str:
        if self.settings is None:
            raise NotReadyError(self._failure or f'the node is {self._lifecycle_label()}')
        return read_preset(self, self.settings, name)

    def _remember_session(self, session_id: str) -> None:
        self._shown_sessions[session_id] = None
        self._shown_sessions.move_to_end(session_id)
        while len(self._shown_sessions) > MAX_SESSIONS:
            self._shown_sessions.popitem(last=False)

    # --- what goes out ---------------------------------------------------------------------------

    def publish_chunk(self, message: AnswerChunkMsg) -> None:
        """Publish one chunk; on any thread (see `requests.ChunkOutlet`)."""
        self._chunk_publisher.publish(message)

    def publish_answer(self, message: AnswerMsg) -> None:
        """Publish the text of a good answer for speech and for people; on any thread."""
        if message.error_code == AnswerMsg.ERROR_NONE:
            self._text_publisher.publish(String(data=message.text))

    def _open_outlets(self) -> None:
        events = qos.no_publisher_events()
        self._chunk_publisher = self.create_publisher(
            AnswerChunkMsg, '~/answer', qos.ANSWER_CHUNKS, event_callbacks=events
        )
        self._text_publisher = self.create_publisher(
            String, '~/answer_text', qos.ANSWER_TEXT, event_callbacks=events
        )
        self._state_publisher = self.create_publisher(
            String, '~/state', qos.STATE, event_callbacks=events
        )
        self._diagnostics_publisher = self.create_publisher(
            DiagnosticArray, '/diagnostics', qos.DIAGNOSTICS, event_callbacks=events
        )
        self._state_name = ''

    def _open_services(self) -> None:
        shared: dict[str, Any] = {'callback_group': self._group, 'qos_profile': qos.SERVICE}
        self.create_service(Ask, 'ask', self._on_ask, **shared)
        self.create_service(Describe, 'describe', self._on_describe, **shared)
        self.create_service(Cancel, '~/cancel', self._on_cancel, **shared)
        self.create_service(ResetSession, '~/reset_session', self._on_reset_session, **shared)
        self._action = ActionServer(
            self,
            AskAction,
            '~/ask',
            self._on_goal,
            callback_group=self._group,
            cancel_callback=self._on_cancel_goal,
            goal_service_qos_profile=qos.SERVICE,
            result_service_qos_profile=qos.SERVICE,
            cancel_service_qos_profile=qos.SERVICE,
            feedback_pub_qos_profile=qos.ANSWER_CHUNKS,
            result_timeout=RESULT_TIMEOUT_S,
        )

    def _tick(self) -> None:
        for feed in self._feeds.values():
            feed.measure()
        now_ns = self._steady.now_ns()
        for request_id in self._requests.overdue(now_ns, DEADLINE_GRACE_NS):
            if self._engine is not None:
                self._engine.cancel(request_id)
            self._requests.fail(request_id, DeadlineError('not answered in time'))
        self._publish_diagnostics()

    def _publish_state(self) -> None:
        name = self._state_word()
        if name != self._state_name:
            self._state_name = name
            self._state_publisher.publish(String(data=name))

    def _state_word(self) -> str:
        """Return the state for people and launch files: a word, ': ' and more where there is more.

        `failed: <why>`, and `loading: 12 of 30 parts` where the engine tells.
        """
        if self._failure:
            return f'failed: {self._failure}'
        if self._engine is None:
            return 'unconfigured'
        state = self._engine.state
        if state.phase is EnginePhase.STARTING:
            word = 'restarting' if state.restarts else 'loading'
            return word if state.loading is None else f'{word}: {state.loading}'
        return 'ready' if self._is_accepting else 'inactive'

    def _publish_diagnostics(self) -> None:
        hardware = self._hardware()
        name = self.get_name()
        statuses = [
            diagnostics.engine_status(name, hardware, self._engine_health()),
            diagnostics.queue_status(
                name, hardware, len(self._requests), self._requests.limit, self._requests.counts
            ),
        ]
        statuses += [
            diagnostics.camera_status(name, feed.health()) for feed in self._feeds.values()
        ]
        message = DiagnosticArray(status=statuses)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(message)

    def _engine_health(self) -> diagnostics.EngineHealth:
        message = self._state_word()
        word = message.partition(':')[0]
        values: dict[str, Any] = {'state': word}
        values['lifecycle'] = self._lifecycle_label()
        if self.settings is not None:
            values['chip'] = self.settings.chip
            values['model'] = self.settings.model or '(default)'
        if self._engine is not None:
            state = self._engine.state
            values['restarts'] = state.restarts
            values['held_questions'] = self._engine.held
            if state.message and state.loading is None:
                message = f'{word}: {state.message}'
            if state.info is not None:
                values['model'] = state.info.model
                values['load_s'] = f'{state.info.load_s:.1f}'
        if self._failure:
            return diagnostics.EngineHealth('ERROR', self._failure, values)
        level = 'OK' if word in {'ready', 'inactive'} else 'WARN'
        return diagnostics.EngineHealth(level, message, values)

    def _hardware(self) -> str:
        if self.settings is None:
            return str(self.get_parameter('chip').value)
        return f'{self.settings.chip} {",".join(map(str, self.settings.device_ids))}'.strip()

    def _lifecycle_label(self) -> str:
        # rclpy has no public word for this in any distribution.
        return str(self._state_machine.current_state[1])

    # --- the executor and the clock --------------------------------------------------------------

    def _hand_over(self, work: Callable[[], None]) -> None:
        # The guard condition also works while no executor has the node yet. Triggered, it wakes
        # the executor, which then looks at replies that wait for their future, too.
        self._handed_over.put(work)
        self._guard.trigger()

    def _run_handed_over(self) -> None:
        try:
            while not self._handed_over.empty():
                self._handed_over.get()()
        except Exception as error:  # noqa: BLE001 - an exception here would end the node
            self.get_logger().error(f'engine state not followed: {error!r}')

    def _on_time_jump(self, _jump: TimeJump) -> None:
        for feed in self._feeds.values():
            feed.clear()


def _with_wait(error: NoFreshFrameError, waited_s: float) -> NoFreshFrameError:
    if not waited_s:
        return error
    return NoFreshFrameError(f'{error.message} (waited {waited_s:.1f} s for one)', error.code)
