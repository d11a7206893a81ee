"""Work for the executor's thread, from any other."""

from __future__ import annotations

from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.callback_groups import CallbackGroup
    from rclpy.node import Node


class ExecutorInbox:
    """Runs callables on the thread of a node's executor, in the order they came.

    A guard condition, for it works also while no executor has the node yet. Triggered, it wakes
    the executor, which then looks at replies that wait for their future, too.

    Args:
        node: Whose executor it is.
        callback_group: Of the guard condition.
    """

    def __init__(self, node: Node, callback_group: CallbackGroup) -> None:
        self._node = node
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._guard = node.create_guard_condition(self._run_all, callback_group)

    def put(self, work: Callable[[], None]) -> None:
        """Have something run soon; from any thread."""
        self._work.put(work)
        self.wake()

    def wake(self) -> None:
        """Have the executor look at futures that were completed; from any thread."""
        self._guard.trigger()

    def _run_all(self) -> None:
        while not self._work.empty():
            work = self._work.get()
            try:
                work()
            except Exception as error:  # noqa: BLE001 - an exception here would end the node
                self._node.get_logger().error(f'{type(error).__name__}: {error}')
