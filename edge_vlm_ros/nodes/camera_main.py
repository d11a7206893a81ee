"""Start the `camera` node in a process of its own: `ros2 run edge_vlm_ros camera_node`.

Exit status: 0 after SIGINT, SIGTERM or the end of the source, 1 when it cannot be played.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rclpy.exceptions import ParameterException
from rclpy.logging import get_logger

from edge_vlm_ros.core import EdgeVlmError
from edge_vlm_ros.nodes.camera_node import CameraNode
from edge_vlm_ros.nodes.declaring import SettingsError, one_line
from edge_vlm_ros.nodes.ros_process import ros_process
from edge_vlm_ros.nodes.spinning import spin_until, stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rclpy.executors import Executor


def main(args: Sequence[str] | None = None) -> int:
    """Play until the source ends or a signal comes; return the exit status."""
    with ros_process(args) as executor:
        problem = _play(executor)
        if problem:
            get_logger('camera').fatal(problem)
    return 1 if problem else 0


def _play(executor: Executor) -> str:
    """Play; return what went wrong, '' = nothing did."""
    try:
        node = CameraNode()
    except (SettingsError, ParameterException) as error:
        return one_line(error)
    except EdgeVlmError as error:  # The source cannot be opened.
        return error.message
    executor.add_node(node)
    with stop_on_signals(executor) as stop:
        try:
            spin_until(executor, stop, node.ended)
        finally:
            executor.remove_node(node)
            node.destroy_node()
    return str(node.ended.result()) if node.ended.done() else ''


if __name__ == '__main__':
    sys.exit(main())
