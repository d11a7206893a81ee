"""The words of `edge-vlm mcp`. Only the standard library: `--help` has to be quick."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from edge_vlm_ros.cli.web_options import add_sources

EXAMPLES = """\
examples, as an agent's settings name them:
  edge-vlm mcp                                  a robot: the node /vlm
  edge-vlm mcp --node /robot1/vlm
  edge-vlm mcp --camera 0                       no ROS: a webcam and a model of this machine
  edge-vlm mcp --image kitchen.jpg --chip remote --server http://gpu:8000
"""


def add_mcp(
    commands: argparse._SubParsersAction[Any],
    *,
    epilog: str,
    add_model_options: Callable[[argparse.ArgumentParser], None],
) -> None:
    """Add the command.

    Args:
        commands: Where to.
        epilog: What all commands' help ends with.
        add_model_options: Adds the options that choose a model.
    """
    mcp = commands.add_parser(
        'mcp',
        prog='edge-vlm mcp',
        help='give cameras to an agent: ask, describe, look and watch as tools',
        description=(
            'Serve the Model Context Protocol over standard input and output: ask, describe, look '
            "and watch as tools, frames' stamps and ages in every result. Needs the extra mcp."
        ),
        epilog=f'{EXAMPLES}\n{epilog}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    look = mcp.add_argument_group('whose cameras')
    look.add_argument(
        '--node',
        default='vlm',
        metavar='NAME',
        help='a vlm node that runs (default: vlm, in the namespace of ROS_NAMESPACE)',
    )
    add_sources(look)
    add_model_options(mcp)
