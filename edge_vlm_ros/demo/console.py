"""What the demo says on the terminal: colours where there is one, plain words where not."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from edge_vlm_ros.harmless import harmless

BOLD, DIM, CYAN, GREEN, RED = '1', '2', '36', '32', '31'


class Console:
    """Writes lines and streamed words.

    Args:
        out: Where to; colours only if it is a terminal and NO_COLOR is not set.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = sys.stdout if out is None else out
        self._has_colours = self._out.isatty() and not os.environ.get('NO_COLOR')
        self._is_mid_line = False

    def title(self, text: str) -> None:
        """Write a heading."""
        self.line(self._paint(BOLD, text))

    def step(self, what: str, text: str) -> None:
        """Say what is being done."""
        self.line(f'  {self._paint(DIM, f"{what:<8}")} {harmless(text)}')

    def question(self, text: str) -> None:
        """Show a question, and begin the line of its answer."""
        self.line()
        self.line(f'  {self._paint(CYAN, "Q")}  {self._paint(BOLD, text)}')
        self._begin(f'  {self._paint(CYAN, "A")}  ')

    def words(self, text: str) -> None:
        """Write words of an answer as they come."""
        self._begin(harmless(text))

    def detail(self, text: str) -> None:
        """Write a line that belongs to the answer above."""
        self.line(f'     {self._paint(DIM, text)}')

    def verdict(self, *, good: bool, text: str) -> None:
        """Say whether an answer is right."""
        self.line(f'     {self._paint(GREEN if good else RED, text)}')

    def line(self, text: str = '') -> None:
        """Write a line; ends a begun one first."""
        if self._is_mid_line:
            self._out.write('\n')
            self._is_mid_line = False
        self._out.write(f'{text}\n')
        self._out.flush()

    def _begin(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
        self._is_mid_line = True

    def _paint(self, code: str, text: str) -> str:
        text = harmless(text)
        return f'\x1b[{code}m{text}\x1b[0m' if self._has_colours else text
