"""The tools of an agent over a `vlm` node: what `edge-vlm mcp` starts where no files are named.

A process of its own, and an ordinary client, as the page's. It ends when standard input does, or
by SIGINT or SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from rclpy.exceptions import ParameterException
from rclpy.logging import get_logger

from edge_vlm_ros.agents.server import serve
from edge_vlm_ros.agents.toolbox import Toolbox
from edge_vlm_ros.nodes.declaring import SettingsError, one_line
from edge_vlm_ros.nodes.ros_process import ros_process
from edge_vlm_ros.nodes.ros_thread import RosThread
from edge_vlm_ros.nodes.spinning import STOP_SIGNALS
from edge_vlm_ros.nodes.web_robot import RosRobot, WebNode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from rclpy.executors import Executor

_STDOUT, _STDERR = 1, 2


def main(args: Sequence[str] | None = None) -> int:
    """Serve until standard input ends or a signal comes; return the exit status."""
    with os.fdopen(os.dup(_STDOUT), 'w', encoding='utf-8') as out, ros_process(args) as executor:
        os.dup2(_STDERR, _STDOUT)  # Whatever else prints.
        try:
            node = WebNode()
        except (SettingsError, ParameterException) as error:
            get_logger('vlm_mcp').fatal(one_line(error))
            return 1
        executor.add_node(node)
        try:
            with suppress(asyncio.CancelledError):
                asyncio.run(_serve(node, executor, out))
        finally:
            executor.remove_node(node)
            node.destroy_node()
    return 0


async def _serve(node: WebNode, executor: Executor, out: TextIO) -> None:
    loop = asyncio.get_running_loop()
    toolbox = Toolbox(RosRobot(node, loop))
    serving = asyncio.ensure_future(serve(toolbox, out))
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, serving.cancel)

    def deaf(problem: str) -> None:
        node.get_logger().fatal(problem)
        loop.call_soon_threadsafe(serving.cancel)

    ros = RosThread(executor, deaf)
    toolbox.open()
    try:
        await serving
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)  # The rest takes no time.
        node.inbox.put(node.close)
        node.inbox.put(ros.end)
        ros.stop()


if __name__ == '__main__':
    sys.exit(main())
