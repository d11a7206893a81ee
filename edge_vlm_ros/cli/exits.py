"""Exit codes: what a script may rely on."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended; `edge-vlm --help` and `doc/cli.md` say the same."""

    DONE = 0
    WORSE = 1
    BAD_INPUT = 2
    NOT_USABLE = 3
    TOO_LATE = 4
    INTERRUPTED = 130
    OUTPUT_CLOSED = 141


_CANCELLED = 302
_DEADLINE = 301


def exit_code_of(error_code: int) -> ExitCode:
    """Turn an error number as on the wire (`core.ErrorCode`) into an exit code.

    Requests and frames (1xx, 2xx) are the caller's; load, model files and device (3xx to 5xx) are
    not, apart from a deadline and a cancel.
    """
    if error_code == 0:
        return ExitCode.DONE
    if error_code == _DEADLINE:
        return ExitCode.TOO_LATE
    if error_code == _CANCELLED:
        return ExitCode.INTERRUPTED
    if error_code < 300:
        return ExitCode.BAD_INPUT
    return ExitCode.NOT_USABLE
