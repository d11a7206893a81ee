"""Bounds of every field of a request, and of their sums.

A robot's network is no place of trust: one caller's 20 MB system prompt or million choices would
take the memory and the chip's time from all others. The limits are far above what any model here
holds; what is above them is refused with the value and the limit, before anything is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from typing import TYPE_CHECKING, Final

from edge_vlm_ros.core.errors import BadRequestError, TooManyFramesError

if TYPE_CHECKING:
    from edge_vlm_ros.core.question import Question

_KIB: Final = 1 << 10
_MIB: Final = 1 << 20

MAX_NAME_BYTES: Final = 256
"""Longest request_id, session_id and name of a camera, UTF-8 bytes."""
MAX_SYSTEM_PROMPT_BYTES: Final = 64 * _KIB
MAX_CHOICES: Final = 256
MAX_CHOICE_BYTES: Final = _KIB
MAX_TEXT_BYTES: Final = 128 * _KIB
"""Question, system prompt and choices together, UTF-8 bytes."""
MAX_CAMERAS: Final = 64
MAX_LATENCY_S: Final = 1e6
"""Longest max_latency_s; the shortest is 0."""
MAX_IMAGES: Final = 256
MAX_IMAGE_BYTES: Final = 128 * _MIB
MAX_IMAGES_BYTES: Final = 512 * _MIB
"""All images of a request together."""


def check_question(question: Question) -> None:
    """Check all of a question that a caller writes; its frames are `check_images`'.

    Raises:
        BadRequestError: A field is above its limit; says which, its value and the limit.
    """
    _check_name('request_id', question.request_id)
    _check_name('session_id', question.session_id)
    total = _size('question', question.text, MAX_TEXT_BYTES)
    total += _size('system_prompt', question.system_prompt, MAX_SYSTEM_PROMPT_BYTES)
    _check_count('choices', question.choices, MAX_CHOICES)
    total += sum(
        _size(f'choices[{number}]', choice, MAX_CHOICE_BYTES)
        for number, choice in enumerate(question.choices)
    )
    if total > MAX_TEXT_BYTES:
        raise BadRequestError(
            f'question, system_prompt and choices have {total} bytes together, the limit is '
            f'{MAX_TEXT_BYTES}'
        )
    if not 0 <= question.max_latency_s <= MAX_LATENCY_S:  # Not so for NaN either.
        raise BadRequestError(
            f'max_latency_s is from 0 to {MAX_LATENCY_S:.10g}, not {question.max_latency_s:.10g}'
        )


def check_camera_names(names: Sequence[str]) -> None:
    """Check the cameras that a request names.

    Raises:
        BadRequestError: There are too many, or a name is too long.
    """
    _check_count('cameras', names, MAX_CAMERAS)
    for name in names:
        _check_name('cameras', name)


def check_images(sizes: Iterable[int]) -> None:
    """Check the images that a request brings along.

    Args:
        sizes: Bytes of each, as they came.

    Raises:
        TooManyFramesError: There are too many; a model takes fewer anyway.
        BadRequestError: One is too large, or all together are.
    """
    total = 0
    for number, size in enumerate(sizes):
        if number == MAX_IMAGES:
            raise TooManyFramesError(f'more than {MAX_IMAGES} images in one request, the limit')
        if size > MAX_IMAGE_BYTES:
            raise BadRequestError(
                f'image {number} has {size} bytes, the limit is {MAX_IMAGE_BYTES}'
            )
        total += size
        if total > MAX_IMAGES_BYTES:
            raise BadRequestError(
                f'{number + 1} images have {total} bytes, the limit of all is {MAX_IMAGES_BYTES}'
            )


def _check_name(field: str, name: str) -> None:
    _size(field, name, MAX_NAME_BYTES)


def _check_count(field: str, values: Sized, limit: int) -> None:
    if len(values) > limit:
        raise BadRequestError(f'{field} has {len(values)} entries, the limit is {limit}')


def _size(field: str, text: str, limit: int) -> int:
    """Return a text's UTF-8 bytes; long ones are not encoded to be measured."""
    size = len(text) if len(text) > limit else len(text.encode('utf-8', 'replace'))
    if size > limit:
        raise BadRequestError(f'{field} has {size} bytes or more, the limit is {limit}')
    return size
