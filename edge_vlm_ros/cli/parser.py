"""The words of the command line. Only the standard library: `--help` has to be quick."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from edge_vlm_ros.cli.argument_types import number
from edge_vlm_ros.cli.mcp_options import add_mcp
from edge_vlm_ros.cli.replay_options import add_replay
from edge_vlm_ros.cli.server_options import (
    add_fallback_options,
    add_server_options,
    problem_of,
)
from edge_vlm_ros.cli.web_options import add_web

EXIT_CODES = """\
exit codes:
    0  done: answered, listed, fetched; doctor: the cpu chip answers with the demo model, and the
       servers that were named are well
    1  replay: worse than the baseline
    2  bad usage or bad input (empty question, no such file, not an image)
    3  the model or the device is not usable
    4  not answered within --timeout
  130  interrupted (Ctrl-C); what came of the answer is on standard output
  129, 143  the same, for SIGHUP and SIGTERM
  141  the reader of standard output went away
"""

ASK_EXAMPLES = """\
examples:
  edge-vlm ask --image kitchen.jpg 'Is the door open?'
  edge-vlm ask --video drive.mp4 --last 4 'What is moving?'
  edge-vlm ask --image table.png --turn 'Where is the red ball?' 'And what is left of it?'
  edge-vlm ask --image left.png right.png --json 'Describe what you see.' | jq .text
"""


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; None = that of this process.

    Returns:
        The options; `command` names the module in this folder that runs them.

    Raises:
        SystemExit: Bad usage (2), or only help was asked for (0).
    """
    args = build_parser().parse_args(argv)
    if 'finish' in args:
        args.finish(args)
    return args


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog='edge-vlm',
        description='Ask vision-language models about pictures and videos, on this machine.',
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    _add_ask(commands)
    add_doctor(commands)
    _add_inspect(commands)
    add_models(commands)
    add_web(commands, epilog=EXIT_CODES, add_model_options=_add_model_options)
    add_mcp(commands, epilog=EXIT_CODES, add_model_options=_add_model_options)
    add_replay(commands, _add_model_options, EXIT_CODES)
    return parser


class _ListAction(argparse.Action):
    """Collect the values of a repeated option, and remember which option came last."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 (argparse's signature)
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        """Append the values."""
        listed = [*(getattr(namespace, self.dest) or []), *(values or [])]
        setattr(namespace, self.dest, listed)
        namespace.last_list = self.dest
        namespace.last_list_size = len(values or [])


def _finish_ask(args: argparse.Namespace, error: Callable[[str], NoReturn]) -> None:
    """Check what argparse cannot; give QUESTION back where the list option before it took it."""
    if args.question is None and args.last_list_size > 1:
        args.question = getattr(args, args.last_list).pop()
        # Not Path.is_file, which raises for a question that is too long for a name.
        if args.last_list == 'image' and os.path.isfile(args.question):  # noqa: PTH113
            error(f'no QUESTION: {args.question!r}, the last word, is a file')
    if args.question is None:
        error('no QUESTION')
    if problem := problem_of(args):
        error(problem)
    if args.yes_no and args.choice:
        error('--yes-no has choices of its own: it cannot be with --choice')
    if args.video is None and (args.frames is not None or args.last is not None):
        error('--frames and --last choose from a --video')


def _add_ask(commands: argparse._SubParsersAction[Any]) -> None:
    ask = commands.add_parser(
        'ask',
        prog='edge-vlm ask',
        usage='edge-vlm ask [options] QUESTION',
        help='ask a question about images or a video',
        description='Ask a question; the answer goes to standard output as it comes.',
        epilog=f'{ASK_EXAMPLES}\n{EXIT_CODES}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ask.set_defaults(finish=partial(_finish_ask, error=ask.error), last_list_size=0)
    ask.add_argument('question', nargs='?', metavar='QUESTION', help='what to ask')
    _add_frame_options(ask)
    _add_conversation_options(ask)
    _add_answer_options(ask)
    _add_model_options(ask)
    _add_output_options(ask)


def _add_frame_options(ask: argparse.ArgumentParser) -> None:
    look = ask.add_argument_group('what to look at')
    look.add_argument(
        '--image',
        nargs='+',
        action=_ListAction,
        default=[],
        metavar='FILE',
        help='image files, oldest first',
    )
    look.add_argument('--video', metavar='FILE', help='a video file, or a folder of images')
    look.add_argument(
        '--frames',
        type=number(int, 1, 'at least 1'),
        metavar='N',
        help='frames of the video, spread evenly in time (default: 8, or what the model holds)',
    )
    look.add_argument(
        '--last',
        type=number(float, 0, 'above 0'),
        metavar='SECONDS',
        help='look at the end of the video only (default: all of it)',
    )


def _add_conversation_options(ask: argparse.ArgumentParser) -> None:
    talk = ask.add_argument_group('the conversation')
    talk.add_argument(
        '--turn',
        nargs='+',
        action=_ListAction,
        default=[],
        metavar='QUESTION',
        help='earlier questions of the same conversation, asked first',
    )
    talk.add_argument('--system', default='', metavar='TEXT', help='who the model is to be')


def _add_answer_options(ask: argparse.ArgumentParser) -> None:
    tokens = ask.add_argument_group('the answer')
    tokens.add_argument(
        '--choice',
        nargs='+',
        action=_ListAction,
        default=[],
        metavar='TEXT',
        help='answers to choose from: the answer is one of them; may be repeated',
    )
    tokens.add_argument('--yes-no', action='store_true', help='as --choice yes no')
    tokens.add_argument(
        '--stop',
        action='append',
        default=[],
        metavar='TEXT',
        help='end the answer before this text; may be repeated',
    )
    tokens.add_argument(
        '--max-tokens',
        type=number(int, 0, '0 or more'),
        default=0,
        metavar='N',
        help='tokens at most (default 0: as many as the context holds)',
    )
    tokens.add_argument(
        '--temperature',
        type=float,
        default=0.0,
        metavar='T',
        help='0 (default): always the most likely token; above: sample',
    )
    tokens.add_argument(
        '--top-p',
        type=float,
        default=1.0,
        metavar='P',
        help='sample from the likeliest tokens of this total (default 1: all)',
    )
    tokens.add_argument(
        '--top-k',
        type=number(int, 0, '0 or more'),
        default=0,
        metavar='K',
        help='sample from the K likeliest tokens (default 0: all)',
    )
    tokens.add_argument(
        '--repetition-penalty',
        type=float,
        default=1.0,
        metavar='R',
        help='0.1 to 2: above 1 (default: off), what was said already is less likely',
    )
    tokens.add_argument(
        '--seed',
        type=number(int, 0, '0 or more'),
        metavar='N',
        help='start of the random numbers (default: a new one every time)',
    )
    tokens.add_argument(
        '--timeout',
        type=number(float, 0, 'above 0'),
        metavar='SECONDS',
        help='give up after so long, counted once the model is loaded (default: never)',
    )


def _add_output_options(ask: argparse.ArgumentParser) -> None:
    out = ask.add_argument_group('output')
    out.add_argument(
        '--json',
        action='store_true',
        help='print one object with the fields of edge_vlm_ros/msg/Answer',
    )
    out.add_argument('--stats', action='store_true', help='say on standard error what it cost')
    out.add_argument(
        '--verbose',
        action='store_true',
        help='show the earlier turns, their answers and the loading on standard error',
    )


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('model')
    group.add_argument(
        '--chip', default='cpu', metavar='CHIP', help='what runs the model (default: cpu)'
    )
    group.add_argument(
        '--model',
        default='',
        metavar='MODEL',
        help="a name of the catalogue ('edge-vlm models') or a folder (default: the chip's; demo)",
    )
    _add_model_dir(group)
    _add_device_id(group)
    servers = parser.add_argument_group('servers, with --chip remote')
    add_server_options(servers)
    add_fallback_options(servers)
    group.add_argument(
        '--option',
        action='append',
        default=[],
        metavar='NAME=VALUE',
        help="an option of the model's family or of the chip's engine, such as max_tiles=4 or "
        'threads=2 (a wrong name lists them); may be repeated',
    )


def _add_model_dir(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        '--model-dir',
        action='append',
        type=Path,
        default=[],
        metavar='DIR',
        help='where to look for models first; may be repeated',
    )


def _add_device_id(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        '--device-id',
        type=number(int, 0, '0 or more'),
        action='append',
        default=[],
        metavar='N',
        help='which of several chips; may be repeated',
    )


def add_doctor(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `doctor`; `ros2 vlm` does so, too."""
    doctor = commands.add_parser(
        'doctor',
        prog='edge-vlm doctor',
        help='say what of the chain is here, and what to do about what is not',
        description=(
            'Look at Python, ROS 2, chip libraries, models and the shared-memory profile, and ask '
            'the demo model one question on the cpu.'
        ),
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor.add_argument('--json', action='store_true', help='print one object')
    servers = doctor.add_argument_group('servers that are asked, too')
    add_server_options(servers)
    servers.add_argument(
        '--model',
        default='',
        metavar='MODEL',
        help='the model they are asked for (default: the first one that each lists)',
    )
    _add_model_dir(doctor)


def _add_inspect(commands: argparse._SubParsersAction[Any]) -> None:
    inspect = commands.add_parser(
        'inspect',
        prog='edge-vlm inspect',
        help="say what a model's files hold",
        description=(
            "Read an accelerator's model as its engine reads it, and print family, contract, "
            'limits, memory, nets and shapes.'
        ),
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    inspect.set_defaults(command='inspection')
    inspect.add_argument(
        'name', metavar='MODEL', help="a name of the catalogue ('edge-vlm models') or a path"
    )
    inspect.add_argument(
        '--chip', default='', metavar='CHIP', help='what runs it (default: as the files say)'
    )
    inspect.add_argument('--json', action='store_true', help='print one object')
    _add_model_dir(inspect)
    _add_device_id(inspect)


def add_models(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `models`; `ros2 vlm` does so, too."""
    models = commands.add_parser(
        'models',
        prog='edge-vlm models',
        help='list the catalogue of models, and which are on this disk; fetch one',
        description='List the catalogue of models, and which are on this disk; or fetch one.',
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    models.add_argument('--json', action='store_true', help='print one list of objects')
    models.add_argument('--chip', default='', metavar='CHIP', help='only models for this chip')
    _add_model_dir(models)
    actions = models.add_subparsers(metavar='ACTION')
    fetch = actions.add_parser(
        'fetch',
        prog='edge-vlm models fetch',
        help='bring a model to this disk',
        description=(
            'Fetch a model of the catalogue and its tokenizer, with the clients of their '
            'publishers: dfss (Sophgo) and huggingface_hub. What is here already stays. Where '
            'something cannot be fetched, say what to copy where.'
        ),
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fetch.set_defaults(command='fetch')
    fetch.add_argument('name', metavar='NAME', help="a name of the catalogue ('edge-vlm models')")
    fetch.add_argument(
        '--chip',
        default='',
        metavar='CHIP',
        help='for which chip (default: the only one that has a model of this name)',
    )
    fetch.add_argument(
        '--to',
        type=Path,
        metavar='DIR',
        help='the folder of models it goes to (default: the first that models are looked for in)',
    )
    _add_model_dir(fetch)
