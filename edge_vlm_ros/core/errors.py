"""What can go wrong, by who can act on it.

Every error carries an `ErrorCode`: the same number travels to the `error_code` field on the ROS
graph. Messages are for people: they give the value that was met and the limit it broke. The value
is often a stranger's: whatever its size, a message is short (`MAX_MESSAGE_CHARS`), for it goes
into answers, chunks and logs.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

MAX_MESSAGE_CHARS: Final = 2000
"""Longest message of an error; of a longer one both ends are kept."""


class ErrorCode(IntEnum):
    """Error numbers on the wire; `msg/Answer.msg` holds the same constants."""

    NONE = 0
    BAD_REQUEST = 100
    UNKNOWN_CAMERA = 101
    BAD_IMAGE = 102
    PROMPT_TOO_LONG = 103
    TOO_MANY_FRAMES = 104
    UNSUPPORTED_OPTION = 105
    UNKNOWN_SESSION = 106
    DUPLICATE_REQUEST = 107
    NO_FRAME = 200
    STALE_FRAME = 201
    BUSY = 300
    DEADLINE = 301
    CANCELLED = 302
    NOT_READY = 303
    PREEMPTED = 304
    MODEL_FILE = 400
    DEVICE = 500
    ENGINE_DIED = 501
    BAD_OUTPUT = 502
    SERVER_UNREACHABLE = 503
    SERVER_REFUSED = 504
    INTERNAL = 599


def fit_message(text: str) -> str:
    """Return a message that can be sent: of UTF-8, and not too long.

    Names of files may hold bytes that are no text; Python has lone surrogates for them. Of what is
    too long the middle is left out: a value is mostly quoted in the middle of a sentence, which so
    still says what is wrong.
    """
    if not text.isascii():
        text = text.encode('utf-8', 'backslashreplace').decode('utf-8')
    if len(text) <= MAX_MESSAGE_CHARS:
        return text
    half = (MAX_MESSAGE_CHARS - 60) // 2
    left_out = len(text) - 2 * half
    return f'{text[:half]} [... {left_out} characters ...] {text[-half:]}'


class EdgeVlmError(Exception):
    """The family of every error this package raises on purpose.

    Args:
        message: For people: what was met, what was expected, who can act; clipped where it is too
            long.
        code: The number on the wire; each subclass brings its own default.
    """

    default_code = ErrorCode.INTERNAL

    def __init__(self, message: str, code: ErrorCode | None = None) -> None:
        message = fit_message(message)
        super().__init__(message)
        self.message = message
        self.code = self.default_code if code is None else code

    def __reduce__(self) -> tuple[type[EdgeVlmError], tuple[str, ErrorCode]]:
        """Keep message and code when the error crosses to another process."""
        return type(self), (self.message, self.code)


class BadRequestError(EdgeVlmError):
    """The caller can act: the request asks for something that cannot be."""

    default_code = ErrorCode.BAD_REQUEST


class BadImageError(BadRequestError):
    """An image that cannot be decoded: unknown encoding, wrong size, corrupt bytes."""

    default_code = ErrorCode.BAD_IMAGE


class PromptTooLongError(BadRequestError):
    """The prompt does not fit the model's context or its longest prompt."""

    default_code = ErrorCode.PROMPT_TOO_LONG


class TooManyFramesError(BadRequestError):
    """More frames than the model takes in one prompt."""

    default_code = ErrorCode.TOO_MANY_FRAMES


class NoFreshFrameError(EdgeVlmError):
    """The camera can act: no frame has come, or the newest one is too old."""

    default_code = ErrorCode.NO_FRAME


class BusyError(EdgeVlmError):
    """Load: there is no room for this question (any more)."""

    default_code = ErrorCode.BUSY


class DeadlineError(EdgeVlmError):
    """The question's time ran out before it was answered."""

    default_code = ErrorCode.DEADLINE


class CancelledError(EdgeVlmError):
    """Somebody took the question back."""

    default_code = ErrorCode.CANCELLED


class PreemptedError(EdgeVlmError):
    """A newer question of at least its priority took the chip."""

    default_code = ErrorCode.PREEMPTED


class NotReadyError(EdgeVlmError):
    """The model is not loaded yet, or the node is not active."""

    default_code = ErrorCode.NOT_READY


class ModelFileError(EdgeVlmError):
    """The deployer can act: a model file is missing, damaged or of another kind."""

    default_code = ErrorCode.MODEL_FILE


class PackageError(ModelFileError):
    """The deployer can act: an installed package that brings a chip or a family is broken."""


class DeviceError(EdgeVlmError):
    """The hardware or its driver failed."""

    default_code = ErrorCode.DEVICE


class BadOutputError(EdgeVlmError):
    """What the model says is no answer: it repeats itself without end, or it says nothing.

    The model or its quantisation can be at fault, the chip (all scores NaN are token 0 for ever),
    or how it is asked; to ask otherwise may help.
    """

    default_code = ErrorCode.BAD_OUTPUT


class SetupError(DeviceError):
    """The deployer can act: a library or a device is not there, or is another than was named.

    To try again would end likewise, unlike after other failures of a device.
    """
