"""Bounds of every field of a request, and of their sums.

A robot's network is no place of trust: one caller's 20 MB system prompt or million choices would
take the memory and the chip's time from all others. The limits are far above what any model here
holds; what is above them is refused with the value and the limit, before anything is done.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence, Sized
from typing import TYPE_CHECKING, Final

from edge_vlm_ros.core.errors import BadRequestError, TooManyFramesError

if TYPE_CHECKING:
    from edge_vlm_ros.core.question import Question

_KIB: Final = 1 << 10
_MIB: Final = 1 << 20

MAX_NAME_BYTES: Final = 256
"""Longest request_id, session_id and name of a camera, of a preset and of an image's encoding,
format and frame_id, UTF-8 bytes."""
MAX_SYSTEM_PROMPT_BYTES: Final = 64 * _KIB
MAX_CHOICES: Final = 256
MAX_CHOICE_BYTES: Final = _KIB
MAX_STOPS: Final = 16
MAX_STOP_BYTES: Final = 256
MAX_TEXT_BYTES: Final = 128 * _KIB
"""Question, system prompt, choices and stop strings together, UTF-8 bytes."""
MAX_CAMERAS: Final = 64
MAX_LATENCY_S: Final = 1e6
"""Longest max_latency_s; the shortest is 0."""
MAX_IMAGES: Final = 256
MAX_IMAGE_BYTES: Final = 128 * _MIB
MAX_IMAGES_BYTES: Final = 512 * _MIB
"""All images of a request together."""


def clipped_name(name: str) -> str:
    """Return a stranger's name for what must repeat it: an answer, a chunk, a log.

    Of one above the limit, as many bytes and an ellipsis: longer than any name that is taken, so
    it is nobody's.
    """
    if len(name) <= MAX_NAME_BYTES // 4:  # At most four bytes a character.
        return name
    head = name[: MAX_NAME_BYTES + 1].encode('utf-8', 'replace')
    if len(name) <= MAX_NAME_BYTES and len(head) <= MAX_NAME_BYTES:
        return name
    return f'{head[:MAX_NAME_BYTES].decode("utf-8", "ignore")}…'


def check_name(field: str, name: str) -> None:
    """Check a name.

    Args:
        field: Whose, for the message.
        name: It.

    Raises:
        BadRequestError: It is too long.
    """
    _size(field, name, MAX_NAME_BYTES)


def check_question(question: Question) -> None:
    """Check all of a question that a caller writes; its frames are `check_images`'.

    Raises:
        BadRequestError: A field is above its limit; says which, its value and the limit. Or its
            choices or stop strings make no sense; says which.
    """
    check_name('request_id', question.request_id)
    check_name('session_id', question.session_id)
    total = _size('question', question.text, MAX_TEXT_BYTES)
    total += _size('system_prompt', question.system_prompt, MAX_SYSTEM_PROMPT_BYTES)
    total += _sizes('choices', question.choices, MAX_CHOICES, MAX_CHOICE_BYTES)
    total += _sizes('stop', question.stop, MAX_STOPS, MAX_STOP_BYTES)
    if total > MAX_TEXT_BYTES:
        raise BadRequestError(
            f'question, system_prompt, choices and stop have {total} bytes together, the limit is '
            f'{MAX_TEXT_BYTES}'
        )
    if not 0 <= question.max_latency_s <= MAX_LATENCY_S:  # Not so for NaN either.
        raise BadRequestError(
            f'max_latency_s is from 0 to {MAX_LATENCY_S:.10g}, not {question.max_latency_s:.10g}'
        )
    _check_choices(question)
    if '' in question.stop:
        raise BadRequestError(f'stop[{question.stop.index("")}] is empty: it would end any answer')


def check_camera_names(names: Sequence[str]) -> None:
    """Check the cameras that a request names.

    Raises:
        BadRequestError: There are too many, or a name is too long.
    """
    _check_count('cameras', names, MAX_CAMERAS)
    for name in names:
        check_name('cameras', name)


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


def plain_text(text: str) -> str:
    """Return a text as it is compared: without case, width and what blanks stand where."""
    return ' '.join(unicodedata.normalize('NFKC', text).casefold().split())


def _check_choices(question: Question) -> None:
    """Check that choices can be told apart, and that nothing else shapes such an answer."""
    numbers: dict[str, int] = {}
    for number, choice in enumerate(question.choices):
        plain = plain_text(choice)
        if not plain:
            raise BadRequestError(f'choices[{number}] is blank: {choice!r}')
        before = numbers.setdefault(plain, number)
        if before != number:
            raise BadRequestError(
                f'choices[{before}] and choices[{number}] are the same: '
                f'{question.choices[before]!r} and {choice!r}'
            )
    others = {
        'stop': bool(question.stop),
        'repetition_penalty': question.sampling.repetition_penalty != 1,
    }
    for name, is_set in others.items():
        if question.choices and is_set:
            raise BadRequestError(f'{name} is for free text: it cannot be set with choices')


def _check_count(field: str, values: Sized, limit: int) -> None:
    if len(values) > limit:
        raise BadRequestError(f'{field} has {len(values)} entries, the limit is {limit}')


def _sizes(field: str, texts: Sequence[str], most: int, limit: int) -> int:
    """Return the UTF-8 bytes of a list of texts."""
    _check_count(field, texts, most)
    return sum(_size(f'{field}[{number}]', text, limit) for number, text in enumerate(texts))


def _size(field: str, text: str, limit: int) -> int:
    """Return a text's UTF-8 bytes; long ones are not encoded to be measured."""
    size = len(text) if len(text) > limit else len(text.encode('utf-8', 'replace'))
    if size > limit:
        raise BadRequestError(f'{field} has {size} bytes or more, the limit is {limit}')
    return size
