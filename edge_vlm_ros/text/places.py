"""The places that an answer names, in the forms that models were trained to write.

* `REF_BOX` (OpenGVLab/InternVL, grounding format):
  `<ref>dog</ref><box>[[x1, y1, x2, y2], ...]</box>`
* `OBJECT_REF` (QwenLM/Qwen2-VL, README): `<|object_ref_start|>dog<|object_ref_end|>` and then
  `<|box_start|>(x1,y1),(x2,y2)<|box_end|>`, once or more often; one pair of numbers is a point
* `JSON` (QwenLM/Qwen3-VL, cookbooks of Qwen2.5-VL and Qwen3-VL):
  `{"bbox_2d": [x1, y1, x2, y2], "label": "dog"}`, or `point_2d` with two numbers

Template tokens are part of the first two: what is read here is the answer with them spelled out.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_NUMBER = r'-?\d+(?:\.\d+)?'
_REF_BOX = re.compile(r'(?:<ref>(?P<label>.*?)</ref>\s*)?<box>(?P<boxes>.*?)</box>', re.DOTALL)
_LIST = re.compile(rf'\[\s*({_NUMBER}(?:\s*,\s*{_NUMBER})*)\s*\]')
_OBJECT_REF = re.compile(
    r'(?:<\|object_ref_start\|>(?P<label>.*?)<\|object_ref_end\|>)?'
    r'(?P<boxes>(?:\s*<\|box_start\|>.*?<\|box_end\|>)+)',
    re.DOTALL,
)
_BOX = re.compile(r'<\|box_start\|>(.*?)<\|box_end\|>', re.DOTALL)
_PAIR = re.compile(rf'\(\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\)')
_OBJECT = re.compile(r'\{[^{}]*\}')
_JSON_KEYS = ('bbox_2d', 'point_2d')


class PlaceForm(Enum):
    """How a model writes places."""

    REF_BOX = 'ref and box'
    OBJECT_REF = 'object_ref and box'
    JSON = 'json'


@dataclass(frozen=True, slots=True)
class NamedPlace:
    """One place as the model wrote it.

    Attributes:
        label: '' = none.
        numbers: Left, upper, right, lower edge of a box, or x and y of a point, in the model's
            unit; any other number of them is no place.
    """

    label: str
    numbers: tuple[float, ...]


def find_places(answer: str, form: PlaceForm) -> list[NamedPlace]:
    """Find the places that an answer names; [] = it names none. A place cut short is none.

    Args:
        answer: With its template tokens spelled out.
        form: How the model writes them.
    """
    return list(_FINDERS[form](answer))


def _ref_boxes(answer: str) -> Iterator[NamedPlace]:
    for found in _REF_BOX.finditer(answer):
        label = (found['label'] or '').strip()
        for numbers in _LIST.findall(found['boxes']):
            yield NamedPlace(label, tuple(map(float, numbers.split(','))))


def _object_refs(answer: str) -> Iterator[NamedPlace]:
    for found in _OBJECT_REF.finditer(answer):
        label = (found['label'] or '').strip()
        for box in _BOX.findall(found['boxes']):
            pairs = _PAIR.findall(box)
            yield NamedPlace(label, tuple(float(number) for pair in pairs for number in pair))


def _json_objects(answer: str) -> Iterator[NamedPlace]:
    for text in _OBJECT.findall(answer):
        try:
            written: dict[str, Any] = json.loads(text)
        except ValueError:
            continue
        for key in _JSON_KEYS:
            if key in written:
                label = written.get('label', '')
                yield NamedPlace(label if isinstance(label, str) else '', _numbers(written[key]))


def _numbers(written: object) -> tuple[float, ...]:
    """Return a list of finite numbers as they are; of anything else nothing."""
    if not isinstance(written, list):
        return ()
    if any(isinstance(n, bool) or not isinstance(n, int | float) for n in written):
        return ()
    return tuple(float(n) for n in written) if all(map(math.isfinite, written)) else ()


_FINDERS = {
    PlaceForm.REF_BOX: _ref_boxes,
    PlaceForm.OBJECT_REF: _object_refs,
    PlaceForm.JSON: _json_objects,
}
