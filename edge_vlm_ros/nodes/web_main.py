"""Serve the page of a `vlm` node: `ros2 run edge_vlm_ros web`.

A process of its own, and an ordinary client: when it is slow or dies, the node does not notice.
Exit status: 0 after SIGINT or SIGTERM, 1 when a parameter makes no sense, the address cannot be
listened at, or the ROS side of it has ended.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

from rclpy.exceptions import ParameterException
from rclpy.logging import get_logger

from edge_vlm_ros.core import EdgeVlmError
from edge_vlm_ros.nodes.declaring import SettingsError, one_line
from edge_vlm_ros.nodes.ros_process import ros_process
from edge_vlm_ros.nodes.ros_thread import RosThread
from edge_vlm_ros.nodes.spinning import STOP_SIGNALS
from edge_vlm_ros.nodes.web_robot import RosRobot, WebNode
from edge_vlm_ros.web.door import open_door
from edge_vlm_ros.web.hub import Hub
from edge_vlm_ros.web.server import Address, WebServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rclpy.executors import Executor

LOGGER = 'vlm_web'


def main(args: Sequence[str] | None = None) -> int:
    """Serve until a signal comes; return the exit status."""
    with ros_process(args) as executor:
        try:
            node = WebNode()
        except (SettingsError, ParameterException) as error:
            get_logger(LOGGER).fatal(one_line(error))
            return 1
        executor.add_node(node)
        try:
            problem = asyncio.run(_serve(node, executor))
        except EdgeVlmError as error:
            problem = error.message
        finally:
            executor.remove_node(node)
            node.destroy_node()
        if problem:
            get_logger(LOGGER).fatal(problem)
    return 1 if problem else 0


async def _serve(node: WebNode, executor: Executor) -> str:
    """Serve until a signal comes or the ROS side ends; return what went wrong, '' = nothing did.

    Raises:
        EdgeVlmError: It cannot be served as the parameters say.
    """
    loop = asyncio.get_running_loop()
    over: asyncio.Future[str] = loop.create_future()

    def end(problem: str) -> None:
        if not over.done():
            over.set_result(problem)

    settings = node.settings
    door = open_door(settings.host, settings.names, settings.token_file)
    hub = Hub(RosRobot(node, loop), read_only=settings.read_only)
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, end, '')
    ros = RosThread(executor, lambda problem: loop.call_soon_threadsafe(end, problem))
    try:
        server = WebServer(hub, door.guard)
        async with server.serve(Address(settings.host, settings.port)) as address:
            for line in door.announcement(address.url):
                node.get_logger().info(line)
            return await over
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)  # The rest takes no time.
        node.inbox.put(node.close)  # After what the pages have left to do.
        node.inbox.put(ros.end)
        ros.stop()


if __name__ == '__main__':
    sys.exit(main())
