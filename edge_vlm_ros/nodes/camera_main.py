"""Start the `camera` node in a process of its own: `ros2 run edge_vlm_ros camera_node`.

Exit status: 0 after SIGINT, SIGTERM or the end of the source, 1 when it cannot be played.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from edge_vlm_ros.nodes.process_setup import keep_freed_memory, use_shared_memory_profile

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Play until the source ends or a signal comes; return the exit status."""
    keep_freed_memory()
    use_shared_memory_profile()

    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.logging import get_logger
    from rclpy.signals import SignalHandlerOptions

    from edge_vlm_ros.core import EdgeVlmError
    from edge_vlm_ros.nodes.camera_node import CameraNode
    from edge_vlm_ros.nodes.spinning import spin_until, stop_on_signals

    rclpy.init(
        args=list(sys.argv if args is None else args),
        signal_handler_options=SignalHandlerOptions.NO,
    )
    executor = SingleThreadedExecutor()
    try:
        node = CameraNode()
        executor.add_node(node)
        with stop_on_signals(executor) as stop:
            try:
                spin_until(executor, stop, node.ended)
            finally:
                executor.remove_node(node)
                node.destroy_node()
        problem = node.ended.result() if node.ended.done() else ''
    except EdgeVlmError as error:
        problem = error.message
    finally:
        executor.shutdown()
        rclpy.try_shutdown()
    if problem:
        get_logger('camera').fatal(problem)
    return 1 if problem else 0


if __name__ == '__main__':
    sys.exit(main())
