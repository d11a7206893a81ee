"""The `vlm` node: cameras in, questions in, answers out.

Lifecycle, and why it is so. rclpy runs a transition's callback to its end on the executor's
thread, and a model takes up to 40 s to load. So *configure* checks all that can be checked at once
(parameters, the chip, the model's files), starts the model process and returns: the node is then
inactive, `~/state` says `loading` (and how far), and services, parameters and diagnostics answer
as ever. *Activate* subscribes to the cameras and takes requests; those that come before the model
is loaded wait for it, each no longer than its own timeout. Where loading fails after all (a
damaged file, a dead chip), the node deactivates and cleans up by itself: it is unconfigured then,
the reason in the log, in diagnostics and in every refused request. *Deactivate* takes no more
requests, gives those that are open `drain_s` to end (`Draining`), then ends them, whatever the
chip does, and keeps the weights; *cleanup* frees them.

With `wait_for_model` active means able to answer: *activate* fails, and says why, while the model
is not loaded; `autostart` activates when it is. A model process that dies later leaves the node
active: its questions wait for the next one.

Here the parts are wired together: `Answering` takes the requests, `Outlets` says what goes out,
`Watching` has the cameras, a `ModelProcess` answers. One thread runs every callback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

from edge_vlm_ros.core import (
    CancelledError,
    EdgeVlmError,
    NotReadyError,
    SteadyClock,
)
from edge_vlm_ros.nodes.answering import Answering
from edge_vlm_ros.nodes.cameras import time_of
from edge_vlm_ros.nodes.declaring import SettingsError, value_of
from edge_vlm_ros.nodes.draining import Draining
from edge_vlm_ros.nodes.engine_log import EngineLog
from edge_vlm_ros.nodes.executor_inbox import ExecutorInbox
from edge_vlm_ros.nodes.frame_waits import FrameWaits
from edge_vlm_ros.nodes.outlets import Outlets
from edge_vlm_ros.nodes.parameter_sets import ParameterSets
from edge_vlm_ros.nodes.parameters import (
    VlmSettings,
    declare_parameters,
    read_preset,
    read_settings,
)
from edge_vlm_ros.nodes.request_parameters import RequestDefaults, read_request_defaults
from edge_vlm_ros.nodes.request_services import open_services
from edge_vlm_ros.nodes.same_name import SameName
from edge_vlm_ros.nodes.status import NodeStatus
from edge_vlm_ros.nodes.watches import Watches
from edge_vlm_ros.nodes.watching import Watching
from edge_vlm_ros.serving import EnginePhase, EngineState, ModelProcess, check_spec
from edge_vlm_ros.serving.process import ProcessSettings

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleState

    from edge_vlm_ros.nodes.status import Lifecycle

TICK_S = 1.0


class VlmNode(ParameterSets, LifecycleNode):
    """Answers questions about what the cameras see.

    Args:
        options: For `rclpy.lifecycle.LifecycleNode`: namespace, parameter_overrides, context, ...

    Raises:
        SettingsError: A parameter was given what makes no sense.
    """

    _is_built = False

    def __init__(self, **options: Any) -> None:
        super().__init__('vlm', **options)
        declare_parameters(self.parameters)
        self.settings: VlmSettings | None = None
        self.failed: Future[str] = Future()
        """Done when the start failed, or the model process gave up; its result is the reason."""

        self._lifecycle: Lifecycle = 'unconfigured'
        self._is_to_activate = False
        self._failure = ''
        self._process: ModelProcess | None = None
        self._engine_log = EngineLog(self.get_logger())
        steady = SteadyClock()
        self._time = time_of(self, steady)
        self._group = ReentrantCallbackGroup()
        self._inbox = ExecutorInbox(self, self._group)
        self._frame_waits = FrameWaits(self, steady, self._group)
        self._watching = Watching(
            self,
            time=self._time,
            inbox=self._inbox,
            callback_group=self._group,
            on_frame=self._frame_waits.frame_came,
            defaults=self.defaults,
        )
        self._outlets = Outlets(self, self.parameters, self._inbox.put)
        self._answering = Answering(
            self,
            cameras=self._watching.feeds,
            publisher=self._outlets,
            parameters=self,
            waits=self._frame_waits,
            time=self._time,
            wake=self._inbox.wake,
            limit=int(self.get_parameter('queue_size').value),
            policy=str(self.get_parameter('queue_policy').value),
        )
        self._watches = Watches(
            self, self._answering, self._watching, self._group, self._no_answers
        )
        self.parameters.warn_of_unknown()
        self._same_name = SameName(self)
        self._action = open_services(self, self._answering, self._group)
        self._draining = Draining(self, self, steady, self._group)
        self._timer = self.create_timer(
            TICK_S, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._jump = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True
            ),
            post_callback=self._on_time_jump,
        )
        self._is_built = True
        self._status_changed()

    def start(self) -> bool:
        """Configure and activate, for `autostart`; return whether nothing went wrong.

        With `wait_for_model` the node is activated later, when the model is loaded.
        """
        success = TransitionCallbackReturn.SUCCESS
        if self.trigger_configure() != success:
            return False
        if self._unready():
            self._is_to_activate = True
            return True
        return self.trigger_activate() == success

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
        self._enter('inactive')
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the cameras and take requests."""
        assert self.settings is not None
        assert self._process is not None
        unready = self._unready()
        if unready:
            self.get_logger().error(f'cannot activate: {unready} (parameter wait_for_model)')
            return TransitionCallbackReturn.FAILURE
        try:
            self._watching.open(self.settings, self._process)
        except Exception as error:  # noqa: BLE001 - rclpy would hide it
            self._close_cameras()
            self._fail(f'cannot activate: {type(error).__name__}: {error}')
            return TransitionCallbackReturn.FAILURE
        self._answering.ahead = self._watching.ahead
        self._watches.open()
        self._enter('active')
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End all requests that are left and the cameras; the model stays loaded."""
        self._enter('inactive')
        self._answering.end_all(CancelledError('the node was deactivated'))
        self._close_cameras()
        return super().on_deactivate(state)

    def begin_drain(self) -> float:
        """Take no more requests; return the time for those that are open (see `Drained`)."""
        seconds = float(value_of(self, 'drain_s')) if self.open_requests else 0.0
        if self._lifecycle != 'active' or not seconds:
            return 0.0
        self._enter('deactivating')
        self.get_logger().info(f'{self.open_requests} requests have {seconds:g} s to end')
        return seconds

    @property
    def open_requests(self) -> int:
        """How many have not ended (see `Drained`)."""
        return len(self._answering.requests)

    @property
    def is_draining(self) -> bool:
        """Whether nothing has ended the active state yet (see `Drained`)."""
        return self._lifecycle == 'deactivating'

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model."""
        self._is_to_activate = False
        self._close_process()
        self._enter('unconfigured')
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End everything."""
        self.close()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, so that the node can be configured again."""
        self._end_all('the node had an error')
        self._enter('unconfigured')
        super().on_error(state)
        return TransitionCallbackReturn.SUCCESS

    def close(self, reason: str = 'the node shuts down') -> None:
        """End every request with its final chunk, the cameras and the model process.

        Safe to call twice. Replies are sent by the executor: spin while `has_replies_to_send`.
        """
        if self._lifecycle != 'finalized':
            self._end_all(reason)
            self._lifecycle = 'finalized'
            self._outlets.publish_state(self._status())

    def _end_all(self, reason: str) -> None:
        self._is_to_activate = False
        self._answering.closed = reason
        self._answering.end_all(CancelledError(reason))
        self._close_cameras()
        self._close_process()

    def destroy_node(self) -> None:
        """End everything and leave the ROS graph."""
        if self._is_built:  # Else rclpy tears down what a wrong parameter has kept from being.
            self.close()
            self._jump.unregister()
            self._action.destroy()
        super().destroy_node()

    @property
    def has_replies_to_send(self) -> bool:
        """Whether a caller still waits for the reply to an ended request."""
        return self._answering.has_replies_to_send

    def _enter(self, lifecycle: Lifecycle) -> None:
        """Take note of the state that a transition leads to; rclpy has no public word for it."""
        self._lifecycle = lifecycle
        self._status_changed()

    def _fail(self, reason: str) -> None:
        self._failure = reason
        self.get_logger().error(reason)
        self._status_changed()
        self._publish_diagnostics()
        if not self.failed.done():
            self.failed.set_result(reason)

    # --- the model -------------------------------------------------------------------------------

    def _load_model(self, settings: VlmSettings) -> None:
        spec = settings.spec()
        found = check_spec(spec)

        def on_state(state: EngineState) -> None:
            self._inbox.put(lambda: self._on_engine_state(process, state))

        process = ModelProcess(
            spec,
            on_state=on_state,
            on_log=self._engine_log.on_line,
            log_level=self._engine_log.level,
            settings=settings.serving(),
            process_settings=ProcessSettings(stall_s=settings.engine_stall_s),
        )
        self._process = self._answering.backend = process
        process.start()
        self.get_logger().info(f'loading {found}')

    def _on_engine_state(self, process: ModelProcess, state: EngineState) -> None:
        if process is not self._process:
            return  # Its last words; it was closed.
        self._engine_log.on_state(state)
        if state.phase is EnginePhase.STARTING and self._watching.ahead is not None:
            self._watching.ahead.lose()
        if state.phase is EnginePhase.FAILED:
            what = 'the model cannot be loaded' if state.info is None else 'the model is given up'
            self._fail(f'{what}: {state.message}')
            self._unload(EdgeVlmError(state.message, state.error_code))
        elif state.is_ready and self._is_to_activate:
            self._is_to_activate = False
            self.trigger_activate()
        self._status_changed()
        self._publish_diagnostics()

    def _unready(self) -> str:
        """Say why the node cannot answer yet, if it must be able to before it is active."""
        settings, process = self.settings, self._process
        if settings is None or process is None or not settings.wait_for_model:
            return ''
        state = process.state
        return '' if state.is_ready else f'the model is not ready: {state.message}'

    def _no_answers(self) -> str:
        """Say why no question can be answered now; '' = one can."""
        process = self._process
        is_loaded = process is not None and process.state.is_ready
        return '' if is_loaded else self._answering.closed or 'the model is not ready'

    def _unload(self, error: EdgeVlmError) -> None:
        """Go back to unconfigured, the model process having given up."""
        self._answering.end_all(error)
        if self._lifecycle in {'active', 'deactivating'}:
            self.trigger_deactivate()
        if self._lifecycle == 'inactive':
            self.trigger_cleanup()

    def _close_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.close()
        self._answering.backend = None

    def _close_cameras(self) -> None:
        self._answering.ahead = None
        self._watches.close()
        self._watching.close()

    # --- requests and what goes out --------------------------------------------------------------

    def defaults(self) -> RequestDefaults:
        """Read the parameters that a request may leave open (see `RequestParameters`)."""
        return read_request_defaults(self)

    def preset(self, name: str) -> str:
        """Read the question of a preset (see `RequestParameters`)."""
        if self.settings is None:
            raise NotReadyError(self._status().refusal)
        return read_preset(self, self.settings, name)

    def _tick(self) -> None:
        self._time.now()  # It sees simulated time stand still only while it is looked at.
        self._watching.measure()
        self._same_name.check()
        self._publish_diagnostics()

    def _status(self) -> NodeStatus:
        settings, process = self.settings, self._process
        return NodeStatus(
            lifecycle=self._lifecycle,
            chip=settings.chip if settings else str(self.get_parameter('chip').value),
            model=settings.model if settings else None,
            device_ids=settings.device_ids if settings else (),
            engine=process.state if process else None,
            held=process.held if process else 0,
            failure=self._failure,
            servers=settings.servers if settings else (),
        )

    def _status_changed(self) -> None:
        status = self._status()
        self._answering.closed = status.refusal
        self._outlets.publish_state(status)

    def _publish_diagnostics(self) -> None:
        answering, ahead = self._answering, self._watching.ahead
        self._outlets.publish_diagnostics(
            self._status(),
            answering.requests,
            answering.sessions,
            self._watching.health(),
            ahead=ahead.facts() if ahead is not None else None,
            watches=self._watches,
        )

    def _on_time_jump(self, _jump: TimeJump) -> None:
        self._watching.clear()
        self._watches.clear()
