"""What a model process prints and logs, as lines of the parent's log: each once, not too many."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from edge_vlm_ros.core import NS_PER_S

_READ_BYTES = 64 * 1024
_LINE_BYTES = 2000
_TEXT_CHARACTERS = 8000
_LINE_END = re.compile(rb'[\r\n]+')
_CONTROL = re.compile(r'[\x00-\x08\x0b-\x1f\x7f-\x9f]')


@dataclass(frozen=True, slots=True)
class LogLine:
    """Something that a model process logged or printed.

    Attributes:
        level: As in `logging`.
        name: Of the logger; 'stdout' and 'stderr' for what was printed there.
        text: A line, or several of one traceback.
    """

    level: int
    name: str
    text: str


OnLog: TypeAlias = Callable[[LogLine], None]


def log_line(line: LogLine) -> None:
    """Give a line to Python's logging; what nobody may have asked for is DEBUG or INFO."""
    logging.getLogger(line.name if '.' in line.name else f'{__name__}.{line.name}').log(
        line.level, '%s', line.text
    )


class PrintedLines:
    """One output of a child: bytes in, whole lines out.

    Args:
        descriptor: The reading end of a pipe; owned by this object.
        name: 'stdout' or 'stderr'.
        level: Of its lines.
    """

    def __init__(self, descriptor: int, name: str, level: int) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self._name, self._level = name, level
        self._begun = b''
        self.is_over = False
        """Whether all is read that will ever come."""

    def read(self) -> list[LogLine]:
        """Read what has been written, at most 64 KiB of it; never waits."""
        try:
            data = os.read(self.descriptor, _READ_BYTES)
        except BlockingIOError:
            return []
        if not data:  # Nobody can write there any more.
            self.is_over = True
            return self.rest()
        *lines, self._begun = _LINE_END.split(self._begun + data)
        if len(self._begun) > _LINE_BYTES:  # No end in sight.
            lines.append(self._begun)
            self._begun = b''
        return self._made(lines)

    def rest(self) -> list[LogLine]:
        """Return the last line, which has no end."""
        begun, self._begun = self._begun, b''
        return self._made([begun])

    def close(self) -> None:
        """Free the descriptor."""
        os.close(self.descriptor)

    def _made(self, lines: Iterable[bytes]) -> list[LogLine]:
        texts = (line[:_LINE_BYTES].decode(errors='replace').rstrip() for line in lines)
        return [LogLine(self._level, self._name, text) for text in texts if text]


class Dam:
    """Passes lines on, as many a second as people can bear; says how many it kept back.

    Args:
        on_log: Where they go.
        per_s: Lines a second, in the long run.
        burst: Lines at once.
    """

    def __init__(self, on_log: OnLog, *, per_s: float = 20.0, burst: int = 200) -> None:
        self._on_log = on_log
        self._per_s, self._burst = per_s, float(burst)
        self._room = self._burst
        self._kept_back = 0
        self._at_ns = 0

    def put(self, line: LogLine, now_ns: int) -> None:
        """Pass a line on, or count it."""
        self._fill(now_ns)
        if self._room < 1:
            self._kept_back += 1
            return
        self._say_kept_back()
        self._room -= 1
        self._on_log(_cleaned(line))

    def end(self) -> None:
        """Say what was kept back last."""
        self._say_kept_back()

    def _fill(self, now_ns: int) -> None:
        passed_s = (now_ns - self._at_ns) / NS_PER_S if self._at_ns else 0.0
        self._at_ns = now_ns
        self._room = min(self._burst, self._room + passed_s * self._per_s)

    def _say_kept_back(self) -> None:
        number, self._kept_back = self._kept_back, 0
        if number:
            text = f'{number} more lines in a short time are left out'
            self._on_log(LogLine(logging.INFO, __name__, text))


def _cleaned(line: LogLine) -> LogLine:
    text = _CONTROL.sub('?', line.text)[:_TEXT_CHARACTERS]
    return LogLine(line.level, line.name, text)
