"""The words behind `ros2 vlm`. Only the standard library: `ros2 vlm -h` has to be quick."""

from __future__ import annotations

import argparse
from typing import TypeAlias

_Verbs: TypeAlias = 'argparse._SubParsersAction[argparse.ArgumentParser]'  # noqa: SLF001 (argparse's own name)

FIND_S = 5.0
"""For so long a node is looked for."""


def add_verbs(verbs: _Verbs) -> None:
    """Add what needs a node: ask, describe, watch, cancel."""
    _add_ask(verbs)
    _add_describe(verbs)
    _add_watch(verbs)
    _add_cancel(verbs)


def _verb(verbs: _Verbs, name: str, about: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, description=about, help=about)
    parser.add_argument(
        '--node',
        default='',
        metavar='NAME',
        help='full name of the vlm node, such as /robot1/vlm; by default the only one there is',
    )
    parser.add_argument(
        '--wait',
        type=float,
        default=FIND_S,
        metavar='S',
        help='look so long for the node (default: %(default)s)',
    )
    return parser


def _add_frames(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--camera', nargs='+', default=[], metavar='NAME', help='cameras; by default the first'
    )
    parser.add_argument(
        '--last', type=float, default=0.0, metavar='S', help='a clip of the last seconds'
    )
    parser.add_argument(
        '--frames', type=int, default=0, metavar='N', help="frames at most; 0 = the node's own"
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--json', action='store_true', help='print one object, not the words')
    parser.add_argument(
        '--stats', action='store_true', help='say on standard error what it cost, and the frames'
    )


def _add_ask(verbs: _Verbs) -> None:
    ask = _verb(verbs, 'ask', 'Ask about what the cameras see; the answer comes word by word.')
    ask.add_argument('question', metavar='QUESTION', help='what to ask')
    _add_frames(ask)
    ask.add_argument('--yes-no', action='store_true', help='the answer is yes or no')
    ask.add_argument(
        '--choice', nargs='+', default=[], metavar='TEXT', help='the answer is one of these'
    )
    ask.add_argument('--session', default='', metavar='ID', help='go on with a conversation')
    ask.add_argument('--system', default='', metavar='TEXT', help='who the model is to be')
    ask.add_argument('--max-tokens', type=int, default=0, metavar='N', help="0 = the node's own")
    ask.add_argument('--max-age', type=float, default=0.0, metavar='S', help='refuse older frames')
    ask.add_argument('--timeout', type=float, default=0.0, metavar='S', help="0 = the node's own")
    ask.add_argument(
        '--id', default='', metavar='ID', help='of the request, for `ros2 vlm cancel`'
    )
    ask.add_argument('--urgent', action='store_true', help='before all that waits')
    _add_output(ask)


def _add_describe(verbs: _Verbs) -> None:
    describe = _verb(verbs, 'describe', "Ask one of the node's own questions.")
    describe.add_argument(
        'preset', nargs='?', default='', metavar='PRESET', help='its name; by default the first'
    )
    _add_frames(describe)
    describe.add_argument('--timeout', type=float, default=0.0, metavar='S', help="0 = the node's")
    _add_output(describe)


def _add_watch(verbs: _Verbs) -> None:
    watch = _verb(
        verbs,
        'watch',
        'Show what watches say, until Ctrl-C; with a question, set a watch first.',
    )
    watch.add_argument('name', nargs='?', default='', metavar='NAME', help='of one watch')
    watch.add_argument('--question', default='', metavar='TEXT', help='what it asks')
    watch.add_argument('--choice', nargs='+', default=[], metavar='TEXT', help='answers; yes, no')
    watch.add_argument(
        '--when', nargs='+', default=[], metavar='TEXT', help='those that are the event'
    )
    watch.add_argument('--camera', nargs='+', default=[], metavar='NAME', help='cameras')
    watch.add_argument('--last', type=float, default=0.0, metavar='S', help='a clip of seconds')
    watch.add_argument('--period', type=float, default=0.0, metavar='S', help='from look to look')
    watch.add_argument('--list', action='store_true', help='list the watches and end')
    watch.add_argument('--remove', action='store_true', help='remove it (all without NAME), end')
    watch.add_argument('--once', action='store_true', help='end when an event has begun')
    watch.add_argument('--json', action='store_true', help='print an object a line')


def _add_cancel(verbs: _Verbs) -> None:
    cancel = _verb(verbs, 'cancel', 'End a request early, or all.')
    cancel.add_argument('id', nargs='?', default='', metavar='ID', help='by default all')
    cancel.add_argument('--json', action='store_true', help='print one object')
