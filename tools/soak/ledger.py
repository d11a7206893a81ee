"""Who asked what, what came back, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from edge_vlm_ros.core import ErrorCode
from tools.soak.requests import DEATHS, Wish
from tools.soak.robot import Heard
from tools.soak.script import brightness, means_in

_CLOSE: Final = 0.03
"""Two brightnesses are 0.017 apart; what is told has two decimals, and JPEG is one off."""


@dataclass(slots=True)
class Asked:
    """A request that was made.

    Attributes:
        wish: What was wanted.
        request_id: Its id.
        deaths_before: How many model processes had been ended when it was asked.
        answer: What came back; None = nothing yet.
        replies: How often something came back.
        died: Whether a model process was ended while it was open.
    """

    wish: Wish
    request_id: str
    deaths_before: int
    answer: Any = None
    replies: int = 0
    died: bool = False


@dataclass(slots=True)
class Ledger:
    """All requests of a soak.

    Attributes:
        asked: In their order.
        dark, bright: The means of images of brightness 0 and 255.
        bystanders: Answers that the death of a model process cost, beside the one that caused it.
    """

    asked: list[Asked] = field(default_factory=list)
    dark: float = 0.0
    bright: float = 0.0

    def ends(self) -> dict[str, int]:
        """Count how requests ended."""
        codes = Counter(ErrorCode(one.answer.error_code).name for one in self.asked if one.answer)
        return dict(codes.most_common())

    def kinds(self) -> dict[str, int]:
        """Count requests by kind."""
        return dict(Counter(one.wish.kind for one in self.asked).most_common())

    def checked(self) -> int:
        """Count the good answers whose means were compared with their frames."""
        return sum(
            one.wish.is_checked and one.answer is not None and one.answer.error_code == 0
            for one in self.asked
        )

    def bystanders(self) -> int:
        """Count the answers that somebody else's death cost."""
        return sum(
            one.answer is not None
            and one.answer.error_code in DEATHS
            and one.answer.error_code not in one.wish.ends
            for one in self.asked
        )

    def wrongs(self, heard: dict[str, Heard]) -> Iterator[str]:
        """Say what is wrong, request by request."""
        for one in self.asked:
            for wrong in self._wrongs_of(one, heard.get(one.request_id, Heard())):
                yield f'{one.request_id} ({one.wish.kind}): {wrong}'
        strangers = set(heard) - {one.request_id for one in self.asked}
        if strangers:
            yield f'chunks of requests that nobody made: {sorted(strangers)[:5]}'

    def _wrongs_of(self, one: Asked, heard: Heard) -> Iterator[str]:
        if one.replies != 1:
            yield f'{one.replies} replies'
        if heard.finals != 1:
            yield f'{heard.finals} final chunks'
        if heard.sequences != list(range(len(heard.sequences))):
            yield f'chunks {heard.sequences}'
        answer = one.answer
        if answer is None:
            return
        if answer.request_id != one.request_id:
            yield f'the reply is of {answer.request_id!r}'
        if answer.text != ''.join(heard.deltas):
            yield f'the text {answer.text!r} is not that of the chunks {"".join(heard.deltas)!r}'
        code = ErrorCode(answer.error_code)
        allowed = one.wish.ends | (DEATHS | {ErrorCode.UNKNOWN_SESSION} if one.died else set())
        if code not in allowed:
            yield f'ended with {code.name}: {answer.message}'
        elif code is ErrorCode.NONE:
            yield from self._wrong_text(one)

    def _wrong_text(self, one: Asked) -> Iterator[str]:
        answer = one.answer
        if one.wish.kind == 'choices' and (answer.choice, answer.choice_valid) != ('yes', True):
            yield f'the choice is {answer.choice!r}'
        if not one.wish.is_checked:
            return
        step = (self.bright - self.dark) / 255
        expected = sorted(
            self.dark + step * brightness(frame.camera, _stamp_ns(frame))
            for frame in answer.frames
        )
        found = sorted(means_in(answer.text))
        is_same = len(found) == len(expected) and all(
            abs(one - other) < _CLOSE for one, other in zip(found, expected, strict=True)
        )
        if not found or not is_same:
            yield f'says {found}, its frames are {[round(each, 2) for each in expected]}'


def _stamp_ns(frame: Any) -> int:
    stamp = frame.header.stamp
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)
