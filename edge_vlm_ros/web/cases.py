"""Answers that were given here, with the pictures of their frames: to be shown, and to be kept.

A replay case is a ZIP archive: the pictures as `frames/*.jpg`, the question in `questions.json` as
`edge-vlm replay frames --questions questions.json` reads it, in `answer.json` all that was
answered. What was answered is what a replay expects: who knows better, writes it there.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edge_vlm_ros.core import NS_PER_S
from edge_vlm_ros.web import bounds
from edge_vlm_ros.web.pictures import Found
from edge_vlm_ros.web.robot import Request

REPLAY_FPS: Final = 2.0
"""Of a folder of images, as `edge-vlm replay` plays it."""

Finder = Callable[[str, int], 'Found | None']
"""Finds the picture of a camera's frame by its stamp in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Case:
    """One answer.

    Attributes:
        request: What was asked.
        answer: The fields of `msg/Answer`.
        found: The picture of each of its frames, in their order; None = not kept.
    """

    request: Request
    answer: Mapping[str, Any]
    found: tuple[Found | None, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the pictures."""
        return sum(len(each.picture.jpeg) for each in self.found if each is not None)

    def pictures(self) -> list[dict[str, Any]]:
        """Say of each frame what there is to show of it, as plain data."""
        return [_picture_facts(each) for each in self.found]


class Cases:
    """The last answers, bounded by their number and by the bytes of their pictures."""

    def __init__(
        self, max_answers: int = bounds.CASE_ANSWERS, max_bytes: int = bounds.CASE_BYTES
    ) -> None:
        self._max_answers = max_answers
        self._max_bytes = max_bytes
        self._cases: OrderedDict[int, Case] = OrderedDict()
        self._count = 0

    def add(self, request: Request, answer: Mapping[str, Any], find: Finder) -> tuple[int, Case]:
        """Keep an answer; return its number and all that is kept of it.

        Args:
            request: What was asked.
            answer: The fields of `msg/Answer`.
            find: Finds pictures.
        """
        frames: Sequence[Mapping[str, Any]] = answer.get('frames', ())
        case = Case(
            request, answer, tuple(find(frame['camera'], _stamp_ns(frame)) for frame in frames)
        )
        self._count += 1
        self._cases[self._count] = case
        while len(self._cases) > 1 and (
            len(self._cases) > self._max_answers or self.nbytes > self._max_bytes
        ):
            self._cases.popitem(last=False)
        return self._count, case

    @property
    def nbytes(self) -> int:
        """Bytes of all pictures that are kept."""
        return sum(case.nbytes for case in self._cases.values())

    def picture(self, number: int, index: int) -> bytes | None:
        """Return the picture of an answer's frame; None = it is not kept."""
        case = self._cases.get(number)
        if case is None or index >= len(case.found):
            return None
        found = case.found[index]
        return None if found is None else found.picture.jpeg

    def archive(self, number: int) -> bytes | None:
        """Return an answer as a replay case, a ZIP archive; None = it is not kept."""
        case = self._cases.get(number)
        return None if case is None else _archive(case)


def _stamp_ns(frame: Mapping[str, Any]) -> int:
    stamp = frame['header']['stamp']
    return int(stamp['sec']) * NS_PER_S + int(stamp['nanosec'])


def _picture_facts(found: Found | None) -> dict[str, Any]:
    if found is None:
        return {'kept': False}
    return {
        'kept': True,
        'offset_s': found.offset_ns / NS_PER_S,
        'is_whole': found.picture.is_whole,
    }


def _archive(case: Case) -> bytes:
    kept = [found.picture for found in case.found if found is not None]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:  # stored: JPEG does not shrink
        for index, picture in enumerate(kept):
            archive.writestr(f'frames/{index:03}.jpg', picture.jpeg)
        for name, content in (
            ('questions.json', {'questions': [_question(case, len(kept))]}),
            ('answer.json', {'answer': dict(case.answer), 'pictures': case.pictures()}),
        ):
            archive.writestr(name, json.dumps(content, indent=2, ensure_ascii=False) + '\n')
    return buffer.getvalue()


def _question(case: Case, count: int) -> dict[str, Any]:
    """Return the question as a replay of its frames alone asks it: of the last one, about all.

    Args:
        case: Whose.
        count: Frames that are kept.
    """
    seconds = max(0, count - 1) / REPLAY_FPS
    question: dict[str, Any] = {'at_s': seconds, 'question': case.request.question}
    if case.request.choices:
        question['choices'] = list(case.request.choices)
    if seconds:
        question['last_seconds'] = seconds
    question['expect'] = case.answer.get('choice') or case.answer.get('text', '')
    return question
