"""What a model thinks aloud before it answers: no part of the answer.

Models that can reason (InternVL3.5, Qwen3) write `<think>`, their thoughts, `</think>` and then
the answer, if the system text asks them to. Whoever acts on an answer, or looks for a choice in
it, must not take a thought for it.

Source: OpenGVLab/InternVL, internvl_chat_mpo.py (R1_SYSTEM_PROMPT).
"""

from __future__ import annotations

from enum import Enum
from typing import Final

OPENING: Final = '<think>'
CLOSING: Final = '</think>'


class _State(Enum):
    BEFORE = 'nothing is known yet'
    WITHIN = 'it thinks'
    AFTER = 'it answers'


class Thoughts:
    """Leaves out the thoughts with which an answer begins.

    The law of `show` and `finish`: joined, they are the text without them, however it was cut. An
    answer that begins otherwise is left as it is.
    """

    def __init__(self) -> None:
        self._state = _State.BEFORE
        self._held = ''
        self.has_thought = False

    @property
    def is_thinking(self) -> bool:
        """Whether the thoughts have begun and not ended."""
        return self._state is _State.WITHIN

    def show(self, text: str) -> str:
        """Take new text; return what of it, and of what was held back, is the answer's."""
        if self._state is _State.AFTER:
            return text
        self._held += text
        if self._state is _State.BEFORE:
            begun = self._held.lstrip()
            if OPENING.startswith(begun):
                if begun == OPENING:
                    self._begin('')
                return ''
            if not begun.startswith(OPENING):
                return self._answer(self._held)
            self._begin(begun[len(OPENING) :])
        _, closing, rest = self._held.partition(CLOSING)
        if closing:
            return self._answer(rest)
        self._held = self._held[-len(CLOSING) + 1 :]
        return ''

    def finish(self) -> str:
        """End the text: return what was held back, if it is no thought."""
        return '' if self.is_thinking else self._answer(self._held)

    def _begin(self, rest: str) -> None:
        self._state, self._held, self.has_thought = _State.WITHIN, rest, True

    def _answer(self, text: str) -> str:
        self._state, self._held = _State.AFTER, ''
        return text
