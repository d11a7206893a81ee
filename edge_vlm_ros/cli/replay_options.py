"""The words of `edge-vlm replay`. Only the standard library, as `parser`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from edge_vlm_ros.cli.argument_types import named, number

EXAMPLES = """\
examples:
  edge-vlm replay demo --to out
  edge-vlm replay drive.mp4 --watch 'blocked: Is the way ahead clear? -> no' --labels drive.yaml
  edge-vlm replay bag/ --watch watches.yaml --camera front=/front/image_raw --json
  edge-vlm replay bag/ --questions asked.yaml --baseline out/report.json
"""


def add_replay(
    commands: argparse._SubParsersAction[Any],
    add_model_options: Callable[[argparse.ArgumentParser], None],
    exit_codes: str,
) -> None:
    """Add the command.

    Args:
        commands: Where.
        add_model_options: Adds what names a model and a chip.
        exit_codes: For the help.
    """
    replay = commands.add_parser(
        'replay',
        prog='edge-vlm replay',
        usage='edge-vlm replay [options] BAG_OR_VIDEO_OR_FOLDER',
        help='play a recording to watches or questions, and say how they did',
        description=(
            'Play a bag of ROS 2 (mcap or db3), a video or a folder of images to watches or '
            "questions, without ROS and on the recording's own time, and report events, misses, "
            'false alarms, delays and what it cost. "demo" is a clip that ships, with its watch '
            'and its labels.'
        ),
        epilog=f'{EXAMPLES}\n{exit_codes}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    replay.set_defaults(finish=partial(_finish, error=replay.error))
    replay.add_argument('recording', metavar='BAG_OR_VIDEO_OR_FOLDER', help='what is played')
    _add_inputs(replay.add_argument_group('what is asked'))
    _add_playing(replay.add_argument_group('how it is played'))
    _add_outputs(replay.add_argument_group('output'))
    add_model_options(replay)


def _finish(args: argparse.Namespace, error: Callable[[str], NoReturn]) -> None:
    is_demo = args.recording == 'demo' and not Path('demo').exists()
    if not (args.watch or args.questions or is_demo):
        error('nothing to ask: --watch or --questions')


def _add_inputs(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        '--watch',
        action='append',
        default=[],
        metavar='WATCH',
        help='"NAME: QUESTION -> ANSWER", where the answer yes or no means the event; or a .yaml '
        "or .json file of watches, as the node's parameters have them; may be repeated",
    )
    group.add_argument(
        '--questions',
        type=Path,
        metavar='FILE',
        help='a .yaml or .json file with a list `questions`: at_s, question, and where wanted '
        'choices, expect, last_seconds',
    )
    group.add_argument(
        '--labels',
        type=Path,
        metavar='FILE',
        help='what is true: a .yaml or .json file with `watches`: NAME: a list of begin_s, end_s',
    )
    group.add_argument(
        '--baseline',
        type=Path,
        metavar='FILE',
        help='an older report.json of the same recording; where this one is worse in misses, '
        'false alarms, delay or wrong answers, the exit code is 1',
    )


def _add_playing(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        '--camera',
        action='append',
        type=named,
        default=[],
        metavar='NAME=TOPIC',
        help='a camera of a bag (default: each topic with images); may be repeated',
    )
    group.add_argument(
        '--fps',
        type=number(float, 0, 'above 0'),
        default=0.0,
        metavar='N',
        help='frames a second of a folder of images (default: 2)',
    )
    group.add_argument(
        '--look-s',
        type=number(float, 0, 'above 0'),
        default=0.0,
        metavar='SECONDS',
        help='what each answer is to take on the time of the recording (default: what it takes '
        'here); set, the report is the same on every machine',
    )


def _add_outputs(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        '--to',
        type=Path,
        metavar='DIR',
        help='write report.json, replay.jsonl (each look, question and event) and replay.png here',
    )
    group.add_argument('--json', action='store_true', help='print the report as one object')
