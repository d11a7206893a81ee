"""The words of `edge-vlm web`. Only the standard library: `--help` has to be quick."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from edge_vlm_ros.cli.server_options import problem_of

EXAMPLES = """\
examples:
  edge-vlm web --camera 0
  edge-vlm web --video drive.mp4 --image kitchen.jpg hall.jpg
  edge-vlm web --camera 0 --host 0.0.0.0 --token-file ~/.page-token
"""
DEFAULT_PORT = 8080


def add_web(
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
    web = commands.add_parser(
        'web',
        prog='edge-vlm web',
        help='serve a page: cameras or files, questions, answers with the frames they used',
        description=(
            'Serve a page where a model is asked about a webcam, videos and images of this '
            'machine. Its address, with a token that who opens it has to know, is printed. With '
            'ROS the page of a running node is `ros2 run edge_vlm_ros web`.'
        ),
        epilog=f'{EXAMPLES}\n{epilog}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    web.set_defaults(finish=partial(_finish, error=web.error))
    add_sources(web.add_argument_group('what to look at, each a camera of the page'))
    _add_page(web.add_argument_group('the page'))
    add_model_options(web)


def add_sources(look: argparse._ArgumentGroup) -> None:
    """Add the options that name webcams, videos and images, each a camera."""
    look.add_argument(
        '--camera', action='append', default=[], metavar='N', help="a webcam's index; repeatable"
    )
    look.add_argument(
        '--video',
        action='append',
        default=[],
        metavar='FILE',
        help='a video file, or a folder of images, played over and over; repeatable',
    )
    look.add_argument('--image', nargs='+', default=[], metavar='FILE', help='image files')


def _add_page(page: argparse._ArgumentGroup) -> None:
    page.add_argument(
        '--host',
        default='127.0.0.1',
        metavar='ADDRESS',
        help='where to serve it (default: 127.0.0.1, for this machine alone; 0.0.0.0: for the '
        'whole network, unencrypted)',
    )
    page.add_argument(
        '--port',
        type=int,
        default=DEFAULT_PORT,
        metavar='N',
        help=f'its port (default: {DEFAULT_PORT}; 0: one that is free)',
    )
    page.add_argument(
        '--name',
        action='append',
        default=[],
        metavar='NAME',
        help="a further name that browsers may call it by, such as a proxy's; repeatable",
    )
    page.add_argument(
        '--token-file',
        default='',
        metavar='FILE',
        help='its first line is the token (default: a new one at every start)',
    )
    page.add_argument(
        '--read-only', action='store_true', help='show the cameras, and take no questions'
    )


def _finish(args: argparse.Namespace, error: Callable[[str], NoReturn]) -> None:
    if not (args.camera or args.video or args.image):
        error('nothing to look at: --camera, --video or --image')
    if not all(index.isdecimal() for index in args.camera):
        error(f"--camera takes a webcam's index, such as 0, not {args.camera[0]}")
    if not 0 <= args.port <= 65535:
        error(f'--port is from 0 to 65535, not {args.port}')
    if problem := problem_of(args):
        error(problem)
