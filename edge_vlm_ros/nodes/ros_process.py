"""ROS in a process that has one node and is told to stop by signals."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from edge_vlm_ros.nodes.process_setup import (
    keep_freed_memory,
    use_large_receive_buffers,
    use_shared_memory_profile,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rclpy.executors import Executor


@contextmanager
def ros_process(args: Sequence[str] | None = None) -> Iterator[Executor]:
    """Set up memory, middleware and rclpy, give an executor, and shut both down afterwards.

    rclpy is without signal handlers of its own; see `spinning`. What the node's log shall still
    say must be said inside: afterwards its context is gone.

    Args:
        args: The command line, with the program's name; None = this process's.
    """
    keep_freed_memory()
    use_shared_memory_profile()  # The middleware reads both when rclpy is initialised.
    use_large_receive_buffers()
    rclpy.init(
        args=list(sys.argv if args is None else args),
        signal_handler_options=SignalHandlerOptions.NO,
    )
    executor = SingleThreadedExecutor()
    try:
        yield executor
    finally:
        executor.shutdown()
        rclpy.try_shutdown()
