"""Requests that wait for a camera's next frame, without keeping the executor from its work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.clock import (  # type: ignore[attr-defined] # Humble has ClockType nowhere else
    Clock,
    ClockType,
)
from rclpy.task import Future

from edge_vlm_ros.core import NoFreshFrameError

if TYPE_CHECKING:
    from rclpy.callback_groups import CallbackGroup
    from rclpy.node import Node

    from edge_vlm_ros.core import Clock as SteadyClock

CHECK_S = 0.02
"""How often waits are looked at whose time may be over; only while there are any."""


class FrameWaits:
    """Lets coroutines wait for the next frame of any camera. The executor's thread alone.

    Args:
        node: Whose executor runs the coroutines.
        clock: Steady time.
        callback_group: Of the timer that ends waits.
    """

    def __init__(self, node: Node, clock: SteadyClock, callback_group: CallbackGroup) -> None:
        self._node = node
        self._clock = clock
        self._waits: dict[Future[Any], tuple[int, Future[None]]] = {}
        self._timer = node.create_timer(
            CHECK_S,
            self._end_overdue,
            callback_group=callback_group,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self._timer.cancel()

    def __len__(self) -> int:
        return len(self._waits)

    async def next_frame(self, reply: Future[Any], stop_ns: int) -> None:
        """Return when a frame has come, at a time, or when `end` is called, whichever is first.

        Args:
            reply: Of the request that waits; names it.
            stop_ns: Steady time, nanoseconds.
        """
        future: Future[None] = Future(executor=self._node.executor)
        self._waits[reply] = (stop_ns, future)
        if self._timer.is_canceled():
            self._timer.reset()
        await future

    def frame_came(self) -> None:
        """End all waits: a camera has a new frame. Called for every frame, so it is quick."""
        for reply in list(self._waits):
            self.end(reply)

    def end(self, reply: Future[Any]) -> None:
        """End the wait of one request, if it waits; fit to be a done callback of its reply."""
        wait = self._waits.pop(reply, None)
        if wait is not None:
            wait[1].set_result(None)
        if not self._waits:
            self._timer.cancel()

    def _end_overdue(self) -> None:
        now_ns = self._clock.now_ns()
        for reply, (stop_ns, _) in list(self._waits.items()):
            if now_ns >= stop_ns:
                self.end(reply)


def with_wait(error: NoFreshFrameError, waited_s: float) -> NoFreshFrameError:
    """Return the error of a request that has waited for a frame in vain, and say so in it."""
    if not waited_s:
        return error
    return NoFreshFrameError(f'{error.message} (waited {waited_s:.1f} s for one)', error.code)
