"""rclpy's executor on a thread of its own, beside an asyncio loop."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from rclpy.task import Future

from edge_vlm_ros.nodes.spinning import end_wait, spin_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.executors import Executor


class RosThread:
    """Spins an executor on a thread.

    Args:
        executor: Is spun.
        on_end: Called with what went wrong when it ends by itself, on that thread: a server whose
            robot is deaf must not look alive.
    """

    def __init__(self, executor: Executor, on_end: Callable[[str], object]) -> None:
        self._executor = executor
        self._on_end = on_end
        self._stop: Future[int] = Future()
        self._thread = threading.Thread(target=self._spin, name='ros', daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Have it look at what is new; from any thread."""
        end_wait(self._executor)

    def end(self) -> None:
        """Have it end; on its own thread."""
        self._stop.set_result(0)

    def stop(self) -> None:
        """Wait for its end, which something has been told to bring about."""
        self.wake()
        self._thread.join()

    def _spin(self) -> None:
        problem = 'ROS was shut down'
        try:
            spin_until(self._executor, self._stop)
        except Exception as error:  # noqa: BLE001 - it ends the thread, and must be told
            problem = f'{type(error).__name__}: {error}'
        except SystemExit:
            pass
        if not self._stop.done():
            self._on_end(problem)
