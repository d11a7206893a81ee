"""ROS in a process that has one node and is told to stop by signals."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.impl.logging_severity import LoggingSeverity
from rclpy.logging import get_logger, get_logger_effective_level, set_logger_level
from rclpy.signals import SignalHandlerOptions

from edge_vlm_ros.nodes.declaring import one_line
from edge_vlm_ros.nodes.process_setup import (
    keep_freed_memory,
    use_large_receive_buffers,
    use_shared_memory_profile,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rclpy.executors import Executor

RCLError = rclpy_implementation.RCLError
UnknownROSArgsError = rclpy_implementation.UnknownROSArgsError


@contextmanager
def ros_process(args: Sequence[str] | None = None) -> Iterator[Executor]:
    """Set up memory, middleware and rclpy, give an executor, and shut both down afterwards.

    rclpy is without signal handlers of its own; see `spinning`. What the node's log shall still
    say must be said inside: afterwards its context is gone.

    Args:
        args: The command line, with the program's name; None = this process's.

    Raises:
        SystemExit: The command line or a parameter file is not understood; the log says which.
    """
    keep_freed_memory()
    use_shared_memory_profile()  # The middleware reads both when rclpy is initialised.
    use_large_receive_buffers()
    set_logger_level('rcl', LoggingSeverity.FATAL)  # It would say first that something is wrong.
    try:
        rclpy.init(
            args=list(sys.argv if args is None else args),
            signal_handler_options=SignalHandlerOptions.NO,
        )
    except (RCLError, UnknownROSArgsError) as error:
        # A parameter file that cannot be read, a value that is no YAML: rcl names it.
        get_logger('edge_vlm_ros').fatal(one_line(error))
        raise SystemExit(1) from None
    if get_logger_effective_level('rcl') == LoggingSeverity.FATAL:  # `--log-level` set no other.
        set_logger_level('rcl', LoggingSeverity.UNSET)
    executor = SingleThreadedExecutor()
    try:
        yield executor
    finally:
        executor.shutdown()
        rclpy.try_shutdown()
