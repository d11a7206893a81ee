"""`edge-vlm mcp`: cameras as tools of an agent, over standard input and output."""

from __future__ import annotations

import asyncio
import os
import sys
from argparse import Namespace
from contextlib import suppress

from edge_vlm_ros.cli.ending import SIGNALS
from edge_vlm_ros.cli.model_spec import spec_of
from edge_vlm_ros.cli.opened import opened
from edge_vlm_ros.cli.output import stream
from edge_vlm_ros.cli.web_robot import FileRobot
from edge_vlm_ros.cli.web_sources import Source, open_sources
from edge_vlm_ros.core import ErrorCode, SetupError, chip_named
from edge_vlm_ros.serving import Backend

_OVER_ROS = 'edge_vlm_ros.nodes.mcp_main'


def run(args: Namespace) -> int:
    """Serve until standard input ends.

    Returns:
        The exit code.

    Raises:
        EdgeVlmError: A source or the model is not usable, or a package is missing.
    """
    try:
        from edge_vlm_ros.agents import server  # noqa: F401 (an extra may be missing)
    except ImportError as error:
        raise SetupError(
            f"{error}: the agents' protocol comes with `pip install 'edge_vlm_ros[mcp]'` or "
            '`pip install mcp`',
            ErrorCode.INTERNAL,
        ) from error
    if not (args.camera or args.video or args.image):
        _become_the_one_over_ros(args.node)
    chip_named(args.chip)
    sources = open_sources(args)
    try:
        spec = spec_of(args)
        with opened(spec) as backend, suppress(asyncio.CancelledError):
            asyncio.run(_serve(backend, sources))
    finally:
        for source in sources.values():
            source.release()
    return 0


def _become_the_one_over_ros(node: str) -> None:
    """Go on as another program, which talks with a node; where rclpy is missing it says so."""
    os.dup2(stream().fileno(), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    words = ['--ros-args', '-r', '__node:=vlm_mcp', '-p', f'web.vlm:={node}']
    os.execv(sys.executable, [sys.executable, '-m', _OVER_ROS, *words])  # noqa: S606 (our own)


async def _serve(backend: Backend, sources: dict[str, Source]) -> None:
    from edge_vlm_ros.agents.server import serve
    from edge_vlm_ros.agents.toolbox import Toolbox

    loop = asyncio.get_running_loop()
    robot = FileRobot(sources, loop)
    robot.set_backend(backend)
    toolbox = Toolbox(robot, keeps_open=True)
    toolbox.open()
    serving = asyncio.ensure_future(serve(toolbox, stream()))
    for number in SIGNALS:
        loop.add_signal_handler(number, serving.cancel)
    try:
        await serving
    finally:
        toolbox.close()
