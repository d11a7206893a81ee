"""The watches of a node: its timer, its services, what they say.

`WatchBoard` decides. A look is a question of the node's own, of background priority, and only one
is open at a time: it goes the way of every other question, so what is ready of its prompt it
finds. It is asked for only while nobody else's question is open, and what asks meanwhile waits
for that one look at most (with queue_policy reject or preempt, not even for that).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from rclpy.clock import (  # type: ignore[attr-defined] # Humble has ClockType nowhere else
    Clock,
    ClockType,
)

from edge_vlm_ros.core import BadRequestError, ErrorCode
from edge_vlm_ros.msg import Answer as AnswerMsg
from edge_vlm_ros.nodes import qos
from edge_vlm_ros.nodes.admission import frame_age_s
from edge_vlm_ros.nodes.declaring import filled, value_of
from edge_vlm_ros.nodes.looks import Looks
from edge_vlm_ros.nodes.watch_messages import (
    look_request,
    spec_from_ros,
    state_to_ros,
    verdict_from_ros,
)
from edge_vlm_ros.nodes.watch_parameters import check_cameras, read_watches, watch_store
from edge_vlm_ros.nodes.watch_voice import WatchVoice
from edge_vlm_ros.srv import ListWatches, Unwatch, Watch
from edge_vlm_ros.watch import (
    Blindness,
    Decision,
    Missed,
    Now,
    WatchBoard,
    missed_by,
    mode_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.callback_groups import CallbackGroup

    from edge_vlm_ros.nodes.answering import Answering
    from edge_vlm_ros.nodes.parameter_sets import ParameterSets
    from edge_vlm_ros.nodes.watching import Watching
    from edge_vlm_ros.watch import Scene, StandingQuestion, WatchFacts, WatchSpec
    from edge_vlm_ros.watch.standing import Events

    Sight: TypeAlias = 'Scene | Missed'

CHECK_S = 0.1
"""How often it is looked whether a look is due; only while the node is active and watches."""

NOT_ACTIVE = 'the node is not active'


class Watches:
    """Looks at what it is told to watch, and speaks up. The executor's thread alone.

    Args:
        node: Whose parameters, services, topics and timer; parameters of watches are declared.
        answering: Answers the looks.
        watching: The cameras, none while the node is not active.
        callback_group: Of timer and services; reentrant.
        unready: Says why no question can be answered now; '' = one can.

    Raises:
        SettingsError: A watch of the parameters makes no sense.
    """

    def __init__(
        self,
        node: ParameterSets,
        answering: Answering,
        watching: Watching,
        callback_group: CallbackGroup,
        unready: Callable[[], str],
    ) -> None:
        self._node = node
        self._answering = answering
        self._watching = watching
        self._time = watching.time
        self._group = callback_group
        self._unready = unready
        self._cameras = filled(value_of(node, 'camera_names'))
        self._looks = Looks(watching.time.steady)
        self._board = WatchBoard()
        self._voice = WatchVoice(node, node.parameters)
        self._given = {spec.name: spec for spec in read_watches(node)}
        self._store = watch_store(node)
        self._is_open = self._is_looking = False
        self._number = 0
        self._timer: Any = None
        self._board.stop(self._now(), NOT_ACTIVE)
        self._load()
        shared: dict[str, Any] = {'callback_group': callback_group, 'qos_profile': qos.SERVICE}
        node.create_service(Watch, '~/watch', self._on_watch, **shared)
        node.create_service(Unwatch, '~/unwatch', self._on_unwatch, **shared)
        node.create_service(ListWatches, '~/list_watches', self._on_list, **shared)
        self._voice.publish_states(self._facts(), self._time.now())

    @property
    def problem(self) -> str:
        """What is the matter with the file of watches; '' = nothing."""
        return self._store.problem

    def open(self) -> None:
        """Begin to look: the node is active."""
        self._is_open = True
        self._board.go_on(self._now())
        self._set_timer()

    def close(self) -> None:
        """Look no more; events that are on end. Safe to call twice."""
        if not self._is_open:
            return
        self._is_open = False
        self._set_timer()
        self._say(self._board.stop(self._now(), NOT_ACTIVE))
        self._voice.publish_states(self._facts(), self._time.now())

    def clear(self) -> None:
        """Forget what was seen: the node's clock has jumped."""
        self._board.forget_scenes()

    def _set_timer(self) -> None:
        """Have a timer while there is anything to look at, and none while there is not."""
        is_wanted = self._is_open and len(self._board) > 0
        if is_wanted and self._timer is None:
            self._timer = self._node.create_timer(
                CHECK_S,
                self._check,
                callback_group=self._group,
                clock=Clock(clock_type=ClockType.STEADY_TIME),
            )
        elif not is_wanted and self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None

    def facts(self) -> list[WatchFacts]:
        """Return how the watches do now."""
        return self._facts()

    # --- looking ---------------------------------------------------------------------------------

    def _check(self) -> None:
        """Have those looked that are due."""
        try:
            for watch in self._board.due(self._now()):
                self._have_looked(watch)
            self._say(self._board.tick(self._now()))
            self._voice.publish_states(self._facts(), self._time.now())
        except Exception as error:  # noqa: BLE001 - an exception here would end the node
            self._node.get_logger().error(
                f'watches: {type(error).__name__}: {error}', throttle_duration_sec=10.0
            )

    def _have_looked(self, watch: StandingQuestion) -> None:
        is_free = not self._is_looking and not len(self._answering.requests)
        names = watch.spec.cameras or self._cameras[:1]
        if not is_free and not all(map(self._looks.is_rested, names)):
            return
        decision, events = watch.see(self._now(), self._sight(watch.spec, names), may_look=is_free)
        self._say(events)
        if decision is Decision.LOOK:
            self._is_looking = True
            executor = self._node.executor
            assert executor is not None, 'the timer runs on one'
            executor.create_task(self._look, watch, watch.look_id)

    def _sight(self, spec: WatchSpec, names: tuple[str, ...] | list[str]) -> Sight:
        """Return the newest picture of each camera, or why there is none to go by."""
        unready = self._unready()
        if unready:
            return Missed(Blindness.ERROR, unready)
        now, scene = self._time.now(), {}
        max_age_s = spec.max_age_s or self._watching.defaults().max_age_s
        for name in names:
            feed = self._watching.feeds.get(name)
            newest = feed.newest if feed is not None else None
            if feed is None or newest is None:
                problem = feed.health().problem if feed is not None else ''
                return Missed(
                    Blindness.CAMERA, f'camera {name}: {problem or "no image has come yet"}'
                )
            age_s = frame_age_s(newest, now)
            if max_age_s and age_s > max_age_s:
                return Missed(
                    Blindness.CAMERA,
                    f'camera {name}: the newest frame is older than {max_age_s:g} s, the limit',
                )
            scene[name] = self._looks.at(newest)
        return scene

    async def _look(self, watch: StandingQuestion, look_id: int) -> None:
        """Ask a watch's question, and tell the watch what came of it."""
        self._number += 1
        try:
            request = look_request(watch.spec, self._number)
            answer: AnswerMsg = await self._answering.answer(request, is_look=True)
            now = self._now()
            if answer.error_code == AnswerMsg.ERROR_NONE:
                events = watch.answered(look_id, now, verdict_from_ros(answer))
            else:
                missed = missed_by(ErrorCode(answer.error_code), answer.message)
                events = watch.failed(look_id, now, missed)
        except Exception as error:  # noqa: BLE001 - an exception here would end the node
            problem = f'{type(error).__name__}: {error}'
            self._node.get_logger().error(f'watch {watch.spec.name}: {problem}')
            events = watch.failed(look_id, self._now(), Missed(Blindness.ERROR, problem))
        finally:
            self._is_looking = False
        self._say(events)
        if self._is_open:
            self._check()

    # --- services --------------------------------------------------------------------------------

    def _on_watch(self, request: Watch.Request, response: Watch.Response) -> Watch.Response:
        """Answer service `watch`."""
        message, now = request.watch, self._now()
        try:
            if not message.question and message.name in self._board:
                mode = mode_of(message.mode)
                self._say(self._board.set_mode(message.name, mode, now))
                response.message = f'watch {message.name} is {mode.name.lower()}'
            else:
                spec = spec_from_ros(message)
                check_cameras(spec, self._cameras)
                self._say(self._board.put(spec, now))
                response.message = f'watch {spec.name} is set'
            response.state = state_to_ros(self._board.get(message.name).facts())
            response.success = True
        except BadRequestError as error:
            response.message = error.message
            return response
        response.message += self._changed()
        return response

    def _on_unwatch(
        self, request: Unwatch.Request, response: Unwatch.Response
    ) -> Unwatch.Response:
        """Answer service `unwatch`."""
        response.removed, events = self._board.remove(request.name, self._now())
        self._say(events)
        response.message = f'{response.removed} watches removed'
        response.message += self._changed() if response.removed else ''
        return response

    def _on_list(
        self, _request: ListWatches.Request, response: ListWatches.Response
    ) -> ListWatches.Response:
        """Answer service `list_watches`."""
        response.watches = [state_to_ros(facts) for facts in self._facts()]
        return response

    def _changed(self) -> str:
        """Keep the watches and say how they do; return what people should know of that."""
        specs = [watch.spec for watch in self._board]
        own = [spec for spec in specs if self._given.get(spec.name) != spec]
        removed = [name for name in self._given if name not in self._board]
        problem = self._store.save(own, removed)
        if problem:
            self._node.get_logger().error(problem)
        self._set_timer()
        self._voice.keep([spec.name for spec in specs])
        self._voice.publish_states(self._facts(), self._time.now(), at_once=True)
        return f'; it is not kept over a restart: {problem}' if problem else ''

    # --- within ----------------------------------------------------------------------------------

    def _load(self) -> None:
        """Set the watches of the parameters, then what services have made of them."""
        kept = self._store.load()
        if kept.problem:
            self._node.get_logger().error(f'watch_file: {kept.problem}')
        chosen = {n: s for n, s in self._given.items() if n not in kept.removed}
        for spec in (chosen | {spec.name: spec for spec in kept.watches}).values():
            self._put_kept(spec)
        self._voice.keep([watch.spec.name for watch in self._board])

    def _put_kept(self, spec: WatchSpec) -> None:
        """Set a watch, if the cameras are still there that it was set for."""
        try:
            check_cameras(spec, self._cameras)
            self._board.put(spec, self._now())
        except BadRequestError as error:
            self._store.problem = f'watch {spec.name} is left out: {error.message}'
            self._node.get_logger().error(f'watch_file: {self._store.problem}')

    def _say(self, events: Events) -> None:
        for event in events:
            self._node.get_logger().info(
                f'watch {event.watch}: {event.kind.name.lower()}: {event.text}'
            )
            self._voice.publish(event)

    def _facts(self) -> list[WatchFacts]:
        return [watch.facts() for watch in self._board]

    def _now(self) -> Now:
        moment = self._time.now()
        return Now(moment.steady_ns, moment.ros_ns)
