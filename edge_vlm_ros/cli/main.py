"""`edge-vlm`: find the command, run it, turn what goes wrong into one line and an exit code."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial

from edge_vlm_ros.cli.ending import SIGNALS, EndedBySignal, code_of, raise_on_signals
from edge_vlm_ros.cli.exits import ExitCode, exit_code_of
from edge_vlm_ros.cli.output import stream, taken_for_the_command
from edge_vlm_ros.cli.parser import parse
from edge_vlm_ros.cli.watched import Death, run_watched
from edge_vlm_ros.harmless import harmless

_WATCHED = ('ask', 'inspection')
"""Commands that open a chip in their own process."""
TRACEBACK_VARIABLE = 'EDGE_VLM_TRACEBACK'


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The words after the program's name; None = those of this process.

    Returns:
        The exit code, see `ExitCode`; 128 and its number for a signal.

    Raises:
        SystemExit: Bad usage (2), or only help was asked for (0).
    """
    return run(parse(argv), is_alone=argv is None)


def run(args: Namespace, *, is_alone: bool = True) -> int:
    """Run a command whose words are parsed; returns as `main`.

    Args:
        args: As the parser made them.
        is_alone: The process is there for this command.
    """
    _survive_odd_characters()
    if is_alone and args.command in _WATCHED:
        return _run_watched(args)
    return _run_here(args, is_alone=is_alone)


def _run_here(args: Namespace, *, is_alone: bool) -> int:
    raise_on_signals()
    with taken_for_the_command(for_good=is_alone):
        return _run(args)


def _run_watched(args: Namespace) -> int:
    """Run a command that opens a chip where its death can be told."""
    try:
        return run_watched(partial(_run_here, args, is_alone=True))
    except Death as death:
        if death.number in SIGNALS:  # Before the child could take it in order.
            return _interrupted(death.number)
        message = death.sentence(args.chip or '')
        if args.command == 'ask' and args.json:
            importlib.import_module('edge_vlm_ros.cli.ask').print_death(message, args)
        complain(message)
        return ExitCode.NOT_USABLE


def _run(args: Namespace) -> int:
    try:
        # A command's module brings numpy and the model's runtime; --help does not wait for them.
        code = importlib.import_module(f'edge_vlm_ros.cli.{args.command}').run(args)
        stream().flush()
    except EndedBySignal as ended:
        return _interrupted(ended.number)
    except KeyboardInterrupt:
        complain('interrupted')
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return _end_without_output()
    except Exception as error:  # noqa: BLE001 (the last place where one can become a sentence)
        return _explain(error)
    return int(code)


def _interrupted(number: int) -> int:
    is_ctrl_c = code_of(number) == ExitCode.INTERRUPTED
    complain('interrupted' if is_ctrl_c else f'ended by {signal.Signals(number).name}')
    return code_of(number)


def complain(message: str) -> None:
    """Write one line to standard error; lines that say what to do may follow in the message."""
    sys.stderr.write(f'edge-vlm: {harmless(message).strip()}\n')
    sys.stderr.flush()


def _explain(error: Exception) -> int:
    """Say what went wrong in one line; a stack trace only for who asks for one."""
    if os.environ.get(TRACEBACK_VARIABLE):
        raise error
    # Not `except EdgeVlmError`: importing it needs numpy, and `doctor` has to run without.
    code = getattr(error, 'code', None)
    if isinstance(code, int) and hasattr(error, 'message'):
        complain(error.message)
        return exit_code_of(code)
    if isinstance(error, ImportError):
        complain(f"{error}; 'edge-vlm doctor' says what is missing and what to do")
        return ExitCode.NOT_USABLE
    kind = type(error).__name__
    complain(f'a fault of edge-vlm: {kind}: {error} ({TRACEBACK_VARIABLE}=1 shows where)')
    return ExitCode.NOT_USABLE


def _survive_odd_characters() -> None:
    """Let a terminal that lacks a character show '?' instead of ending the answer."""
    for output in (sys.stdout, sys.stderr):
        if hasattr(output, 'reconfigure'):
            output.reconfigure(errors='replace')


def _end_without_output() -> int:
    """Leave quietly; the interpreter would complain when it flushes the closed pipe at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream().fileno())
    return ExitCode.OUTPUT_CLOSED


if __name__ == '__main__':
    sys.exit(main())
