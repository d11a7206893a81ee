"""Start the `vlm` node in a process of its own: `ros2 run edge_vlm_ros vlm_node`.

Exit status: 0 after SIGINT, SIGTERM or SIGHUP, 1 when a parameter makes no sense, when the node
could not start (with `autostart`) or its model process gave up.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rclpy.exceptions import ParameterException
from rclpy.logging import get_logger

from edge_vlm_ros.nodes.declaring import SettingsError, one_line
from edge_vlm_ros.nodes.ros_process import ros_process
from edge_vlm_ros.nodes.spinning import spin_until, spin_while, stop_on_signals
from edge_vlm_ros.nodes.vlm_node import VlmNode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rclpy.executors import Executor
    from rclpy.task import Future

REPLY_TIMEOUT_S = 1.0
"""How long, at the end, the replies to ended requests may take to go out."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until it is told to stop; return the exit status."""
    with ros_process(args) as executor:
        try:
            node = VlmNode()
        except (SettingsError, ParameterException) as error:
            get_logger('vlm').fatal(one_line(error))
            return 1
        executor.add_node(node)
        with stop_on_signals(executor) as stop:
            try:
                return _run(node, executor, stop)
            finally:
                _finish(node, executor)


def _run(node: VlmNode, executor: Executor, stop: Future[int]) -> int:
    """Start the node if it shall start by itself, and spin; return the exit status.

    Args:
        node: Belongs to `executor`.
        executor: Is spun here.
        stop: Ends this when it is done.
    """
    if not node.get_parameter('autostart').value:
        spin_until(executor, stop)
        return 0
    node.start()
    spin_until(executor, stop, node.failed)
    return 1 if node.failed.done() else 0


def _finish(node: VlmNode, executor: Executor) -> None:
    """End every request with its final chunk and its reply, then the node."""
    node.close()
    spin_while(executor, lambda: node.has_replies_to_send, REPLY_TIMEOUT_S)
    spin_while(executor, lambda: True, 0.05)  # an action's result follows its goal's end
    executor.remove_node(node)
    node.destroy_node()


if __name__ == '__main__':
    sys.exit(main())
