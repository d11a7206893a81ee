"""Deactivate lets the requests that run or wait end first, within a bound.

rclpy runs a transition's callback to its end on the executor's thread, so nothing could end within
it. What waits is therefore the service that asks for the transition: a coroutine, while cameras,
chunks, cancels and all other services go on. Until the transition itself begins, `get_state` says
`active`; the node takes no requests any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lifecycle_msgs.msg import Transition
from rclpy.clock import (  # type: ignore[attr-defined] # Humble has ClockType nowhere else
    Clock,
    ClockType,
)
from rclpy.task import Future

from edge_vlm_ros.core import NS_PER_S

if TYPE_CHECKING:
    from lifecycle_msgs.srv import ChangeState
    from rclpy.callback_groups import CallbackGroup
    from rclpy.lifecycle import LifecycleNode

    from edge_vlm_ros.core import Clock as SteadyClock

CHECK_S = 0.02
"""How often a drain looks whether it is over; only while there is one."""


class Drained(Protocol):
    """What is to be deactivated. Called on the executor's thread."""

    def begin_drain(self) -> float:
        """Take no more requests; return how long those that are open may take, s.

        0 where there is nothing to wait for: the node is not active, or no request is open.
        """
        ...

    @property
    def open_requests(self) -> int:
        """How many have not ended."""
        ...

    @property
    def is_draining(self) -> bool:
        """Whether nothing else has ended the active state since `begin_drain`."""
        ...


class Draining:
    """Puts a wait before the transition that `~/change_state` asks for. Executor's thread alone.

    Args:
        node: Whose service it is.
        drained: Says what there is to wait for.
        clock: Steady time.
        callback_group: For the service, which takes long, and the timer that ends the wait;
            reentrant.
    """

    def __init__(
        self,
        node: LifecycleNode,
        drained: Drained,
        clock: SteadyClock,
        callback_group: CallbackGroup,
    ) -> None:
        self._node = node
        self._drained = drained
        self._clock = clock
        self._stop_ns = 0
        self._over: Future[None] | None = None
        self._changed: Future[None] | None = None
        (service,) = (each for each in node.services if each.srv_name.endswith('/change_state'))
        self._change_state = service.callback
        service.callback = self._on_change_state
        # In the node's own group, one at a time, it would hold up timers and parameters.
        callback_group.add_entity(service)
        service.callback_group = callback_group
        self._timer = node.create_timer(
            CHECK_S,
            self._end_if_over,
            callback_group=callback_group,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self._timer.cancel()

    async def _on_change_state(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        """Answer service `~/change_state`; a transition that came meanwhile goes before."""
        if not _means_deactivate(request.transition):
            return self._change(request, response)
        if self._changed is not None and not self._changed.done():
            await self._changed  # Whoever asked first is first.
            return self._change(request, response)
        seconds = self._drained.begin_drain()
        if not seconds:
            return self._change(request, response)
        self._changed = Future(executor=self._node.executor)
        try:
            await self._wait(seconds)
            if self._drained.is_draining:
                return self._change(request, response)
            response.success = False
            return response
        finally:
            self._changed.set_result(None)

    def _change(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        changed: ChangeState.Response = self._change_state(request, response)
        return changed

    async def _wait(self, seconds: float) -> None:
        """Wait until no request is open or their time is over."""
        self._stop_ns = self._clock.now_ns() + round(seconds * NS_PER_S)
        self._over = Future(executor=self._node.executor)
        self._timer.reset()
        await self._over

    def _end_if_over(self) -> None:
        is_late = self._clock.now_ns() >= self._stop_ns
        if is_late or not self._drained.open_requests or not self._drained.is_draining:
            self._timer.cancel()
            if self._over is not None and not self._over.done():
                self._over.set_result(None)


def _means_deactivate(transition: Transition) -> bool:
    """Return whether a request asks for it; as in rclpy, a label counts before the id."""
    if transition.label:
        return bool(transition.label == 'deactivate')
    return bool(transition.id == Transition.TRANSITION_DEACTIVATE)
